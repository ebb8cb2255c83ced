"""Every alert fires by a real fault: processes stopped, frozen and killed, clocks moved, queues flooded.

The rules are those of `dashboards/rules`, rewritten mechanically: each window, offset and `for` is divided
by 120, and a window has 12 s at least. Thresholds stay what they are. Run with `-s`, it prints the table of
fault, alert and seconds that docs/dashboards.md has.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import redis

from support import queues
from support.gpu_plugin import GpusHere
from support.metric_paths import MetricPath
from support.nodes import PlayedNode
from support.proxy import DelayProxy
from support.rule_files import rule_groups, shortened
from support.skip import library
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.pki import Pki
    from support.redis import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FACTOR: Final = 120
LEAST: Final = 12
PLAYED: Final = 12
SKEW: Final = 45
ALERTS: Final = {
    rule["alert"]: rule["for"] for group in rule_groups() for rule in group["rules"] if "alert" in rule
}
"""Each alert, and how long it waits as shipped."""


class Faults(MetricPath):
    """Three agents, twelve more nodes, a receiver and a Prometheus, and ways to do them harm.

    The first agent reaches the receiver through a proxy and has GPUs; the second's clock goes wrong; the
    third has a certificate that nobody renews.
    """

    def __init__(self, directory: Path, pki: Pki, server: RedisServer) -> None:
        rules = shortened(FACTOR, least=LEAST)
        super().__init__("scrape", directory, pki, server.url, agents=3, rules=rules)
        self.redis = server
        self.proxy = DelayProxy(self.receiver.port)
        self.gpus = GpusHere(directory)
        self._pki = pki
        self._played = [PlayedNode(pki, self.receiver.url, interval=4) for _ in range(PLAYED)]
        self._silent = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._held = threading.Event()
        self._holding = threading.Thread()
        self._flooding = threading.Event()
        self._flood = threading.Thread(target=self._add_old_messages, daemon=True)
        first, second, third = self.agents
        first.command.environment["PYTHONPATH"] = str(self.gpus.path)
        config = Path(first.command.arguments[-1])
        through = config.read_text().replace(f":{self.receiver.port}", f":{self.proxy.port}")
        config.write_text(through + self.gpus.table)
        self.skewed = second.command
        self.expiring = third

    def start(self) -> None:
        super().start()
        self._beating.start()

    def stop(self) -> None:
        for event in (self._silent, self._flooding, self._held):
            event.set()
        for thread in (self._beating, self._flood, self._holding):
            if thread.is_alive():
                thread.join(120)
        self.resume(self.receiver.process)
        super().stop()
        self.proxy.close()
        for node in self._played:
            node.close()

    def firing(self) -> set[str]:
        """Return the alerts that fire now."""
        return {rule["name"] for rule in self.prometheus.rules() if rule.get("state") == "firing"}

    def told(self) -> list[str]:
        """Return what the alerts that fire now say."""
        alerts = [alert for rule in self.prometheus.rules() for alert in rule.get("alerts", ())]
        return [text for alert in alerts for text in alert["annotations"].values()]

    def resume(self, process: Any) -> None:
        """Let a process go on that was stopped."""
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)

    # The faults.

    def break_a_gpu(self) -> None:
        self.gpus.set_uncorrected_errors(2)

    def let_a_backlog_grow(self) -> None:
        self._flood.start()

    def flood_a_queue(self) -> None:
        queues.run(self.redis.url, "fill", 2000, 0, 0)

    def fall_silent(self) -> None:
        self._silent.set()

    def kill_the_receiver(self) -> None:
        self.receiver.kill()

    def move_a_clock(self) -> None:
        self.receiver.start()
        self.receiver.ready()
        self.skewed.stop()
        self.skewed.environment |= {
            "LD_PRELOAD": library("faketime/libfaketimeMT.so.1", "faketime"),
            "FAKETIME": f"+{SKEW}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.skewed.start()

    def delay_answers(self) -> None:
        self.proxy.delay = 4.0

    def hold_the_receiver(self) -> None:
        process = self.receiver.process
        assert process is not None

        def hold() -> None:
            while not self._held.is_set():
                process.send_signal(signal.SIGSTOP)
                time.sleep(2)
                self.resume(process)
                self._held.wait(2)

        self._holding = threading.Thread(target=hold, daemon=True)
        self._holding.start()

    def stall_redis(self) -> None:
        self._held.set()
        self.redis.freeze()

    def renew_no_certificate(self) -> None:
        self._pki.node(self.expiring.node_id, lifetime=dt.timedelta(minutes=1))

    def _beat(self) -> None:
        while not self._silent.is_set():
            for node in self._played:
                _, request = node.next_request(tags=("region:elsewhere", "env:test", "swarm:blue"))
                with contextlib.suppress(httpx.TransportError):
                    node.client.post(node.url, **request)
            self._silent.wait(1)

    def _add_old_messages(self) -> None:
        client = redis.Redis.from_url(self.redis.url)
        old = int(time.time() * 1000) - 1_200_000
        with contextlib.suppress(redis.RedisError), contextlib.closing(client):
            client.delete(queues.STREAM)
            client.xadd(queues.STREAM, {"task": "old"}, id=f"{old}-0")
            client.xgroup_create(queues.STREAM, queues.GROUP, id="0")
            while not self._flooding.wait(0.2):
                client.xadd(queues.STREAM, {"task": "new"})


@pytest.fixture
def faults(tmp_path: Path, pki: Pki, redis_server: RedisServer) -> Iterator[Faults]:
    queues.run(redis_server.url, "fill", 1, 1, 1)
    made = Faults(tmp_path, pki, redis_server)
    try:
        made.start()
        yield made
    finally:
        made.stop()


BURN: Final = ["RegistryAbsent", "PublishStalled", "PublishBudgetBurnFast", "PublishBudgetBurnSlow"]
STEPS: Final[list[tuple[str, Callable[[Faults], None], list[str]]]] = [
    ("a GPU counts one more uncorrected memory error", Faults.break_a_gpu, ["GpuUnhealthy"]),
    (
        "a queue, its oldest message 20 minutes old, gets more than it gives",
        Faults.let_a_backlog_grow,
        ["QueueBacklogGrowing"],
    ),
    ("2 000 messages are put into a queue at once", Faults.flood_a_queue, ["CapacityShort"]),
    (
        "12 of 15 nodes fall silent at once",
        Faults.fall_silent,
        ["HeartbeatsLate", "ExpiryHeld", "NodesExpired", "MassExpiry"],
    ),
    ("the receiver is killed (SIGKILL)", Faults.kill_the_receiver, BURN),
    ("a node's clock is 45 s ahead (libfaketime)", Faults.move_a_clock, ["ClockSkewed"]),
    ("the network holds answers back for 4 s", Faults.delay_answers, ["PublishLatencyHigh"]),
    (
        "the receiver stands still for 2 s of every 4 (SIGSTOP, SIGCONT)",
        Faults.hold_the_receiver,
        ["ReceiverOverloaded"],
    ),
    ("the queues' Redis hangs (SIGSTOP)", Faults.stall_redis, ["CollectorFailing"]),
    (
        "a node gets a certificate that ends in a minute, and no other",
        Faults.renew_no_certificate,
        ["CredentialExpiring"],
    ),
]


def test_every_alert_fires_by_a_real_fault(faults: Faults) -> None:
    assert {name for _, _, names in STEPS for name in names} == ALERTS.keys()
    wait_until(lambda: not faults.firing(), timeout=180, what="a fleet without an alert")
    rows = []
    for words, cause, names in STEPS:
        wait_until(
            lambda names=names: not faults.firing() & set(names),  # type: ignore[misc]
            timeout=180,
            what=f"silence of {', '.join(names)} before {words}",
        )
        began = time.monotonic()
        cause(faults)
        took: dict[str, float] = {}

        def all_fire(names: list[str] = names, began: float = began, took: dict[str, float] = took) -> bool:
            for name in faults.firing() & set(names):
                took.setdefault(name, time.monotonic() - began)
            return len(took) == len(names)

        wait_until(all_fire, timeout=180, what=f"{', '.join(names)} after {words}")
        told = faults.told()
        assert not [text for text in told if "<error" in text or "%!" in text or "{{" in text]
        rows += [f"| {words} | {name} | {took[name]:.0f} | {ALERTS[name]} |" for name in names]
    print("\n| fault | alert | fires after s, rules shortened | `for` as shipped |\n|---|---|---|---|")
    print("\n".join(rows))
