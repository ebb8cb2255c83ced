"""Keys for tokens: the private one of a service account, the public ones that a receiver trusts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast, get_args

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.wire.tokens.compact import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

MAX_KEY_ID: Final = 128
MAX_JWKS_BYTES: Final = 1 << 20
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Above it a verification costs more than a receiver should spend on one heartbeat."""
_RSA_EXPONENTS = range(65_537, 2**32)

_WANTED: Final = "give the PEM file of a P-256, Ed25519 or RSA key"

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_P256_BYTES: Final = 32
_SHA256: Final = SHA256()
_ECDSA: Final = ec.ECDSA(_SHA256)
_PKCS1: Final = PKCS1v15()
_PSS: Final = PSS(mgf=MGF1(SHA256()), salt_length=PSS.DIGEST_LENGTH)
_JWK_READERS: Final[dict[object, Algorithm]] = {"EC": "ES256", "OKP": "EdDSA", "RSA": "RS256"}
# RFC 7518, 6.2.2, 6.3.2 and 6.4.1; RFC 8037, section 2.
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})

is_key_id = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_ID}}}").fullmatch
"""Matches what may be a `kid`: 1 to 128 printable ASCII characters, no space."""


class SigningKey:
    """A private key, parsed once: with RSA, parsing costs more than a hundred signatures.

    Attributes:
        kid: The key's name in the key set.
        algorithm: The one algorithm that it signs with.
    """

    __slots__ = ("_private", "algorithm", "kid")

    def __init__(self, private: PrivateKey, *, kid: str, algorithm: Algorithm) -> None:
        self.kid: Final = kid
        self.algorithm: Final[Algorithm] = algorithm
        self._private = private

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r}, algorithm={self.algorithm!r})"

    @classmethod
    def load(
        cls, pem: bytes, *, kid: str, algorithm: Algorithm | None = None, source: str = "the token key"
    ) -> Self:
        """Read a private key, PEM, not encrypted.

        Args:
            pem: PKCS #8, or the older form of the key's type.
            kid: The key's name in the receiver's key set.
            algorithm: What to sign with; by default the first that fits the key.
            source: The file's name, for the error text.

        Raises:
            CredentialError: It is no such key, too weak, or does not fit the algorithm or the kid's rule.
        """
        if not is_key_id(kid):
            raise CredentialError(f"{source}: kid must be 1 to {MAX_KEY_ID} printable ASCII characters")
        try:
            private = load_pem_private_key(pem, password=None)
            usable = _algorithms_of(private.public_key())
        except TypeError:
            raise CredentialError(f"{source}: the key is encrypted; give it without a pass phrase") from None
        except _UnusableKeyError as error:
            raise CredentialError(f"{source}: {error}") from None
        except (ValueError, UnsupportedAlgorithm):
            raise CredentialError(f"{source}: not a private key in PEM form; {_WANTED}") from None
        chosen = algorithm or usable[0]
        if chosen not in usable:
            others = " and ".join(usable)
            remedy = "choose one of these, or give another key"
            message = f"{source}: the key cannot sign {chosen}, only {others}; {remedy}"
            raise CredentialError(message)
        return cls(cast("PrivateKey", private), kid=kid, algorithm=chosen)

    def sign(self, signing_input: bytes) -> bytes:
        """Return the signature in the form of RFC 7518, section 3, and RFC 8037, section 3.1."""
        private = self._private
        if isinstance(private, ec.EllipticCurvePrivateKey):
            pair = decode_dss_signature(private.sign(signing_input, _ECDSA))
            return b"".join(number.to_bytes(_P256_BYTES, "big") for number in pair)
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return private.sign(signing_input)
        return private.sign(signing_input, _PSS if self.algorithm == "PS256" else _PKCS1, _SHA256)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public key as a JWK (RFC 7517), bound to the algorithm."""
        jwk = _pyjwt(self.algorithm).to_jwk(self._private.public_key(), as_dict=True)
        # RFC 7517, 4.3: `use` and `key_ops` are not given together.
        members = {name: value for name, value in jwk.items() if name != "key_ops"}
        return members | {"kid": self.kid, "alg": self.algorithm, "use": "sig"}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and what it may verify.

    Attributes:
        kid: The key's name in its set.
        algorithms: What it may verify: one algorithm, or RS256 and PS256 for an RSA key that names none.
    """

    kid: str
    algorithms: tuple[Algorithm, ...]
    public: PublicKey = field(repr=False)

    def verify(self, algorithm: Algorithm, signing_input: bytes, signature: bytes) -> bool:
        """Tell whether a signature is this key's; false for an algorithm that is not the key's own."""
        if algorithm not in self.algorithms:
            return False
        try:
            self._verify(algorithm, signing_input, signature)
        except InvalidSignature:
            return False
        return True

    def _verify(self, algorithm: Algorithm, signing_input: bytes, signature: bytes) -> None:
        if algorithm == "ES256":
            if len(signature) != 2 * _P256_BYTES:
                raise InvalidSignature
            r, s = signature[:_P256_BYTES], signature[_P256_BYTES:]
            pair = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
            cast("ec.EllipticCurvePublicKey", self.public).verify(pair, signing_input, _ECDSA)
        elif algorithm == "EdDSA":
            cast("ed25519.Ed25519PublicKey", self.public).verify(signature, signing_input)
        else:
            padding = _PSS if algorithm == "PS256" else _PKCS1
            cast("rsa.RSAPublicKey", self.public).verify(signature, signing_input, padding, _SHA256)


