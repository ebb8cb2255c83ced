"""Three receivers behind a proxy, on a Redis Cluster whose primaries are killed under load.

No node is lost, none expires but those that fell silent, and each of those is counted once. `SOAK_KILLS`
says how many primaries die in the long form, `SOAK_AWAY` for how many seconds the whole Redis is gone.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from support.fail_over import FailOver
from support.nodes import PlayedNode
from support.pressing import Pressing
from support.redis_cluster import SHARES, RedisCluster
from support.site import Site
from support.tls_proxies import HAProxy, Nginx
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openclaw_exporter.client import NodeEvent
    from support.pki import Pki
    from support.swarm import SwarmNode
    from support.tls_proxies import TlsProxy

KILLS = int(os.environ.get("SOAK_KILLS", "40"))
AWAY = float(os.environ.get("SOAK_AWAY", "20"))
FRONTS: dict[str, type[TlsProxy]] = {"haproxy": HAProxy, "nginx": Nginx}
INTERVAL = 10
"""Of the nodes here, so that those that die expire soon."""
LATENCY = 3
"""Seconds that an answer may take: a node knows when it was answered, the receiver when it heard."""
SHORTEST = 30
NODES = 40
RECEIVERS = 3
QUIET_EVERY = 4
AROUND = 10
"""Seconds before and behind an answer in which a kill may have to do with it."""
DUE = "late", "expired", "returned"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three primaries with a replica each, that write to disk what they are told."""
    cluster = RedisCluster(tmp_path, replicas=1, arguments=("--appendonly", "yes"))
    cluster.start()
    yield cluster
    cluster.stop()


def site_on(cluster: RedisCluster, pki: Pki, directory: Path, front: str) -> Site:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    store = f'url = "redis://{hosts}"\ntimeout = 1.0'
    return Site(
        directory,
        pki,
        FRONTS[front],
        store=store,
        receivers=RECEIVERS,
        nodes=NODES,
        interval=INTERVAL,
    )


