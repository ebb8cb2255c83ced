"""Minting: a node makes its own short-lived token from a service-account key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.wire.tokens.compact import encode_base64url

if TYPE_CHECKING:
    from openclaw_exporter.wire.tokens.keys import SigningKey

DEFAULT_LIFETIME: Final = 600
MAX_LIFETIME: Final = 3600


class Token(NamedTuple):
    """A minted token. Its text is a secret and does not show in its `repr`.

    Attributes:
        text: The compact form.
        issued_at: Unix seconds.
        expires_at: Unix seconds.
    """

    text: str
    issued_at: int
    expires_at: int

    def __repr__(self) -> str:
        return f"Token(issued_at={self.issued_at}, expires_at={self.expires_at})"


class Minter:
    """Makes tokens of the *minted* profile.

    Args:
        key: What signs.
        issuer: `iss`, as the receiver knows it.
        audience: `aud`, the receiver's own name.
        lifetime: Seconds from `iat` to `exp`, 1 to 3600.

    Attributes:
        key: What signs.
        lifetime: Seconds from `iat` to `exp`.

    Raises:
        ConfigError: Issuer or audience are empty, or the lifetime is out of its bounds.
    """

    def __init__(
        self, key: SigningKey, *, issuer: str, audience: str, lifetime: int = DEFAULT_LIFETIME
    ) -> None:
        problems = [
            ConfigProblem(name, "is empty", "the receiver's own setting")
            for name, value in (("issuer", issuer), ("audience", audience))
            if not value
        ]
        if not 1 <= lifetime <= MAX_LIFETIME:
            problems.append(ConfigProblem("lifetime", f"is {lifetime}", f"1 to {MAX_LIFETIME} seconds"))
        if problems:
            raise ConfigError(tuple(problems))
        self.key: Final = key
        self._issuer = issuer
        self._audience = audience
        self.lifetime: Final = lifetime
        header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
        self._header = encode_base64url(msgspec.json.encode(header))

    def mint(self, subject: str, *, thumbprint: str, now: float) -> Token:
        """Make a token that holds from now on, for one node on one connection.

        Args:
            subject: The node's node_id.
            thumbprint: `x5t#S256` of the certificate of the connection that the token is for.
            now: Unix seconds.
        """
        issued_at = int(now)
        expires_at = issued_at + self.lifetime
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": self._audience,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": expires_at,
            "cnf": {"x5t#S256": thumbprint},
        }
        signing_input = self._header + b"." + encode_base64url(msgspec.json.encode(claims))
        signature = encode_base64url(self.key.sign(signing_input))
        return Token((signing_input + b"." + signature).decode(), issued_at, expires_at)
