"""Who this node is: what the configuration says, else its certificate, else its state directory."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from openclaw_exporter.client.credentials import TlsFiles
from openclaw_exporter.client.state import StateDirectory
from openclaw_exporter.errors import CredentialError, UserError
from openclaw_exporter.logs import Episodes

if TYPE_CHECKING:
    from openclaw_exporter.client.settings import ClientSettings

_LOG = logging.getLogger(__name__)


def settle_node_id(settings: ClientSettings, certified: str | None, state: StateDirectory) -> str:
    """Return the node's id, the same from configuration, certificate and state directory.

    Args:
        settings: The configuration.
        certified: The node that the certificate names, if it names one.
        state: The state directory; a new id is kept there.

    Raises:
        CredentialError: The certificate is another node's than the configuration says.
        StateError: The state directory is another node's, or a new id cannot be kept.
    """
    check_certified(settings, certified)
    configured = settings.node_id or None
    source = "openclaw.node_id" if configured is not None else f"the certificate {settings.tls.certificate}"
    return state.settle_node_id(configured or certified, source=source)


def check_certified(settings: ClientSettings, certified: str | None) -> None:
    """Check that configuration and certificate do not name two nodes.

    Raises:
        CredentialError: They do.
    """
    if settings.node_id and certified is not None and settings.node_id != certified:
        raise CredentialError(
            f"openclaw.node_id is {settings.node_id}, but {settings.tls.certificate} is the certificate of "
            f"node {certified}: remove openclaw.node_id, or use that node's certificate"
        )


def resolve_node_id(settings: ClientSettings) -> str:
    """Return the id that a publisher with these settings has, without making a publisher.

    Where publishing is switched off, credentials and state directory may be missing: the id is then one of
    this process only, and a log line says so.

    Raises:
        UserError: Publishing is on, and who this node is cannot be told.
    """
    try:
        certified = _certified(settings)
        # A publisher that is on opens the directory again and says what is wrong with it; one that is off and
        # has its id needs no directory.
        state = StateDirectory(settings.state_dir, quiet=settings.enabled or settings.node_id != "")
        try:
            return settle_node_id(settings, certified, state)
        finally:
            state.close()
    except UserError as error:
        if settings.enabled:
            raise
        if settings.node_id:
            return settings.node_id
        _LOG.warning("this node goes by a new id until it is restarted: %s", error)
        return str(uuid.uuid4())


def _certified(settings: ClientSettings) -> str | None:
    if settings.insecure_dev or (settings.tls.certificate is None and not settings.enabled):
        return None
    try:
        return TlsFiles(settings.tls, Episodes(_LOG)).current.node_id
    except CredentialError:
        if settings.enabled:
            raise
        return None
