"""The bearer token of a publish call: minted here, or read from a file that something else rotates."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from openclaw_exporter.client.credentials import Validity
from openclaw_exporter.client.files import WatchedFiles, unreadable
from openclaw_exporter.errors import CredentialError, TokenError
from openclaw_exporter.wire.signatures import sign
from openclaw_exporter.wire.tokens import MAX_KEY_ID, Minter, SigningKey, is_key_id
from openclaw_exporter.wire.tokens.compact import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from openclaw_exporter.client.clock import Clock
    from openclaw_exporter.client.settings import ClientSettings, TokenSettings
    from openclaw_exporter.logs import Episodes
    from openclaw_exporter.wire.tokens import Token

_RENEW_AT: Final = 0.8
_KEY: Final = "openclaw.token.key"
_FILE: Final = "openclaw.token.file"
Loaded = TypeVar("Loaded")


class Bearer(Protocol):
    """Where the token comes from.

    Attributes:
        validity: That of the token last given out; None before.
    """

    validity: Validity | None

    def token(self, thumbprint: str) -> str:
        """Return a token for a connection with this certificate; empty where none is sent."""
        ...

    def sign(self, fields: Mapping[str, str], *, path: str, body: bytes) -> Mapping[str, str]:
        """Return the fields that sign a request with the token's key; none where requests are not signed."""
        ...

    def renew(self, offset: float) -> None:
        """Give out a new token next time: the receiver refused the last one.

        Args:
            offset: Seconds to add to this machine's clock to be at the receiver's.
        """
        ...


def open_bearer(settings: ClientSettings, node_id: str, clock: Clock, episodes: Episodes) -> Bearer:
    """Return the token source that the settings ask for.

    Raises:
        CredentialError: Its file cannot be used.
        ConfigError: Issuer or audience of minted tokens are missing.
    """
    if settings.insecure_dev:
        return NoBearer()
    if settings.token.profile == "external":
        return ExternalBearer(_needed(settings.token.file, _FILE), episodes)
    return MintedBearer(settings.token, node_id, clock, episodes)


