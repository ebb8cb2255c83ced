"""Which server has which partition now, as the servers themselves tell.

Of several that answer the one with the latest epoch is believed: a master that was cut off knows the past.
An epoch before the one that is known is believed where most masters answer and none knows a later one, as in
a cluster that was made anew.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from openclaw_exporter.receiver.store.redis.address import Host
from openclaw_exporter.receiver.store.redis.connection import (
    AnswerError,
    LostError,
    UnreachableError,
    packed,
)
from openclaw_exporter.receiver.store.redis.opening import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from openclaw_exporter.receiver.store.redis.address import Target
    from openclaw_exporter.receiver.store.redis.connection import Connection

T = TypeVar("T")

SLOTS: Final = 16_384
_GRACE: Final = 0.3
"""Seconds for which the others may still answer after the first one has."""
_CLUSTER: Final = packed(("CLUSTER", "SLOTS")) + packed(("CLUSTER", "INFO"))
_INFO: Final = packed(("INFO",))


class Shard(NamedTuple):
    """A master.

    Attributes:
        host: Where it is.
        replicas: How many replicas it is known to have that have not failed.
    """

    host: Host
    replicas: int


class Topology(NamedTuple):
    """Who has what.

    Attributes:
        slots: The ranges of slots (first and last) with their masters; outside of a cluster one with all.
        nodes: All servers that can be asked the next time.
        epoch: How new it is, in a cluster.
    """

    slots: Sequence[tuple[int, int, Shard]]
    nodes: frozenset[Host]
    epoch: int = 0

    def owner(self, slot: int) -> Shard | None:
        """Return the master of a slot, None where it has none."""
        return next((shard for first, last, shard in self.slots if first <= slot <= last), None)


def _epoch(topology: Topology) -> int:
    return topology.epoch


def key_slot(tag: str) -> int:
    """Return the slot of all keys with a hash tag, by Redis Cluster's specification."""
    return crc_hqx(tag.encode(), 0) % SLOTS


async def of_cluster(target: Target, known: Iterable[Host], least: int) -> Topology:
    """Ask nodes of a cluster.

    Args:
        target: How they are spoken to.
        known: The nodes.
        least: The epoch that is known.

    Raises:
        UnreachableError: None of them tells, or those that do know the past alone.
    """

    async def ask(host: Host) -> Topology:
        connection = await connect(host, target)
        try:
            return cluster_said(await connection.ask(_CLUSTER, 2), host)
        finally:
            connection.close()

    def is_new(topology: Topology) -> bool:
        return topology.epoch >= least

    latest = max(await _first([*known], ask, is_new), key=_epoch)
    if is_new(latest):
        return latest
    # A master that was down and has heard of nobody since may be the only one that answers.
    masters = sorted({shard.host for _, _, shard in latest.slots})
    answers = await _first(masters, ask, is_new) if masters else []
    newer = max([latest, *answers], key=_epoch)
    if not is_new(newer) and 2 * len(answers) <= len(masters):
        text = f"{len(answers)} of {len(masters)} masters answer, and know less than was known before"
        raise UnreachableError(text)
    return newer


async def of_sentinels(target: Target, known: Iterable[Host]) -> Topology:
    """Ask the Sentinels for their master, and the master whether it is one.

    Raises:
        UnreachableError: No Sentinel tells, or the master is away.
    """
    question = packed(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service or ""))

    async def ask(host: Host) -> Host:
        connection = await connect(host, target, of_sentinel=True)
        try:
            (answer,) = await connection.ask(question, 1)
        finally:
            connection.close()
        if isinstance(answer, AnswerError):
            raise UnreachableError(f"Sentinel {host}: {answer}", refused=True)
        if answer is None:
            raise UnreachableError(f"Sentinel {host}: knows no master {target.service!r}", refused=True)
        return Host(answer[0].decode(), int(answer[1]))

    sentinels = [*known]
    named = await _first(sentinels, ask)
    # Sentinels that were cut off name the old one: the most of them count, the first where they are even.
    master = max(named, key=named.count)
    topology = await of_single(target, [master])
    return topology._replace(nodes=frozenset(sentinels))


async def of_single(target: Target, known: Iterable[Host]) -> Topology:
    """Ask servers that know of no others; the first master is believed.

    Raises:
        UnreachableError: None of them is a master.
    """

    async def ask(host: Host) -> Shard:
        connection = await connect(host, target)
        try:
            if not connection.greeting.is_master:
                raise UnreachableError(f"{host}: is a replica, which takes no writes")
            return await single_said(connection, host)
        finally:
            connection.close()

    hosts = [*known]
    shard = (await _first(hosts, ask))[0]
    return Topology(((0, SLOTS - 1, shard),), frozenset(hosts))


async def look(connection: Connection, host: Host, *, is_cluster: bool) -> Topology:
    """Ask over a connection that is open already.

    Raises:
        UnreachableError: It does not tell.
        LostError: The connection ended.
    """
    if is_cluster:
        return cluster_said(await connection.ask(_CLUSTER, 2), host)
    return Topology(((0, SLOTS - 1, await single_said(connection, host)),), frozenset((host,)))


async def single_said(connection: Connection, host: Host) -> Shard:
    """Return a master with its replicas; who may not ask knows of none."""
    (answer,) = await connection.ask(_INFO, 1)
    return Shard(host, 0 if isinstance(answer, AnswerError) else answer.count(b",state=online,"))


def cluster_said(answers: Sequence[Any], asked: Host) -> Topology:
    """Read what a node said of its cluster.

    Raises:
        UnreachableError: It said something else.
    """
    slots, info = answers
    for answer in answers:
        if isinstance(answer, AnswerError):
            raise UnreachableError(f"{asked}: {answer}", refused=answer.code == "NOPERM")
    fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    ranges: list[tuple[int, int, Shard]] = []
    nodes = {asked}
    for first, last, *servers in slots:
        # A node that does not know its own address is the one that was asked.
        hosts = [
            Host(server[0].decode() if server[0] not in (None, b"", b"?") else asked.name, int(server[1]))
            for server in servers
        ]
        ranges.append((int(first), int(last), Shard(hosts[0], len(hosts) - 1)))
        nodes.update(hosts)
    return Topology(ranges, frozenset(nodes), int(fields.get(b"cluster_current_epoch", b"0")))


async def _first(
    hosts: Sequence[Host],
    ask: Callable[[Host], Coroutine[Any, Any, T]],
    will_do: Callable[[T], bool] = lambda _: True,
) -> list[T]:
    """Ask all at once; return what those say that are as quick as the first one, in the order of the hosts.

    Args:
        hosts: Whom to ask.
        ask: Asks one.
        will_do: Whether the others need not be waited for; else that is no first answer.

    Raises:
        UnreachableError: Nobody says anything; the text has everybody's reason.
    """
    tasks = [asyncio.create_task(ask(host)) for host in hosts]
    try:
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() is None and will_do(task.result()) for task in done):
                await asyncio.wait(waiting, timeout=_GRACE) if waiting else None
                break
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    reasons: list[UnreachableError | LostError] = []
    answers: list[T] = []
    for outcome in outcomes:
        if isinstance(outcome, UnreachableError | LostError):
            reasons.append(outcome)
        elif isinstance(outcome, asyncio.CancelledError):
            continue
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            answers.append(outcome)
    if not answers:
        refused = any(isinstance(reason, UnreachableError) and reason.refused for reason in reasons)
        raise UnreachableError("; ".join(dict.fromkeys(map(str, reasons))), refused=refused)
    return answers
