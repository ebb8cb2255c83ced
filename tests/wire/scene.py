"""A receiver's verifier, the tokens that it accepts, and the ways to spoil them."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from wire.forge import NODE, b64, certificate, jwk, key, sign, text, token

from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.tokens import ALGORITHMS, Issuer, KeySet, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_770_000_000
AUDIENCE = "openclaw-receiver"
THUMBPRINT = thumbprint(certificate(common_name="this connection"))
OTHER_THUMBPRINT = thumbprint(certificate(common_name="another connection"))
BOUND = {"x5t#S256": THUMBPRINT}
HEADER = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
CLAIMS = {
    "iss": "chimera",
    "sub": NODE,
    "aud": AUDIENCE,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 600,
    "cnf": BOUND,
}
EXTERNAL = {"iss": "mesh", "sub": "system:node", "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 3600}


@functools.cache
def verifier() -> Verifier:
    """Return a receiver's verifier: two issuers on common keys, one with keys of its own."""
    common = [
        jwk("p256", kid="ec", alg="ES256", use="sig"),
        jwk("ed25519", kid="ed"),
        jwk("rsa2048", kid="rsa"),
        jwk("rsa2048", "ps", kid="ps", alg="PS256"),
        jwk("p384", kid="p384"),
        jwk("p384", kid="p384-as-es256", alg="ES256"),
        jwk("ed448", kid="ed448"),
        jwk("secp256k1", kid="secp256k1"),
        jwk("rsa1024", kid="rsa1024"),
        jwk("rsa2048e3", kid="rsa-e3"),
    ]
    own = [jwk("p256", "platform", kid="platform"), jwk("rsa2048", "platform", kid="platform-rsa")]
    issuers = [
        Issuer("chimera", AUDIENCE, "minted", ALGORITHMS),
        Issuer("mesh", AUDIENCE, "external", ALGORITHMS, max_life=3600),
        Issuer("platform", AUDIENCE, "external", ("ES256",), max_life=3600, keys=KeySet.from_jwks(jwks(own))),
    ]
    return Verifier(KeySet.from_jwks(jwks(common)), issuers)


def jwks(keys: list[dict[str, Any]]) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": keys}).encode()


def minted(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a minted token with changes, signed rightly by the key `ec`."""
    return token(HEADER | (header or {}), CLAIMS | claims, "ES256", key("p256"))


def external(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return an external token with changes, signed rightly by the key `ec`."""
    return token(HEADER | (header or {}), EXTERNAL | claims, "ES256", key("p256"))


def signed_by(algorithm: str, kid: str, private: Any, **claims: Any) -> str:
    """Return a minted token that another key and algorithm sign."""
    return token(HEADER | {"alg": algorithm, "kid": kid}, CLAIMS | claims, algorithm, private)


def claiming(algorithm: object, kid: str = "ec") -> str:
    """Return a token that names an algorithm but is signed as ES256."""
    return token(HEADER | {"alg": algorithm, "kid": kid}, CLAIMS, "ES256", key("p256"))


def raw(header: bytes | None = None, claims: bytes | None = None) -> str:
    """Return a rightly signed token whose header or claims are any bytes."""
    return token(text(HEADER) if header is None else header, text(CLAIMS) if claims is None else claims,
                 "ES256", key("p256"))  # fmt: skip


def hmac_with(secret: bytes, algorithm: str = "HS256") -> str:
    """Return a token signed with a public key's text as HMAC secret: the classic confusion."""
    signing_input = f"{b64(text(HEADER | {'alg': algorithm}))}.{b64(text(CLAIMS))}"
    return f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"


def with_signature(change: Callable[[bytes], bytes], kid: str = "ec", algorithm: str = "ES256") -> str:
    """Return a token whose signature is changed afterwards."""
    private = {"ec": key("p256"), "ed": key("ed25519"), "rsa": key("rsa2048")}[kid]
    signing_input = f"{b64(text(HEADER | {'alg': algorithm, 'kid': kid}))}.{b64(text(CLAIMS))}"
    return f"{signing_input}.{b64(change(sign(algorithm, private, signing_input)))}"


def swapped(segment: int, other: str) -> str:
    """Return a valid token in which one segment is another valid token's."""
    segments = minted().split(".")
    segments[segment] = other.split(".")[segment]
    return ".".join(segments)


def segment_changed(segment: int, change: Callable[[str], str]) -> str:
    """Return a valid token with one segment's text changed."""
    segments = minted().split(".")
    segments[segment] = change(segments[segment])
    return ".".join(segments)


def with_last_bits(encoded: str) -> str:
    """Return base64url of the same bytes with its unused last bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(encoded) % 4, "no bits are unused"
    changed = encoded[:-1] + alphabet[alphabet.index(encoded[-1]) | 1]
    padding = "=" * (-len(encoded) % 4)
    assert urlsafe_b64decode(changed + padding) == urlsafe_b64decode(encoded + padding)
    return changed


def noncanonical(segment: int) -> str:
    """Return a token one of whose segments has unused bits set, correctly signed as it stands."""
    # Spaces are legal in JSON; one or two make the length leave bits over.
    header, claims = (
        next(b64(content) for pad in range(3) if len(content := text(members) + b" " * pad) % 3)
        for members in (HEADER, CLAIMS)
    )
    parts = [header, claims]
    if segment < len(parts):
        parts[segment] = with_last_bits(parts[segment])
    parts.append(b64(sign("ES256", key("p256"), ".".join(parts))))
    if segment == len(parts) - 1:
        parts[segment] = with_last_bits(parts[segment])
    return ".".join(parts)


def raised_scalar(signature: bytes) -> bytes:
    """Return an Ed25519 signature with S + L for S: RFC 8032, 5.1.7 forbids it."""
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    return signature[:32] + scalar.to_bytes(32, "little")


def as_der(signature: bytes) -> bytes:
    """Return an ES256 signature in the form that TLS uses and JOSE does not."""
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


class Attack(NamedTuple):
    """One attack: how it is forged, and the case by which it is to be refused."""

    name: str
    slug: str
    make: Callable[[], str | bytes]


def cases(slug: str, **makers: Callable[[], str | bytes]) -> list[Attack]:
    """Return the attacks of one case, named by their keywords."""
    return [Attack(name.replace("_", " "), slug, make) for name, make in makers.items()]
