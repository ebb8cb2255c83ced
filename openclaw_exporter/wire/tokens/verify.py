"""Verification: what a receiver accepts as a token, for whom, and for how long.

Before the signature only the token's form is looked at, at most 4 KiB of it; what the token claims counts
once the signature holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from openclaw_exporter.errors import ConfigError, ConfigProblem, StoreUnavailableError, TokenError
from openclaw_exporter.wire.tokens.compact import Compact, parse
from openclaw_exporter.wire.tokens.keys import ALGORITHMS, Algorithm, KeySet, VerificationKey, is_key_id
from openclaw_exporter.wire.tokens.mint import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Profile = Literal["minted", "external"]

DEFAULT_LEEWAY: Final = 30
MAX_LEEWAY: Final = 300
MAX_SUBJECT: Final = 255

_HEADERS: Final[dict[Profile, frozenset[str]]] = {
    "minted": frozenset({"alg", "kid", "typ"}),
    # A thumbprint of the signer's certificate names a key that is found by kid anyway.
    "external": frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"}),
}
_KINDS: Final[dict[Profile, frozenset[str]]] = {
    "minted": frozenset({"JWT"}),
    # The JWT-SVID specification, section 2.3, allows both.
    "external": frozenset({"JWT", "JOSE"}),
}
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999, the last that RFC 3339 can write


class Issuer(msgspec.Struct, frozen=True):
    """Somebody whose tokens are accepted, and on what terms.

    Attributes:
        issuer: `iss`, to the letter.
        audience: `aud` that its tokens must have.
        profile: `minted` by the nodes themselves, or `external`: brought by the platform.
        algorithms: The allowed `alg` values.
        max_life: The longest life of a token, seconds, up to 3600.
        keys: The issuer's own key set, so that nobody else's key vouches for it; None: the verifier's. An
            empty one could not be read yet, so its tokens can be told neither good nor bad.

    Raises:
        ConfigError: A term is missing or unsafe; all are named.
    """

    issuer: str
    audience: str
    profile: Profile
    algorithms: tuple[Algorithm, ...]
    max_life: int = 600
    keys: KeySet | None = None

    def __post_init__(self) -> None:
        problems = [
            ConfigProblem(name, "is empty", "the text that the tokens have")
            for name, value in (("issuer", self.issuer), ("audience", self.audience))
            if not value
        ]
        if self.profile not in _HEADERS:
            problems.append(ConfigProblem("profile", f"is {self.profile!r}", "minted or external"))
        if not self.algorithms or not set(self.algorithms) <= set(ALGORITHMS):
            problems.append(
                ConfigProblem(
                    "algorithms", f"is {self.algorithms!r}", "at least one of " + ", ".join(ALGORITHMS)
                )
            )
        if not 1 <= self.max_life <= MAX_LIFETIME:
            problems.append(ConfigProblem("max_life", f"is {self.max_life}", f"1 to {MAX_LIFETIME} seconds"))
        if problems:
            raise ConfigError(tuple(problems))


class VerifiedToken(NamedTuple):
    """What a valid token says.

    Attributes:
        issuer: `iss`.
        subject: `sub`: a node_id in the minted profile, the platform's name in the external one.
        expires_at: `exp`, Unix seconds, without leeway.
        profile: The issuer's profile.
        key_id: The key that signed it.
    """

    issuer: str
    subject: str
    expires_at: float
    profile: Profile
    key_id: str


class Verifier:
    """Verifies tokens against fixed keys and issuers; a new key set makes a new verifier.

    Args:
        keys: The keys of every issuer that does not bring its own.
        issuers: Whose tokens are accepted.
        leeway: How far clocks may differ, seconds.

    Raises:
        ConfigError: There is no issuer, or one twice, or the leeway is not 0 to 300 s.
    """

    def __init__(self, keys: KeySet, issuers: Sequence[Issuer], leeway: float = DEFAULT_LEEWAY) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if not issuers or len(self._issuers) != len(issuers):
            raise ConfigError((ConfigProblem("issuers", "none, or one twice", "one entry for each issuer"),))
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ConfigError((ConfigProblem("leeway", f"is {leeway}", f"0 to {MAX_LEEWAY} seconds"),))
        self._keys = keys
        self._leeway = leeway

    def verify(self, token: bytes | str, *, thumbprint: str, now: float) -> VerifiedToken:
        """Verify a token.

        Args:
            token: The compact form, as it stands after `Bearer `.
            thumbprint: `x5t#S256` of the connection's certificate.
            now: Unix seconds.

        Raises:
            TokenError: It is not valid. `token-key-unknown` may be cured by fetching the key set again.
            StoreUnavailableError: It may be valid: its issuer is accepted and has no key yet.
        """
        compact = parse(token)
        issuer = self._issuer(compact.claims)
        _check_header(compact.header, issuer)
        key = self._verified_key(compact, issuer)
        return self._accept(compact.claims, issuer, key, thumbprint, now)

    def key(self, issuer: str, key_id: str) -> VerificationKey | None:
        """Return the key that vouches for tokens of an issuer with this `kid`, or None."""
        known = self._issuers.get(issuer)
        keys = self._keys if known is None or known.keys is None else known.keys
        return None if known is None else keys.get(key_id)

    def _issuer(self, claims: dict[str, Any]) -> Issuer:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenError("token-issuer", "the token's issuer is not one that is configured")
        return issuer

    def _verified_key(self, compact: Compact, issuer: Issuer) -> VerificationKey:
        keys = self._keys if issuer.keys is None else issuer.keys
        if not keys:
            # The token may well be right: this is not the node's fault.
            raise StoreUnavailableError("the key set of the token's issuer could not be fetched yet")
        key = keys.get(compact.header["kid"])
        if key is None:
            raise TokenError("token-key-unknown", "the token's key is not in the issuer's key set")
        algorithm: Algorithm = compact.header["alg"]
        if algorithm not in key.algorithms:
            raise TokenError("token-algorithm", "the token's algorithm is not its key's")
        if not key.verify(algorithm, compact.signing_input, compact.signature):
            raise TokenError("token-signature", "the token's signature is not valid")
        return key

    def _accept(
        self, claims: dict[str, Any], issuer: Issuer, key: VerificationKey, thumbprint: str, now: float
    ) -> VerifiedToken:
        subject = claims.get("sub")
        if not (isinstance(subject, str) and 1 <= len(subject) <= MAX_SUBJECT and subject.isprintable()):
            raise TokenError("token-claims", "the token needs a sub of 1 to 255 printable characters")
        _check_audience(claims.get("aud"), issuer)
        expires_at = self._check_times(claims, issuer, now)
        _check_binding(claims, issuer, thumbprint)
        return VerifiedToken(issuer.issuer, subject, expires_at, issuer.profile, key.kid)

    def _check_times(self, claims: dict[str, Any], issuer: Issuer, now: float) -> float:
        expires_at = _numeric_date(claims, "exp")
        issued_at = _numeric_date(claims, "iat")
        not_before = _numeric_date(claims, "nbf")
        if expires_at is None:
            raise TokenError("token-claims", "the token needs exp")
        if issuer.profile == "minted" and (issued_at is None or not_before is None):
            raise TokenError("token-claims", "a minted token needs iat and nbf")
        starts = [start for start in (issued_at, not_before) if start is not None]
        if any(expires_at <= start for start in starts):
            raise TokenError("token-claims", "the token expires before it begins")
        if any(start > now + self._leeway for start in starts):
            raise TokenError("token-not-yet-valid", "the token is from the future: compare the clocks")
        if now >= expires_at + self._leeway:
            raise TokenError("token-expired", "the token has expired")
        issued_too_long = issued_at is not None and expires_at - issued_at > issuer.max_life
        if issued_too_long or expires_at - now > issuer.max_life + self._leeway:
            raise TokenError("token-lifetime", f"the token lives longer than {issuer.max_life} s")
        return expires_at


def _check_header(header: Mapping[str, Any], issuer: Issuer) -> None:
    if not header.keys() <= _HEADERS[issuer.profile]:
        raise TokenError("token-header", "the token's header has a member that its profile does not allow")
    if header.get("alg") not in issuer.algorithms:
        raise TokenError("token-algorithm", "the token's algorithm is not one that is allowed")
    # RFC 8725, 3.11: a JWT of another kind (a logout token, a proof) is no bearer token.
    kind = header.get("typ", "JWT")
    if not (isinstance(kind, str) and kind.upper() in _KINDS[issuer.profile]):
        raise TokenError("token-header", "the token's typ is not one that its profile allows")
    kid = header.get("kid")
    if not (isinstance(kid, str) and is_key_id(kid)):
        raise TokenError("token-header", "the token needs a kid of 1 to 128 printable ASCII characters")


def _check_audience(audience: object, issuer: Issuer) -> None:
    if issuer.profile == "external" and isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if audience != issuer.audience:
        raise TokenError("token-audience", "the token's aud is not this receiver alone")


def _check_binding(claims: dict[str, Any], issuer: Issuer, thumbprint: str) -> None:
    """Check RFC 8705's confirmation. A token bound to anything else is refused: it is no bearer token."""
    if issuer.profile == "external" and "cnf" not in claims:
        return
    if "cnf" not in claims:
        raise TokenError(
            "token-binding", "the token has no cnf: it is bound to no certificate, and has to be"
        )
    confirmation = claims["cnf"]
    bound = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    alone = issuer.profile == "external" or confirmation == {"x5t#S256": bound}
    # A connection without a certificate has no thumbprint that anything could be bound to.
    if not (isinstance(bound, str) and bound and bound == thumbprint and alone):
        raise TokenError("token-binding", "the token's cnf is not the client certificate's x5t#S256")


def _numeric_date(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2), Unix seconds, or None where there is none."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) in (int, float) and 0 <= value <= _LAST_SECOND:
        return float(value)
    raise TokenError("token-claims", f"the token's {name} is not a number of Unix seconds")
