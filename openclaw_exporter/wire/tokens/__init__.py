"""JSON Web Tokens as the contract profiles them (RFC 7519, RFC 8725, RFC 8705): keys, minting, verification.

cryptography signs and verifies, and PyJWT reads keys; everything around the signature is checked here. A node
that only signs does without PyJWT.
"""

from openclaw_exporter.wire.tokens.compact import MAX_TOKEN_BYTES
from openclaw_exporter.wire.tokens.keys import (
    ALGORITHMS,
    MAX_KEY_ID,
    Algorithm,
    KeySet,
    SigningKey,
    VerificationKey,
    is_key_id,
    public_jwks,
)
from openclaw_exporter.wire.tokens.mint import Minter, Token
from openclaw_exporter.wire.tokens.verify import Issuer, Profile, VerifiedToken, Verifier

__all__ = [
    "ALGORITHMS",
    "MAX_KEY_ID",
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
    "is_key_id",
    "public_jwks",
]
