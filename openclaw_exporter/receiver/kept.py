"""What was last read of certificates, deny list and key sets, and found good."""

from __future__ import annotations

import msgspec


class TlsFiles(msgspec.Struct, frozen=True, array_like=True):
    """The content of the files that TLS needs; they belong together.

    Attributes:
        ca: The client authorities, PEM.
        certificate: The receiver's certificate with those between it and its authority, PEM.
        key: The certificate's private key, PEM.
    """

    ca: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Return nothing of them: no log may hold a key."""
        return "TlsFiles(…)"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What to go on with where a source cannot be used now.

    Attributes:
        tls: The files of `receiver.tls`.
        denied: The content of the deny list.
        keys: The key sets, by their location.
        patience: What is left for those that were never read, seconds; None: nobody has waited yet.
    """

    tls: TlsFiles | None = None
    denied: bytes | None = None
    keys: dict[str, bytes] = {}
    patience: float | None = None


NOTHING = Kept()
"""Of a process that reads everything for the first time."""
