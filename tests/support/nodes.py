"""Nodes that a test plays itself, over the wire and without the client: the other half of a model."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from openclaw_exporter.wire import certificates, heartbeat
from openclaw_exporter.wire.timestamps import format_ms
from openclaw_exporter.wire.tokens import Minter, SigningKey

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Files, Pki

_TOKEN_LIFE = 300.0


class PlayedNode:
    """One node with its certificate and token; it counts its own heartbeats."""

    def __init__(self, pki: Pki, url: str, *, interval: int = 30) -> None:
        self.node_id = str(uuid4())
        self.interval = interval
        self.url = f"{url}/openclaw/availability"
        files = self.files = pki.node(self.node_id)
        self.epoch = int(time.time() * 1000)
        self.number = 0
        self._last_ms = 0
        self.client = mutual_tls_client(pki.ca, files)
        key = SigningKey.load(pki.token_key.read_bytes(), kid=pki.key_id)
        self._minter = Minter(key, issuer=pki.issuer, audience=pki.audience)
        der = x509.load_pem_x509_certificate(files.certificate.read_bytes()).public_bytes(Encoding.DER)
        self._thumbprint = certificates.thumbprint(der)
        self._mint()

    def next_request(self, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Return the next heartbeat's time (its key) and the arguments of its POST."""
        self._last_ms = max(self._last_ms + 1, int(time.time() * 1000))
        if time.time() - self._minted_at > _TOKEN_LIFE:
            self._mint()
        fields: dict[str, Any] = {
            "node_id": self.node_id,
            "hostname": "played.test",
            "version": "1.0",
            "capacity": {"workers": 4, "available_slots": 2},
            "queue_depth": {"planner": 1},
            "last_heartbeat": format_ms(self._last_ms),
            "tags": ("region:test",),
        }
        body = heartbeat.encode(heartbeat.build(**fields | changes))
        headers = self.headers | {"OpenClaw-Sequence": f"{self.epoch}.{self.number}"}
        self.number += 1
        return self._last_ms, {"content": body, "headers": headers}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every POST."""
        return {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "OpenClaw-Interval": str(self.interval),
        }

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _mint(self) -> None:
        self._minted_at = time.time()
        self.token = self._minter.mint(self.node_id, thumbprint=self._thumbprint, now=self._minted_at).text


def mutual_tls_client(ca: Path, files: Files, **options: Any) -> httpx.Client:
    """Return a client that shows this certificate and trusts this CA alone."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(files.certificate, files.key)
    return httpx.Client(verify=context, trust_env=False, **{"timeout": 60} | options)