class Deaths:
    """Nodes that fall silent on purpose, four at a time, until they have expired and returned."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site = site
        self._dice = dice
        self._some: list[SwarmNode] = []
        self.expected: Counter[str] = Counter()

    def begin(self) -> None:
        """Silence four nodes: far fewer than would be held back as a mass expiry."""
        self._some = self._dice.sample(self._site.swarm.nodes, 4)
        for node in self._some:
            node.fall_silent()
            self.expected[node.node_id] += 1

    def are_over(self) -> bool:
        """Let those speak again that have expired; return whether all have returned."""
        for node in self._some:
            if node.is_silent and self._has(node, "expired"):
                node.speak()
        return all(self._has(node, "returned") for node in self._some)

    def _has(self, node: SwarmNode, name: str) -> bool:
        return self._site.watch.count(name, [node.node_id]) >= self.expected[node.node_id]


@pytest.mark.parametrize(
    ("front", "kills"), [("nginx", 4), pytest.param("haproxy", KILLS, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(2400)
def test_primaries_die_under_load(
    cluster: RedisCluster, front: str, kills: int, pki: Pki, tmp_path: Path
) -> None:
    dice = random.Random(20261125)
    fail_over = FailOver(cluster)
    with site_on(cluster, pki, tmp_path, front) as site:
        pressing = [Pressing(PlayedNode(pki, site.proxy.url), pause=0.25) for _ in range(6)]
        for thread in pressing:
            thread.start()
        site.refreshed(0.0)
        started = time.monotonic()
        deaths = Deaths(site, dice)
        moments: list[float] = []
        deaths.begin()
        receivers_killed = 0
        for number in range(1, kills + 1):
            moment = fail_over.kill(dice.randrange(len(SHARES)))
            if number % QUIET_EVERY == 0:
                # Nothing else dies until everybody was heard again, so that one can say after how long.
                site.refreshed(moment)
                moments.append(moment)
            if deaths.are_over():
                # What a receiver has counted is read before it dies, and nothing may happen between.
                site.kill_receiver(dice.randrange(RECEIVERS))
                receivers_killed += 1
                deaths.begin()
        wait_until(deaths.are_over, timeout=240, what="the end of the last deaths")
        fail_over.settle()
        site.refreshed(time.monotonic())
        for thread in pressing:
            thread.end()
        took = time.monotonic() - started
        names = {node.node_id for node in site.swarm.nodes} | {one.node.node_id for one in pressing}
        what = f"{kills} primaries and {receivers_killed} of {RECEIVERS} receivers killed in {took:.0f} s"
        tell(site, f"{what} behind {front}", moments)
        check(site, names, deaths.expected)
        for thread in pressing:
            with site.registry(site.receivers[0]) as registry:
                stored = [
                    round(row.last_heartbeat.timestamp() * 1000)
                    for row in registry.history(thread.node.node_id)
                ]
            lost = thread.acknowledged.keys() - set(stored)
            assert not lost, story(site, fail_over, [thread.acknowledged[key] for key in lost])
            assert len(stored) == len(set(stored))
            assert thread.refusals == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_whole_redis_goes_away_and_comes_back(cluster: RedisCluster, pki: Pki, tmp_path: Path) -> None:
    with site_on(cluster, pki, tmp_path, "haproxy") as site:
        site.refreshed(0.0)
        cluster.stop()
        gone = time.monotonic()
        wait_until(
            lambda: any("503" in node.answers for node in site.swarm.nodes),
            what="a heartbeat's 503",
        )
        time.sleep(max(0.0, AWAY - (time.monotonic() - gone)))
        FailOver(cluster).start()
        back = time.monotonic()
        wait_until(lambda: any(node.next_after(back) for node in site.swarm.nodes), what="the first 2xx")
        first = time.monotonic() - back
        site.refreshed(back)
        tell(site, f"the whole Redis away for {back - gone:.0f} s: first 2xx {first:.1f} s after", [back])
        check(site, {node.node_id for node in site.swarm.nodes}, Counter())
        assert {answer for node in site.swarm.nodes for answer in node.answers} <= {"503", "502", "timeout"}


def story(site: Site, fail_over: FailOver, answered: list[float]) -> str:
    """Return what was killed around the answers to heartbeats that are missing, and what was stored where."""
    lines = []
    for at in sorted(answered):
        lines.append(f"{at:.3f}: a heartbeat that is missing was answered")
        lines += [f"{kill.at:.3f}: killed {kill}" for kill in fail_over.kills if abs(kill.at - at) < AROUND]
        for number, receiver in enumerate(site.receivers):
            # One that was killed may have left half a line.
            whole = [line for line in receiver.text().splitlines() if line[:1] + line[-1:] == "{}"]
            for record in map(json.loads, whole):
                then = datetime.fromisoformat(record["time"]).timestamp()
                if at - 1 < then <= at and "redis" in record["logger"]:
                    lines.append(f"{then:.3f}: receiver {number}: {record['message']}")
    return "\n".join(lines)


def tell(site: Site, what: str, moments: list[float]) -> None:
    """Print what was measured."""
    delays = sorted(
        delay
        for moment in moments
        for node in site.swarm.nodes
        if (delay := node.next_after(moment)) is not None and not node.was_silent(moment, moment + delay)
    )
    answers: Counter[str] = Counter()
    for node in site.swarm.nodes:
        answers.update(node.answers)
    accepted = sum(len(node.accepted) for node in site.swarm.nodes)
    print(
        f"\n{what}: {accepted} heartbeats accepted, otherwise {dict(answers)}; "
        f"events {dict(Counter(event.event for event in site.watch.events))}"
    )
    if not delays:  # too few died for one after which nothing else did
        return
    in_time = sum(delay <= SHORTEST for delay in delays)
    print(
        f"heard again after a fail-over within {SHORTEST} s, the shortest interval by default: "
        f"{in_time} of {len(delays)}, median {statistics.median(delays):.1f} s, "
        f"p99 {delays[int(0.99 * len(delays))]:.1f} s, most {delays[-1]:.1f} s"
    )


def check(site: Site, names: set[str], deaths: Counter[str]) -> None:
    """Compare what every receiver knows, what the log says and what was counted with what was done."""
    for receiver in site.receivers:
        assert site.nodes(receiver).keys() == names
    known = wait_until(lambda: at_rest(site), what="a log and counts that agree, and everybody alive")
    told = [shown(event) for event in known]
    happened = Counter(told)
    expired = Counter({node: count for (event, node), count in happened.items() if event == "expired"})
    # On a crowded machine a node may really not get through for two intervals; then it expires rightly.
    unheard = Counter({node.node_id: node.gaps(2 * INTERVAL - LATENCY) for node in site.swarm.nodes})
    if expired - deaths:
        print(f"{(expired - deaths).total()} expired that did not get through for two intervals")
    assert expired - deaths <= unheard
    assert not deaths - expired
    assert (
        Counter({node: count for (event, node), count in happened.items() if event == "returned"}) == expired
    )
    assert dict.fromkeys(names, 1) == {
        node: n for (event, node), n in happened.items() if event == "registered"
    }
    assert {event for event, _ in told} <= {"registered", *DUE}
    for receiver in site.receivers:
        assert [shown(event) for event in site.log(receiver, known)] == told


def at_rest(site: Site) -> list[NodeEvent] | None:
    """Return all events at a moment at which everybody is alive and each is counted once; None at others.

    On a crowded machine a node may expire and return meanwhile; an event that is counted twice stays so.
    """
    known = list(site.watch.events)
    told = Counter(event.event for event in known)
    states = {node.state for receiver in site.receivers for node in site.nodes(receiver).values()}
    counted = [site.counted(event) for event in ("expired", "returned")]
    is_whole = counted == [told["expired"], told["returned"]] and told["expired"] == told["returned"]
    return known if is_whole and states <= {"up", "late"} else None


def shown(event: NodeEvent) -> tuple[str, str]:
    assert event.node is not None, f"the log has a {event.event}"
    return event.event, event.node.node_id