class KeySet:
    """The public keys of one JWKS, by `kid`.

    Attributes:
        skipped: One line for each key of the document that is not used, and why.
    """

    __slots__ = ("_keys", "skipped")

    def __init__(self, keys: Iterable[VerificationKey], skipped: tuple[str, ...] = ()) -> None:
        self._keys: Final = {key.kid: key for key in keys}
        self.skipped: Final = skipped

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def key_ids(self) -> frozenset[str]:
        """The `kid` of every usable key."""
        return frozenset(self._keys)

    def get(self, kid: str) -> VerificationKey | None:
        """Return a key, or None."""
        return self._keys.get(kid)

    @classmethod
    def from_jwks(cls, document: bytes, *, source: str = "the key set") -> Self:
        """Read a JWK set (RFC 7517, section 5) of public keys.

        Keys for another purpose, of an unknown type or too weak are left out and listed in `skipped`.

        Args:
            document: The JSON text.
            source: The file's name or the URL, for the error text.

        Raises:
            CredentialError: It is no JWK set, holds a private or symmetric key or one `kid` twice, or not one
                of its keys is usable.
        """
        keys: dict[str, VerificationKey] = {}
        skipped: list[str] = []
        for index, jwk in enumerate(_jwks(document, source)):
            place = f"keys[{index}]"
            if not isinstance(jwk, dict):
                raise CredentialError(f"{source}: {place} is not an object")
            if jwk.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(jwk):
                raise CredentialError(
                    f"{source}: {place} is a private or symmetric key; publish the public half only, "
                    "and replace the key, for it must count as known to others"
                )
            try:
                key = _verification_key(jwk)
            except _UnusableKeyError as error:
                skipped.append(f"{place}: {error}")
                continue
            if key.kid in keys:
                raise CredentialError(
                    f"{source}: {place} has the kid of another key; every key needs its own"
                )
            keys[key.kid] = key
        if not keys:
            reasons = "; ".join(skipped[:8]) or "it is empty"
            raise CredentialError(f"{source}: no key in it can be used: {reasons}")
        return cls(keys.values(), tuple(skipped))


def public_jwks(keys: Iterable[SigningKey]) -> bytes:
    """Return the JWK set of the public halves, for a receiver's `jwks` file.

    Raises:
        CredentialError: Two keys have one `kid`.
    """
    jwks = [key.public_jwk() for key in keys]
    if len({jwk["kid"] for jwk in jwks}) != len(jwks):
        raise CredentialError("two token keys have one kid; every key needs its own")
    return msgspec.json.format(msgspec.json.encode({"keys": jwks}, order="sorted"), indent=2)


@cache
def _pyjwt(algorithm: Algorithm) -> Any:
    """Return what reads and writes the keys of an algorithm. A node, which only signs, does without it."""
    from jwt import PyJWS  # noqa: PLC0415 - 2 MiB and 20 ms, only when used

    return PyJWS(algorithms=ALGORITHMS).get_algorithm_by_name(algorithm)


class _UnusableKeyError(Exception):
    """A key that cannot be used, and why."""


def _jwks(document: bytes, source: str) -> list[object]:
    if len(document) > MAX_JWKS_BYTES:
        raise CredentialError(f"{source}: over {MAX_JWKS_BYTES} bytes; that is no key set")
    try:
        keys = read_object(document).get("keys")
    except ValueError:
        raise CredentialError(f"{source}: not a strict JSON object without duplicate members") from None
    if not isinstance(keys, list):
        raise CredentialError(f"{source}: has no array `keys`, so it is no JWK set")
    return keys


def _verification_key(jwk: dict[str, Any]) -> VerificationKey:
    kid = jwk.get("kid")
    if not (isinstance(kid, str) and is_key_id(kid)):
        raise _UnusableKeyError(f"its kid is not 1 to {MAX_KEY_ID} printable ASCII characters")
    if jwk.get("use", "sig") != "sig":
        raise _UnusableKeyError("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not (isinstance(operations, list) and "verify" in operations):
        raise _UnusableKeyError("its key_ops lack verify")
    public = _public_key(jwk)
    usable = _algorithms_of(public)
    algorithm = jwk.get("alg")
    if algorithm is not None:
        usable = tuple(name for name in usable if name == algorithm)
    if not usable:
        raise _UnusableKeyError("its alg is not one that its type of key may have here")
    return VerificationKey(kid, usable, cast("PublicKey", public))


def _public_key(jwk: dict[str, Any]) -> object:
    kind = jwk.get("kty")
    reader = _JWK_READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise _UnusableKeyError("its kty is not EC, OKP or RSA")
    from jwt.exceptions import PyJWTError  # noqa: PLC0415 - as in _pyjwt

    try:
        return _pyjwt(reader).from_jwk(jwk)
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm, OverflowError):
        raise _UnusableKeyError("its members are not those of a public key that can be used here") from None


def _algorithms_of(public: object) -> tuple[Algorithm, ...]:
    """Return what a public key may verify; a key of another type, or a weak one, raises."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        return ("EdDSA",)
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return ("ES256",)
    if isinstance(public, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            raise _UnusableKeyError(f"an RSA key needs {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
        if public.public_numbers().e not in _RSA_EXPONENTS:
            raise _UnusableKeyError("an RSA key needs a public exponent of 65537 or somewhat more")
        return ("RS256", "PS256")
    raise _UnusableKeyError("only P-256, Ed25519 and RSA keys can be used")
