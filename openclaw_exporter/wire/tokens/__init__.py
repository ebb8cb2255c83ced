"""JSON Web Tokens as the contract profiles them (RFC 7519, RFC 8725, RFC 8705): keys, minting, verification.

PyJWT verifies; everything around the signature is checked here, more strictly than its defaults. A node,
which only signs, does so with cryptography alone.
"""

from openclaw_exporter.wire.tokens.compact import MAX_TOKEN_BYTES
from openclaw_exporter.wire.tokens.keys import (
    ALGORITHMS,
    Algorithm,
    KeySet,
    SigningKey,
    VerificationKey,
    public_jwks,
)
from openclaw_exporter.wire.tokens.mint import Minter, Token
from openclaw_exporter.wire.tokens.verify import Issuer, Profile, VerifiedToken, Verifier

__all__ = [
    "ALGORITHMS",
    "MAX_TOKEN_BYTES",
    "Algorithm",
    "Issuer",
    "KeySet",
    "Minter",
    "Profile",
    "SigningKey",
    "Token",
    "VerificationKey",
    "VerifiedToken",
    "Verifier",
    "public_jwks",
]
