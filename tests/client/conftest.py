"""A node of this test's own, and the receivers that it may meet."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from client.stub import StubReceiver
from client.virtual import VirtualClock, Wire, node_whose_phase

from openclaw_exporter.client import ClientSettings, Publisher, Report, TlsSettings, TokenSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.pki import Pki

REPORT = Report(
    version="1.2.0",
    capacity={"workers": 24, "available_slots": 5},
    queue_depth={"planner": 3, "worker": 120},
    tags=("region:us-east-1", "gpu:true"),
    uptime_seconds=86400,
)


@pytest.fixture
def node_id() -> str:
    """A node whose phase lies well within the interval: what takes seconds ends before its second beat."""
    return node_whose_phase(lambda fraction: 0.2 <= fraction <= 0.8)


@pytest.fixture
def settings(pki: Pki, node_id: str, tmp_path: Path) -> ClientSettings:
    """Settings of a node whose receiver is nowhere yet."""
    files = pki.node(node_id)
    return ClientSettings(
        endpoint="https://receiver.invalid:8443",
        hostname="chimera-01.test",
        state_dir=tmp_path / "state",
        tls=TlsSettings(ca=pki.ca, certificate=files.certificate, key=files.key),
        token=TokenSettings(key=pki.token_key, kid=pki.key_id, issuer=pki.issuer, audience=pki.audience),
    )


@pytest.fixture
def stub(pki: Pki) -> Iterator[StubReceiver]:
    """A real receiver that does what it is told."""
    with StubReceiver(pki) as receiver:
        yield receiver


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """A directory that syncs in no time, for long virtual times; the disk where there is no such place."""
    place = Path("/dev/shm")  # noqa: S108 - the point is the file system
    directory = Path(tempfile.mkdtemp(prefix="openclaw-", dir=place if place.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def wire(clock: VirtualClock) -> Wire:
    return Wire(clock)


@pytest.fixture
def publish(settings: ClientSettings) -> Iterator[Callable[..., Publisher]]:
    """Make publishers of the node, with settings changed as asked; all are stopped in the end."""
    made: list[Publisher] = []

    def make(*, source: Callable[[], Report] = lambda: REPORT, **options: Any) -> Publisher:
        known = {field.name for field in dataclasses.fields(ClientSettings)}
        changes = {name: options.pop(name) for name in list(options) if name in known}
        made.append(Publisher(dataclasses.replace(settings, **changes), source, rng=Random(7), **options))
        return made[-1]

    yield make
    for publisher in made:
        publisher.stop(draining=False)


@pytest.fixture
def virtual(publish: Callable[..., Publisher], clock: VirtualClock, wire: Wire) -> Callable[..., Publisher]:
    """Make publishers that live in virtual time."""

    def make(**options: Any) -> Publisher:
        return publish(clock=clock, transport=wire, **options)

    return make
