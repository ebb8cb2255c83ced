"""A real receiver on loopback, and the nodes and readers that talk to it over real mutual TLS."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.settings import (
    AdminSettings,
    IssuerSettings,
    LimitSettings,
    ReceiverSettings,
    StoreSettings,
    TlsSettings,
    TokenSettings,
)
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings
from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.timestamps import format_ms
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.command import samples
from support.nodes import mutual_tls_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Files, Pki

AVAILABILITY = "/openclaw/availability"
WORKERS = int(os.environ.get("RECEIVER_WORKERS", "1"))
"""The workers of each receiver, but where a test says how many: `RECEIVER_WORKERS=2` runs all with two."""


def receiver_settings(pki: Pki, directory: Path, **changes: Any) -> ReceiverSettings:
    """Return a safe configuration on free ports; `limits`, `tls`, `tokens` may be given as dictionaries."""
    # Files of its own: a receiver that runs elsewhere would notice that they change.
    files = pki.server(name=f"server-{uuid4()}")
    tls = {"ca": pki.ca, "certificate": files.certificate, "key": files.key, "trust_domain": pki.trust_domain}
    tokens = {
        "jwks": str(pki.jwks),
        "algorithms": ("ES256",),
        "issuers": (IssuerSettings(issuer=pki.issuer, audience=pki.audience),),
    }
    # A crowded machine may stop the loop for seconds; only a test of that is to meet it.
    limits = {"rate": 10_000.0, "burst": 100_000, "loop_lag": 4.0}
    tables: dict[str, Any] = {
        "tls": TlsSettings(**tls | changes.pop("tls", {})),
        "tokens": TokenSettings(**tokens | changes.pop("tokens", {})),
        "limits": LimitSettings(**limits | changes.pop("limits", {})),
        "store": StoreSettings(url=f"sqlite:///{directory / 'registry.sqlite'}"),
        "admin": AdminSettings(port=0),
    }
    return ReceiverSettings(port=0, **{"workers": WORKERS} | tables | changes)


class Running:
    """A started receiver with its metrics."""

    def __init__(self, pki: Pki, receiver: Receiver, telemetry: Telemetry) -> None:
        self.pki = pki
        self.receiver = receiver
        self.telemetry = telemetry
        self.url = receiver.addresses.api_url
        self.port = int(self.url.rpartition(":")[2])
        self._open: list[httpx.Client] = []

    @property
    def admin(self) -> httpx.Client:
        return self._keep(
            httpx.Client(base_url=self.receiver.addresses.admin_url or "", trust_env=False, timeout=60)
        )

    def node(self, **arguments: Any) -> Node:
        """Return a new node of the fleet."""
        return Node(self, **arguments)

    def reader(self) -> httpx.Client:
        """Return a client with a reader's certificate."""
        return self.client(self.pki.reader())

    def client(self, files: Files) -> httpx.Client:
        """Return a client with a certificate; it is closed with the receiver."""
        return self._keep(mutual_tls_client(self.pki.ca, files, base_url=self.url))

    def tls(self, files: Files) -> ssl.SSLSocket:
        """Return a raw connection."""
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        context.load_cert_chain(files.certificate, files.key)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def samples(self) -> dict[str, float]:
        """Return all metrics, without what every series has."""
        text = self.telemetry.exposition().decode()
        constant = ',service_instance_id="test"'
        return {_without_host(name.replace(constant, "")): value for name, value in samples(text).items()}

    def close(self) -> None:
        for client in self._open:
            client.close()

    def _keep(self, client: httpx.Client) -> httpx.Client:
        self._open.append(client)
        return client


def _without_host(sample: str) -> str:
    host = f'host_name="{socket.gethostname()}"'
    return sample.replace(f"{{{host}}}", "").replace(f"{host},", "").replace(f",{host}", "")


@contextmanager
def running(pki: Pki, settings: ReceiverSettings) -> Iterator[Running]:
    """Run a receiver for as long as the context lasts."""
    quiet = TelemetrySettings(prometheus=PrometheusSettings(enabled=False))
    telemetry = Telemetry.start(quiet, service="openclaw-receiver", node_id="test")
    try:
        with Receiver(settings, telemetry=telemetry) as receiver:
            scene = Running(pki, receiver, telemetry)
            try:
                yield scene
            finally:
                scene.close()
    finally:
        telemetry.shutdown()


def heartbeat(node_id: str, sent_ms: int, /, **changes: Any) -> dict[str, Any]:
    """Return a heartbeat's members."""
    members = {
        "node_id": node_id,
        "hostname": "chimera-01.test",
        "version": "1.2.0",
        "capacity": {"workers": 24, "available_slots": 5},
        "queue_depth": {"planner": 3},
        "last_heartbeat": format_ms(sent_ms),
        "tags": ["region:eu", "env:test"],
    }
    return members | changes


class Node:
    """A node that says whatever a test wants it to say."""

    def __init__(self, scene: Running, *, pki: Pki | None = None, **certificate: Any) -> None:
        self.node_id = str(uuid4())
        self.pki = pki or scene.pki
        self.files = self.pki.node(self.node_id, **certificate)
        self.client = scene.client(self.files)
        self.token = self.mint()
        self._sent_ms = int(time.time() * 1000)

    @property
    def thumbprint(self) -> str:
        return thumbprint(ssl.PEM_cert_to_DER_cert(self.files.certificate.read_text()))

    def mint(self, **changes: Any) -> str:
        """Return a token; `audience`, `issuer`, `subject`, `thumbprint`, `now`, `lifetime` may be others."""
        key = SigningKey.load(self.pki.token_key.read_bytes(), kid=changes.pop("kid", self.pki.key_id))
        terms = {"issuer": self.pki.issuer, "audience": self.pki.audience}
        terms |= {name: changes.pop(name) for name in ("issuer", "audience", "lifetime") if name in changes}
        claims = {"thumbprint": self.thumbprint, "now": time.time()} | changes
        return Minter(key, **terms).mint(claims.pop("subject", self.node_id), **claims).text

    def fields(self, **changes: Any) -> dict[str, Any]:
        """Return a heartbeat's members, with a new time."""
        self._sent_ms = max(self._sent_ms + 1, int(time.time() * 1000))
        return heartbeat(self.node_id, self._sent_ms, **changes)

    def beat(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Publish one heartbeat."""
        return self.post(json.dumps(self.fields(**changes)).encode(), headers)

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        """Publish any body."""
        return self.client.post(AVAILABILITY, content=body, headers=self.headers | (headers or {}))

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the slug of a problem document, having checked its form."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["title"]
    prefix, _, slug = document["type"].rpartition(":")
    assert prefix == "urn:openclaw:problem"
    return response.status_code, slug


def with_limits(settings: ReceiverSettings, **limits: Any) -> ReceiverSettings:
    """Return a configuration with other limits."""
    return dataclasses.replace(settings, limits=dataclasses.replace(settings.limits, **limits))
