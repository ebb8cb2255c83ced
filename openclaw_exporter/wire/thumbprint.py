"""The name that a token calls a certificate by."""

import hashlib
from base64 import urlsafe_b64encode


def thumbprint(der: bytes) -> str:
    """Return a certificate's `x5t#S256`: base64url, without padding, of its SHA-256 (RFC 7515, 4.1.8)."""
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
