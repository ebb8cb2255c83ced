"""Which of the credential files that a configuration names cannot be used on this machine."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_exporter.client.bearer import ExternalBearer, MintedBearer
from openclaw_exporter.client.clock import SystemClock
from openclaw_exporter.client.credentials import TlsFiles
from openclaw_exporter.client.files import unreadable
from openclaw_exporter.client.identity import check_certified
from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.errors import CredentialError
from openclaw_exporter.logs import Episodes
from openclaw_exporter.receiver.credentials import Credentials
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.safety import is_url
from openclaw_exporter.receiver.settings import ReceiverSettings
from openclaw_exporter.receiver.store.redis.address import is_redis
from openclaw_exporter.receiver.store.redis.files import check
from openclaw_exporter.receiver.store.redis.target import target_of
from openclaw_exporter.wire.tokens import KeySet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from openclaw_exporter.client.settings import TlsSettings
    from openclaw_exporter.config import Config
    from openclaw_exporter.receiver.settings import TlsSettings as ReceiverTlsSettings
    from openclaw_exporter.receiver.settings import TokenSettings


def unusable(config: Config) -> Iterator[str]:
    """Yield why an agent or a receiver with this configuration would not start here, a line a cause.

    Args:
        config: The settings of each program; a table that is not there, or wrong, is passed over.
    """
    client = config.find(ClientSettings)
    if client is not None and client.enabled and client.tls.certificate is not None:
        missing = tuple(_unreadable(config, client.tls, "openclaw.tls"))
        yield from missing or _causes(config, lambda: _open_tls(client))
        yield from _causes(config, lambda: _open_token(client))
    receiver = config.find(ReceiverSettings)
    if receiver is not None and receiver.tls.certificate is not None:
        tokens = receiver.tokens
        deny = DenyList(receiver.tls.deny_list)
        missing = tuple(_unreadable(config, receiver.tls, "receiver.tls"))
        yield from missing or _causes(config, lambda: Credentials(receiver.tls))
        yield from _causes(config, deny.open)
        for source, key in sorted(_key_sets(tokens).items()):
            if not is_url(source):
                yield from _causes(config, partial(_open_keys, Path(source), key))
    if receiver is not None and is_redis(receiver.store.url):
        yield from _causes(config, lambda: check(target_of(receiver.store)))


def _unreadable(config: Config, tls: TlsSettings | ReceiverTlsSettings, table: str) -> Iterator[str]:
    """Yield every file that cannot be read: whoever reads them for use stops at the first."""
    # One file for two is named once, by the first.
    named = {tls.key: "key", tls.certificate: "certificate", tls.ca: "ca"}
    for file, name in reversed(named.items()):
        if file is None:
            continue
        key = f"{table}.{name}"
        try:
            file.open("rb").close()
        except OSError as error:
            yield f"{config.source_of(key)}: {key}: {unreadable(file, error)}"


def _causes(config: Config, attempt: Callable[[], object]) -> Iterator[str]:
    try:
        attempt()
    except CredentialError as error:
        yield str(error.located(config.source_of))


def _open_tls(settings: ClientSettings) -> None:
    files = TlsFiles(settings.tls, Episodes(logging.getLogger(__name__)))
    check_certified(settings, files.current.node_id)
    ends = files.current.certificate.not_after
    if ends < time.time():
        message = f"{settings.tls.certificate} has expired ({datetime.fromtimestamp(ends, UTC)}); renew it"
        raise CredentialError(message, key="openclaw.tls.certificate")


def _open_token(settings: ClientSettings) -> None:
    episodes = Episodes(logging.getLogger(__name__))
    token = settings.token
    if token.profile == "minted":
        MintedBearer(token, "", SystemClock(), episodes)
    elif token.file is not None:
        ExternalBearer(token.file, episodes)


def _key_sets(tokens: TokenSettings) -> dict[str, str]:
    """Return where the issuers' key sets are, each with the key that says so."""
    return {
        issuer.jwks or tokens.jwks: f"receiver.tokens.{f'issuers[{index}].' if issuer.jwks else ''}jwks"
        for index, issuer in enumerate(tokens.issuers)
    }


def _open_keys(file: Path, key: str) -> None:
    try:
        KeySet.from_jwks(file.read_bytes(), source=str(file))
    except OSError as error:
        raise CredentialError(unreadable(file, error), key=key) from None
    except CredentialError as error:
        raise CredentialError(error.message, key=key) from None
