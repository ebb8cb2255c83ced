"""sd_notify, against real datagram sockets."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest

from openclaw_exporter.agent.notify import Notifier

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_states_arrive_as_datagrams(tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - parametrised
    name = f"openclaw-test-{secrets.token_hex(8)}"
    address = f"@{name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else address)
        systemd.settimeout(5)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
        notifier.ready()
        notifier.reloading()
        notifier.watchdog()
        notifier.stopping()
        states = [systemd.recv(4096).decode() for _ in range(4)]
    assert states[0] == "READY=1"
    assert states[2:] == ["WATCHDOG=1", "STOPPING=1"]
    reloading, _, moment = states[1].partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert int(moment) >= before


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_this_processs(environ: dict[str, str], period: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@nobody", **environ}).watchdog_period == period


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = Notifier()
    notifier.ready()
    notifier.watchdog()
    assert notifier.watchdog_period is None


def test_a_listener_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.watchdog()
    assert notifier.watchdog_period == 0.5