class NoBearer:
    """No token at all."""

    def __init__(self) -> None:
        self.validity: Validity | None = None

    def token(self, thumbprint: str) -> str:  # noqa: ARG002 - there is no certificate either
        """Return nothing."""
        return ""

    def sign(self, fields: Mapping[str, str], *, path: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002 - there is no key
        """Return nothing."""
        return {}

    def renew(self, offset: float) -> None:
        """There is nothing to renew."""


class MintedBearer:
    """Tokens that are signed here, each for the certificate of the connection it is used on."""

    def __init__(self, settings: TokenSettings, node_id: str, clock: Clock, episodes: Episodes) -> None:
        self._settings = settings
        self._node_id = node_id
        self._clock = clock
        self._path = _needed(settings.key, _KEY)
        self._reload = _Reload(self._path, _KEY, episodes)
        self._minter = self._load(*self._reload.first())
        self._reload.accept()
        self._token: Token | None = None
        self._thumbprint = ""
        self._renew_at = 0.0
        self._offset = 0.0
        self.validity: Validity | None = None

    def token(self, thumbprint: str) -> str:
        """Return the token in use, or a new one where it is old or bound to another certificate."""
        fresh = self._reload.again(self._load)
        if fresh is not None:
            self._minter = fresh
            self._token = None
        # Its age is measured on the monotonic clock: a step of the wall clock ages no token.
        now = self._clock.monotonic()
        if self._token is None or self._thumbprint != thumbprint or now >= self._renew_at:
            wall = self._clock.wall() + self._offset
            self._token = self._minter.mint(self._node_id, thumbprint=thumbprint, now=wall)
            self._thumbprint = thumbprint
            self._renew_at = now + _RENEW_AT * self._minter.lifetime
            self.validity = Validity(self._token.issued_at, self._token.expires_at)
        return self._token.text

    def sign(self, fields: Mapping[str, str], *, path: str, body: bytes) -> Mapping[str, str]:
        """Return the fields that sign a publish request now, by the receiver's clock."""
        if not self._settings.sign_requests:
            return {}
        created = int(self._clock.wall() + self._offset)
        return sign(fields, method="POST", path=path, body=body, key=self._minter.key, created=created)

    def renew(self, offset: float) -> None:
        """Mint anew next time, by the receiver's clock."""
        self._offset = offset
        self._token = None

    def _load(self, pem: bytes) -> Minter:
        settings = self._settings
        if not is_key_id(settings.kid):
            message = (
                f"must be 1 to {MAX_KEY_ID} printable ASCII characters; give the id in the receiver's key set"
            )
            raise CredentialError(message, key="openclaw.token.kid")
        try:
            key = SigningKey.load(pem, kid=settings.kid, algorithm=settings.algorithm, source=str(self._path))
        except CredentialError as error:
            raise CredentialError(error.message, key=_KEY) from None
        return Minter(key, issuer=settings.issuer, audience=settings.audience, lifetime=settings.lifetime)


class ExternalBearer:
    """A token that something else keeps fresh in a file."""

    def __init__(self, path: Path, episodes: Episodes) -> None:
        self._path = path
        self._reload = _Reload(path, _FILE, episodes)
        self.validity: Validity | None = None
        self._text = self._load(*self._reload.first())
        self._reload.accept()

    def token(self, thumbprint: str) -> str:  # noqa: ARG002 - whoever issued it decided what it is bound to
        """Return the file's token."""
        fresh = self._reload.again(self._load)
        if fresh is not None:
            self._text = fresh
        return self._text

    def sign(self, fields: Mapping[str, str], *, path: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002 - its key is its issuer's
        """Return nothing."""
        return {}

    def renew(self, offset: float) -> None:  # noqa: ARG002 - its times are its issuer's
        """Read the file again next time, changed or not."""
        self._reload.force()

    def _load(self, content: bytes) -> str:
        try:
            text = content.decode("ascii").strip()
            claims = parse(text).claims
        except (UnicodeDecodeError, TokenError):
            message = (
                f"{self._path} holds no JWT in compact form; name the file in which the platform keeps one"
            )
            raise CredentialError(message, key=_FILE) from None
        begins, ends = claims.get("nbf", claims.get("iat")), claims.get("exp")
        if isinstance(ends, (int, float)):
            self.validity = Validity(begins if isinstance(begins, (int, float)) else 0.0, ends)
        return text


class _Reload:
    """One file that is loaded again when it changes; what cannot be used never replaces what can."""

    def __init__(self, path: Path, key: str, episodes: Episodes) -> None:
        self._path = path
        self._key = key
        self._files = WatchedFiles(path)
        self._episodes = episodes
        self._forced = False
        self._digest = b""

    def first(self) -> tuple[bytes, ...]:
        """Return the file's content.

        Raises:
            CredentialError: It cannot be read.
        """
        contents = self._read()
        self._digest = _digest(contents[0])
        return contents

    def accept(self) -> None:
        """Note that what was read is good."""
        self._files.accept()

    def force(self) -> None:
        """Load the file next time, changed or not."""
        self._forced = True

    def again(self, load: Callable[[bytes], Loaded]) -> Loaded | None:
        """Return what the file holds now, if that is new and can be used."""
        if not self._forced and not self._files.changed():
            return None
        try:
            (content,) = self._read()
            digest = _digest(content)
            loaded = load(content) if digest != self._digest or self._forced else None
        except CredentialError as error:
            message = f"{error}; the token credentials in use stay in force"
            self._episodes.begin("token", str(error), message)
            return None
        self._forced = False
        self._digest = digest
        self._files.accept()
        self._episodes.end("token", "the token credentials can be used again")
        return loaded

    def _read(self) -> tuple[bytes, ...]:
        try:
            return self._files.read()
        except OSError as error:
            raise CredentialError(unreadable(self._path, error), key=self._key) from None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _needed(path: Path | None, key: str) -> Path:
    if path is None:
        raise CredentialError(f"{key} is needed")
    return path
