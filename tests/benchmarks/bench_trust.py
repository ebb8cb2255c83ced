"""What it costs to know who speaks: CPU microseconds a heartbeat, from its headers and body to the arrival.

    python tests/benchmarks/bench_trust.py

The same intake in the same run: a node on a connection of its own, and nodes that a proxy forwards (RFC
9440), known, with a new token, or seen for the first time, under an authority of the receiver's or under one
below that; with and without a payload signature. Medians of five rounds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from cryptography.hazmat.primitives.serialization import Encoding
from interpreter import announce
from receiver.issuing import issue
from receiver.scene import receiver_settings

from openclaw_exporter.cli.authority import node_uri
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.connection import Connection
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.heads import Head
from openclaw_exporter.receiver.intake import Intake
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.trust import Trust
from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.client_cert import client_cert
from openclaw_exporter.wire.signatures import sign
from openclaw_exporter.wire.timestamps import format_ms
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.pki import TRUST_DOMAIN, Pki
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES = 500
ROUNDS = 5


class Request(NamedTuple):
    """One node's heartbeat, over a connection of its own or a proxy's."""

    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: Connection


class Bench:
    """One receiver's intake, and the requests of some hundred nodes."""

    def __init__(self, directory: Path, *, signatures: str) -> None:
        pki = Pki(directory)
        self._settings = receiver_settings(pki, directory, proxy=TRUSTED, tokens={"signatures": signatures})
        root, root_key = issue("root", signer=None, ca=True)
        self._middle = issue("middle", signer=(root.subject, root_key), ca=True)
        self._ca = pki.ca.read_bytes() + root.public_bytes(Encoding.PEM)
        self.trust = Trust(self._settings.tls, self._settings.proxy, DenyList(None))
        self.forget()
        clock = SystemClock()
        keys = KeyRing(self._settings.tokens, clock)
        asyncio.run(keys.open())
        shedding = Shedding(clock, max_lag=1.0, readmissions=1.0)
        self._intake = Intake(self._settings, keys, RateLimit(1e9, 10**9), clock, shedding)
        self._key = SigningKey.load(pki.token_key.read_bytes(), kid=pki.key_id)
        self._minter = Minter(self._key, issuer=pki.issuer, audience=pki.audience)
        proxy = self._connection(_der(pki.proxy().certificate))
        self.direct: list[Request] = []
        self.forwarded: list[Request] = []
        self.renewed: list[Request] = []
        for _ in range(NODES):
            node_id = str(uuid4())
            der = _der(pki.node(node_id).certificate)
            headers, body = self._heartbeat(node_id, der, signed=signatures == "require")
            self.direct.append(Request(headers, body, self._connection(der)))
            shown = [*headers, (b"client-cert", client_cert(der).encode())]
            self.forwarded.append(Request(shown, body, proxy))
            token = self._token(node_id, der, age=1)
            fields = [(name, token if name == b"authorization" else value) for name, value in shown]
            self.renewed.append(Request(fields, body, proxy))
        self.below = [self._below(proxy, signed=signatures == "require") for _ in range(NODES)]

    def forget(self) -> None:
        """Let every forwarded certificate be looked at once more, as after a change of the CA."""
        self.trust.use_authorities(self._ca)

    def admit(self, request: Request) -> None:
        """Take one heartbeat in."""
        self._intake.admit(request.connection, Head(request.headers), request.body)

    def _below(self, proxy: Connection, *, signed: bool) -> Request:
        """Return the request of a node whose certificate an intermediate authority has signed."""
        middle, key = self._middle
        node_id = str(uuid4())
        uri = node_uri(TRUST_DOMAIN, node_id)
        leaf, _ = issue("leaf", signer=(middle.subject, key), ca=False, uri=uri)
        der = leaf.public_bytes(Encoding.DER)
        headers, body = self._heartbeat(node_id, der, signed=signed)
        chain = client_cert(middle.public_bytes(Encoding.DER)).encode()
        headers += [(b"client-cert", client_cert(der).encode()), (b"client-cert-chain", chain)]
        return Request(headers, body, proxy)

    def _connection(self, der: bytes) -> Connection:
        tls = SimpleNamespace(getpeercert=lambda **_: der, version=lambda: "TLSv1.3")
        info = {"ssl_object": tls, "peername": ("127.0.0.1", 1)}
        transport: Any = SimpleNamespace(get_extra_info=info.get)
        return Connection(transport, self.trust)

    def _heartbeat(
        self, node_id: str, der: bytes, *, signed: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        now = time.time()
        body = json.dumps(
            {
                "node_id": node_id,
                "hostname": "chimera-01.prod",
                "version": "1.2.0",
                "capacity": {"workers": 24, "available_slots": 5},
                "queue_depth": {"planner": 3, "worker": 120},
                "last_heartbeat": format_ms(int(now * 1000)),
                "tags": ["region:us-east-1", "gpu:true"],
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        fields = {
            "host": "receiver:8443",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "authorization": self._token(node_id, der).decode(),
            "openclaw-interval": "60",
            "openclaw-sequence": "1770000000000.7",
        }
        if signed:
            made = sign(
                fields,
                method="POST",
                path="/openclaw/availability",
                body=body,
                key=self._key,
                created=int(now),
            )
            fields |= {name.lower(): value for name, value in made.items()}
        return [(name.encode(), value.encode()) for name, value in fields.items()], body

    def _token(self, node_id: str, der: bytes, *, age: float = 0.0) -> bytes:
        """Return the value of `Authorization`."""
        token = self._minter.mint(node_id, thumbprint=thumbprint(der), now=time.time() - age)
        return f"Bearer {token.text}".encode()


def _der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def measure(admit: Callable[[Request], None], requests: list[Request], before: Callable[[], None]) -> float:
    """Return microseconds of CPU for one request."""
    rounds = []
    for _ in range(ROUNDS):
        before()
        started = time.process_time()
        for request in requests:
            admit(request)
        rounds.append(1e6 * (time.process_time() - started) / len(requests))
    return statistics.median(rounds)


def rows(directory: Path) -> Iterator[tuple[str, float]]:
    """Yield each figure."""
    for policy in ("off", "require"):
        place = directory / policy
        place.mkdir()
        bench = Bench(place, signatures=policy)
        signed = "" if policy == "off" else ", signed"
        for requests in (bench.direct, bench.forwarded):
            for request in requests:
                bench.admit(request)
        yield f"own connection, token known{signed}", measure(bench.admit, bench.direct, lambda: None)
        yield (
            f"forwarded, certificate and token known{signed}",
            measure(bench.admit, bench.forwarded, lambda: None),
        )
        if policy == "off":
            turns = [request for pair in zip(bench.renewed, bench.forwarded, strict=True) for request in pair]
            yield "forwarded, certificate known, token new", measure(bench.admit, turns, lambda: None)
            yield "forwarded for the first time", measure(bench.admit, bench.forwarded, bench.forget)
            for request in bench.below:
                bench.admit(request)
            yield (
                "the same, below an intermediate authority",
                measure(bench.admit, bench.below, bench.forget),
            )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        first = 0.0
        for name, microseconds in rows(Path(directory)):
            first = first or microseconds
            print(f"{name:48} {microseconds:8.1f} µs  {microseconds / first:6.2f} x the first")


if __name__ == "__main__":
    announce()
    main()
