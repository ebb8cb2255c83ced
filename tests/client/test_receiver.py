"""The publisher and the real receiver: what one sends, the other keeps."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from client.virtual import SkippingClock

from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.settings import (
    AdminSettings,
    IssuerSettings,
    ReceiverSettings,
    StoreSettings,
    TlsSettings,
    TokenSettings,
)
from support.nodes import mutual_tls_client
from support.pki import Pki
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openclaw_exporter.client import ClientSettings, Publisher

    Make = Callable[..., Publisher]


@pytest.fixture
def receiver_settings(pki: Pki, tmp_path: Path) -> ReceiverSettings:
    files = pki.server()
    return ReceiverSettings(
        port=free_port(),
        tls=TlsSettings(
            ca=pki.ca, certificate=files.certificate, key=files.key, trust_domain=pki.trust_domain
        ),
        tokens=TokenSettings(
            jwks=str(pki.jwks),
            algorithms=("ES256",),
            issuers=(IssuerSettings(issuer=pki.issuer, audience=pki.audience),),
        ),
        store=StoreSettings(url=f"sqlite:///{tmp_path / 'registry.sqlite'}"),
        admin=AdminSettings(enabled=False),
    )


def view(pki: Pki, receiver: Receiver, path: str) -> dict[str, Any]:
    with mutual_tls_client(pki.ca, pki.reader()) as client:
        answer = client.get(f"{receiver.addresses.api_url}/openclaw/nodes{path}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def test_a_node_is_up_and_then_draining(
    pki: Pki, receiver_settings: ReceiverSettings, publish: Make, node_id: str
) -> None:
    with Receiver(receiver_settings) as receiver:
        publisher = publish(endpoint=receiver.addresses.api_url)
        publisher.tick()
        assert publisher.stats.success == 1, publisher.last_result
        assert publisher.interval == 60
        seen = view(pki, receiver, f"/{node_id}")
        assert seen["state"] == "up"
        assert seen["heartbeat"]["capacity"] == {"workers": 24, "available_slots": 5}
        publisher.stop()
        assert publisher.stats.success == 2
        assert view(pki, receiver, f"/{node_id}")["state"] == "draining"


def test_what_waited_becomes_history(
    pki: Pki, receiver_settings: ReceiverSettings, publish: Make, node_id: str
) -> None:
    clock = SkippingClock()
    publisher = publish(endpoint=f"https://localhost:{receiver_settings.port}", clock=clock)
    for _ in range(4):
        publisher.tick()
        clock.skipped += 60
    waiting = publisher.stats.buffered
    assert waiting >= 3
    with Receiver(dataclasses.replace(receiver_settings)) as receiver:
        while publisher.stats.buffered:
            due = publisher.tick()
            clock.skipped += max(0.0, due - clock.monotonic())
        assert publisher.stats.dropped == 0
        assert publisher.stats.replayed == waiting
        assert view(pki, receiver, f"/{node_id}")["state"] == "up"


def test_every_request_is_signed_when_it_is_sent(
    pki: Pki, receiver_settings: ReceiverSettings, publish: Make, settings: ClientSettings, node_id: str
) -> None:
    tokens = dataclasses.replace(receiver_settings.tokens, signatures="require")
    signing = dataclasses.replace(settings.token, sign_requests=True)
    clock = SkippingClock()
    publisher = publish(
        endpoint=f"https://localhost:{receiver_settings.port}", clock=clock, token=signing, interval=120
    )
    # Older than a signature may be: each replay has one of its own, by the receiver's clock.
    for _ in range(5):
        publisher.tick()
        clock.skipped += 120
    waiting = publisher.stats.buffered
    assert waiting >= 3
    with Receiver(dataclasses.replace(receiver_settings, tokens=tokens)) as receiver:
        while publisher.stats.buffered:
            due = publisher.tick()
            clock.skipped += max(0.0, due - clock.monotonic())
        assert (publisher.stats.dropped, publisher.stats.replayed) == (0, waiting)
        assert view(pki, receiver, f"/{node_id}")["state"] == "up"
        publisher.stop()
        assert view(pki, receiver, f"/{node_id}")["state"] == "draining"
        unsigned = publish(endpoint=receiver.addresses.api_url)
        unsigned.tick()
        assert (unsigned.stats.success, unsigned.last_result and unsigned.last_result.status) == (0, 401)


def test_a_lost_state_directory_goes_over_the_epoch_that_was_heard(
    pki: Pki, receiver_settings: ReceiverSettings, publish: Make, node_id: str, tmp_path: Path
) -> None:
    with Receiver(receiver_settings) as receiver:
        ahead = SkippingClock()
        ahead.skipped = 20
        first = publish(endpoint=receiver.addresses.api_url, clock=ahead)
        first.tick()
        first.stop(draining=False)
        second = publish(endpoint=receiver.addresses.api_url, state_dir=tmp_path / "new")
        second.tick()
        assert second.stats.success == 1
        assert second.stats.failure == 1
        assert second.stats.dropped == 0
        assert view(pki, receiver, f"/{node_id}")["state"] == "up"


def test_a_certificate_that_the_receiver_refuses_is_named(
    pki: Pki,
    receiver_settings: ReceiverSettings,
    publish: Make,
    node_id: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Receiver(receiver_settings) as receiver:
        expired = pki.node(node_id, lifetime=dt.timedelta(seconds=-60))
        publisher = publish(endpoint=receiver.addresses.api_url)
        publisher.tick()
        assert publisher.stats.buffered == 1
        assert "this node's own certificate has expired" in caplog.text
        publisher.stop(draining=False)
        foreign = Pki(tmp_path).node(node_id)
        expired.certificate.write_bytes(foreign.certificate.read_bytes())
        expired.key.write_bytes(foreign.key.read_bytes())
        publisher = publish(endpoint=receiver.addresses.api_url)
        publisher.tick()
        assert publisher.stats.buffered == 2
        assert "a receiver that refuses the certificate" in caplog.text
