"""The deny list: nodes and certificates that are turned away although all their credentials are good."""

from __future__ import annotations

import logging
import re
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from openclaw_exporter.errors import CredentialError, UnreadableError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.files import Watched
from openclaw_exporter.wire.fields import UUID

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.wire.certificates import PeerCertificate

_logger = logging.getLogger(__name__)

MAX_BYTES: Final = 16 << 20
_REMEDY: Final = "see receiver.tls.deny_list"

_is_node_id = re.compile(UUID).fullmatch
_is_thumbprint = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch
# `openssl x509 -fingerprint -sha256` writes 32 pairs of hexadecimal digits with colons between them.
_is_fingerprint = re.compile(r"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}").fullmatch


class DenyList:
    """A file with one node_id or certificate thumbprint a line; `#` begins a comment.

    A file that is torn never takes the place of a good one: every line has to be an entry, the last one has
    to have its end, and a file without any bytes is one that is being written. A comment alone denies nobody.

    Args:
        path: The file; None denies nobody.
        logger: Who is told.

    Attributes:
        content: What is in force, as it was read; None: nothing.
    """

    def __init__(self, path: Path | None, logger: logging.Logger = _logger) -> None:
        self._path = path
        self._watched = Watched(*([] if path is None else [path]))
        self._episodes = Episodes(logger)
        self._entries: frozenset[str] = frozenset()
        self.content: bytes | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, kept: bytes | None = None) -> None:
        """Read the file for the first time.

        Args:
            kept: What to go on with where it cannot be used now.

        Raises:
            CredentialError: It cannot be read, or a line of it is no entry, and nothing was kept; the text
                names both.
        """
        if self._path is None:
            return
        self._watched.changed()
        try:
            self._use(_read(self._path), self._path)
        except CredentialError as error:
            if kept is None:
                raise
            self._stay(error)
            self._use(kept, self._path)

    def reload(self) -> bool:
        """Read the file again where it has changed; return whether others are denied now than before."""
        if self._path is None or not self._watched.changed():
            return False
        before = self._entries
        try:
            self._use(_read(self._path), self._path)
        except CredentialError as error:
            self._stay(error)
            return False
        self._episodes.end("deny", f"{self._path}: the deny list can be used again")
        return self._entries != before

    def holds(self, peer: PeerCertificate) -> bool:
        """Whether a certificate is denied, or the node that it names."""
        return peer.thumbprint in self._entries or (
            peer.identity.role == "node" and peer.identity.name in self._entries
        )

    def _use(self, content: bytes, path: Path) -> None:
        self._entries = _parse(content, path)
        self.content = content

    def _stay(self, error: CredentialError) -> None:
        self._watched.failed(error)
        self._episodes.begin("deny", str(error), f"{error}; the last good deny list stays in force")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from None


def _parse(content: bytes, path: Path) -> frozenset[str]:
    if len(content) > MAX_BYTES:
        raise CredentialError(f"{path}: over {MAX_BYTES} bytes; {_REMEDY}")
    if not content.endswith(b"\n"):
        message = "its last line has no end" if content else "it is empty"
        raise CredentialError(f"{path}: {message}, as of a file that is being written; {_REMEDY}")
    entries = set()
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            entry = _entry(text)
            if entry is None:
                message = f"line {number} is neither a node_id nor a certificate's SHA-256 thumbprint"
                raise CredentialError(f"{path}: {message}; {_REMEDY}")
            entries.add(entry)
    return frozenset(entries)


def _entry(text: str) -> str | None:
    """Return an entry in the form in which certificates are looked up; None where it is none."""
    if _is_node_id(text.lower()):
        return text.lower()
    if _is_thumbprint(text):
        return text
    if _is_fingerprint(text):
        return urlsafe_b64encode(bytes.fromhex(text.replace(":", ""))).rstrip(b"=").decode()
    return None
