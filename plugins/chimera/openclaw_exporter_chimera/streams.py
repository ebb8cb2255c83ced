"""Streams: a group's lag and pending entries, its oldest entry and its consumers.

XLEN counts what is done as well where entries are acknowledged and not deleted, so a group's backlog is its
lag (what it has not read) and its pending entries (what it has read and not acknowledged). An entry's id
begins with the time at which it was added, so the lowest id of both is the oldest message: pending entries
come before unread ones.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from openclaw_exporter_chimera.stamps import earliest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from openclaw_exporter_chimera.connection import Command
    from openclaw_exporter_chimera.links import Link, Request

_COUNTED: Final = 256
"""Entries of a stream that are counted one by one at most, where the server cannot tell a group's lag."""
_GROUPS: Final = 16
"""Groups of one stream that are looked into."""


class Consumer(msgspec.Struct, frozen=True):
    """One consumer of a group.

    Attributes:
        name: Its name.
        pending: Entries that it holds.
        idle: Seconds for which it gave no sign although it could have.
    """

    name: bytes
    pending: int
    idle: float


class Group(msgspec.Struct, frozen=True):
    """One group: what it has read, what is pending, and its lag where the server can tell."""

    name: bytes
    delivered: bytes
    pending: int
    lag: int | None


class Stream(msgspec.Struct, frozen=True):
    """One stream.

    Attributes:
        groups: The groups that count.
        depth: The backlog of the group furthest behind; all entries where there is no group; None where the
            server cannot tell.
        oldest: When its oldest entry was added, in Unix seconds, where that is known.
        consumers: All groups' consumers, where they were asked for, or why they are unknown.
    """

    groups: tuple[Group, ...]
    depth: int | None
    oldest: float | None
    consumers: tuple[Consumer, ...] | Exception

    @staticmethod
    def groups_of(answer: list[Any], names: Collection[bytes]) -> tuple[Group, ...]:
        """Read the answer to XINFO GROUPS; with names, those groups only."""
        found = (dict(zip(item[::2], item[1::2], strict=True)) for item in answer)
        return tuple(
            Group(
                item[b"name"],
                item[b"last-delivered-id"],
                int(item[b"pending"]),
                None if item.get(b"lag") is None else int(item[b"lag"]),
            )
            for item in found
            if not names or item[b"name"] in names
        )[:_GROUPS]

    @classmethod
    def read(cls, commands: list[Command], answers: list[Any], names: Collection[bytes]) -> Stream:
        """Read the answers to TYPE and `stream_commands`, of which the first three are no errors."""
        groups = cls.groups_of(answers[2], names)
        length = int(answers[1])
        more = list(zip(commands[3:], answers[3:], strict=True))
        if any(group.lag is None for group in groups):
            depth = None
        else:
            depth = max((group.pending + (group.lag or 0) for group in groups), default=length)
        ahead = _unread(groups, more)
        oldest = _oldest(groups, more, ahead) if depth != 0 else None
        return cls(groups, depth, oldest, _consumers(more, ahead))


def stream_commands(key: bytes, delivered: Mapping[bytes, bytes], *, consumers: bool) -> list[Command]:
    """Return the commands that tell a stream's state, given what its groups had read the last time."""
    commands: list[Command] = [(b"XLEN", key), (b"XINFO", b"GROUPS", key)]
    if not delivered:
        commands.append((b"XRANGE", key, b"-", b"+", b"COUNT", 1))
    for name, last in delivered.items():
        commands.append((b"XPENDING", key, name))
        commands.append((b"XRANGE", key, following(last), b"+", b"COUNT", 1))
        if consumers:
            commands.append((b"XINFO", b"CONSUMERS", key, name))
    return commands


def _unread(groups: tuple[Group, ...], more: list[tuple[Command, Any]]) -> dict[bytes, float]:
    """Return the time of the first entry that each group has not read, where there is one and it is known.

    What was asked for is the entry after the one that the group had read the last time. It may have read on
    since; then the entry tells nothing.
    """
    names = [command[2] for command, _ in more if command[0] == b"XPENDING"]
    entries = [answer for command, answer in more if command[0] == b"XRANGE"]
    found = dict(zip(names, entries, strict=False))
    times: dict[bytes, float] = {}
    for group in groups:
        entry: Any = found.get(group.name)
        if _given(entry) and _number(entry[0][0]) > _number(group.delivered):
            times[group.name] = _added(entry[0][0])
    return times


def _oldest(
    groups: tuple[Group, ...], more: list[tuple[Command, Any]], unread: Mapping[bytes, float]
) -> float | None:
    """Return the time of the oldest entry that any group has not done with, where all of them tell."""
    if not groups:
        first = [answer for command, answer in more if command[0] == b"XRANGE"]
        return _added(first[0][0][0]) if first and _given(first[0]) else None
    pending: dict[Any, Any] = {command[2]: answer for command, answer in more if command[0] == b"XPENDING"}
    times: list[float | None] = []
    for group in groups:
        held: Any = pending.get(group.name)
        if group.pending:
            times.append(_added(held[1]) if _given(held) and held[1] else None)
        elif group.lag != 0:
            times.append(unread.get(group.name))
    return None if None in times else earliest(times)


def _consumers(
    more: list[tuple[Command, Any]], unread: Mapping[bytes, float]
) -> tuple[Consumer, ...] | Exception:
    consumers: list[Consumer] = []
    for command, answer in more:
        if command[:2] != (b"XINFO", b"CONSUMERS"):
            continue
        if isinstance(answer, Exception):
            if "NOGROUP" in str(answer):
                continue  # the group is gone, and its consumers with it
            return answer
        listed = [dict(zip(item[::2], item[1::2], strict=True)) for item in answer]
        since = unread.get(cast("bytes", command[3]))
        waits = 0.0 if since is None else time.time() - since
        excused = _excused(listed, waits)
        consumers += [
            Consumer(said[b"name"], int(said[b"pending"]), int(said[b"idle"]) / 1_000 - excused)
            for said in listed
        ]
    return tuple(consumers)


def _excused(listed: list[dict[Any, Any]], waits: float) -> float:
    """Return the seconds of silence that prove nothing.

    From 7.2 on (where `inactive` is told as well) Redis notes each time that a consumer asks. Before, it
    notes only that one was given an entry, and who waits at an empty stream cannot be told from who has died.
    There the silence counts from when another was given one, or an entry has begun to wait unread.

    Args:
        listed: The group's consumers.
        waits: Seconds that an entry waits unread.
    """
    if not listed or b"inactive" in listed[0]:
        return 0.0
    return max(0.0, min(int(said[b"idle"]) for said in listed) / 1_000 - waits)


def count_unsure(
    link: Link, streams: Mapping[bytes, Stream]
) -> dict[bytes, tuple[Stream, int | Exception | None]]:
    """Count the entries beyond each group's last delivered one, from whichever end of the stream is nearer.

    The server cannot tell a group's lag after entries were deleted (XDEL, XTRIM), and before Redis 7. This
    takes a round trip of its own. None stands for a lag that is too long to count.
    """
    requests: list[Request] = []
    for key, stream in streams.items():
        for group in stream.groups:
            after = (b"XRANGE", key, following(group.delivered), b"+", b"COUNT", _COUNTED + 1)
            before = (b"XREVRANGE", key, group.delivered, b"-", b"COUNT", _COUNTED + 1)
            requests += [(key, (b"XLEN", key)), (key, after), (key, before)]
    answers = iter(link.run(requests))
    counted: dict[bytes, tuple[Stream, int | Exception | None]] = {}
    for key, stream in streams.items():
        depths = [
            _plus(_lag(next(answers), next(answers), next(answers)), group.pending) for group in stream.groups
        ]
        failed = [depth for depth in depths if not isinstance(depth, int)]
        known = [depth for depth in depths if isinstance(depth, int)]
        counted[key] = stream, failed[0] if failed else max(known, default=0)
    return counted


def following(entry: bytes) -> bytes:
    """Return the next possible id after that of a stream's entry; `(id` needs Redis 6.2."""
    milliseconds, number = _number(entry)
    if number == 2**64 - 1:
        return b"%d-0" % (milliseconds + 1)
    return b"%d-%d" % (milliseconds, number + 1)


def _lag(length: Any, after: Any, before: Any) -> int | Exception | None:
    for answer in (length, after, before):
        if isinstance(answer, Exception):
            return answer
    if len(after) <= _COUNTED:
        return len(after)
    return int(length) - len(before) if len(before) <= _COUNTED else None


def _plus(lag: int | Exception | None, pending: int) -> int | Exception | None:
    return lag + pending if isinstance(lag, int) else lag


def _given(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer)


def _added(entry: bytes) -> float:
    return _number(entry)[0] / 1_000


def _number(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)
