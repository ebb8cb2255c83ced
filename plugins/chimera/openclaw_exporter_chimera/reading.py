"""Reads depth, oldest message and consumers of many keys in one round trip.

The same key is a list in one code base, a sorted set or a stream in another, so its type is asked for and
never assumed. What a key was the last time is remembered, and what that type needs is asked for in the same
batch. Only where a key has changed its type, or a stream its groups, that key is asked once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from openclaw_exporter_chimera.stamps import earliest, entry_time, envelope_time
from openclaw_exporter_chimera.streams import Consumer, Stream, count_unsure, stream_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter_chimera.connection import Command
    from openclaw_exporter_chimera.links import Link, Request
    from openclaw_exporter_chimera.options import Options
    from openclaw_exporter_chimera.systems import Source

_LENGTHS: Final[Mapping[bytes, bytes]] = {b"list": b"LLEN", b"zset": b"ZCARD", b"hash": b"HLEN"}
_OPTIONAL: Final = frozenset({b"SORT_RO", b"LINDEX", b"ZRANGE", b"XRANGE", b"XPENDING"})
"""Commands that tell an age; the depth is known without them."""
_ROUNDS: Final = 3
"""A new key is asked for its type, then as a stream for its groups, then for each group's consumers."""


class TopicError(Exception):
    """One topic cannot be read; the text names the key."""


class OtherTypeError(TopicError):
    """A key is there and is no queue."""


class Reading(msgspec.Struct, frozen=True):
    """What one key says.

    Attributes:
        depth: Messages that wait, or why that is unknown.
        oldest: When the oldest of them was queued, in Unix seconds, where that is known.
        consumers: A stream's consumers, where they were asked for, or why they are unknown.
    """

    depth: int | TopicError
    oldest: float | None = None
    consumers: tuple[Consumer, ...] | TopicError = ()


class _Shape(msgspec.Struct, frozen=True):
    """What is remembered of a key: its type, and what a stream's groups had read, by name."""

    kind: bytes = b"none"
    groups: Mapping[bytes, bytes] = msgspec.field(default_factory=dict)

    def is_other(self, than: _Shape) -> bool:
        return self.kind != than.kind or self.groups.keys() != than.groups.keys()


_NEW: Final = _Shape()
_Asked: TypeAlias = "dict[bytes, tuple[_Shape, list[Command], list[Any]]]"


class Reader:
    """Reads keys, and remembers what they were."""

    def __init__(self, options: Options) -> None:
        self._groups = frozenset(group.encode() for group in options.groups)
        self._fields = options.created_at
        self._shapes: dict[bytes, _Shape] = {}
        self._refused: set[tuple[bytes | int, bytes]] = set()

    def read(
        self, link: Link, sources: Mapping[bytes, Source], others: Sequence[Request] = ()
    ) -> tuple[dict[bytes, Reading], list[Any]]:
        """Return what each key says, and the answers to other requests that go along in the first batch."""
        asked, rest = self._ask(link, sources, others)
        changed = self._note(sources, asked)
        for _ in range(_ROUNDS - 1):
            if not changed:
                break
            again, _ = self._ask(link, changed)
            asked |= again
            changed = self._note(changed, again)
        readings: dict[bytes, Reading] = {}
        unsure: dict[bytes, Stream] = {}
        for key, source in sources.items():
            reading = self._reading(source, *asked[key])
            if isinstance(reading, Stream):
                unsure[key] = reading
            else:
                readings[key] = reading
        counted = count_unsure(link, unsure) if unsure else {}
        return readings | {key: _counted(key, *counted[key]) for key in counted}, rest

    def forget(self, keep: Mapping[bytes, Source]) -> None:
        """Forget the keys that are read no more."""
        self._shapes = {key: shape for key, shape in self._shapes.items() if key in keep}
        self._refused = {refused for refused in self._refused if refused[1] in keep}

    def _ask(
        self, link: Link, sources: Mapping[bytes, Source], others: Sequence[Request] = ()
    ) -> tuple[_Asked, list[Any]]:
        plans = {key: self._commands(source) for key, source in sources.items()}
        requests = [(key, command) for key, commands in plans.items() for command in commands]
        answers = link.run([*requests, *others])
        given = iter(answers)
        asked = {
            key: (self._shapes.get(key, _NEW), commands, [next(given) for _ in commands])
            for key, commands in plans.items()
        }
        return asked, list(given)

    def _commands(self, source: Source) -> list[Command]:
        """Return TYPE, then what tells the depth, then what tells more."""
        key, shape = source.key, self._shapes.get(source.key, _NEW)
        commands: list[Command] = [(b"TYPE", key)]
        if shape.kind == b"stream" and not source.work:
            commands += stream_commands(key, shape.groups, consumers=source.consumers)
        elif shape.kind in _LENGTHS and (source.work or shape.kind != b"hash"):
            commands.append((_LENGTHS[shape.kind], key))
            commands += self._age_commands(source, shape.kind)
        if self._refused:
            commands = [command for command in commands if (command[0], key) not in self._refused]
        return commands

    def _age_commands(self, source: Source, kind: bytes) -> list[Command]:
        key = source.key
        if source.work:
            return []
        if source.stamp:
            order = (b"DESC",) if source.last else ()
            return [(b"SORT_RO", key, b"BY", b"nosort", b"GET", source.stamp, b"LIMIT", 0, 1, *order)]
        if kind == b"zset" and source.due:
            return [(b"ZRANGE", key, 0, 0, b"WITHSCORES")]
        if not self._fields:
            return []
        if kind == b"list":
            return [(b"LINDEX", key, 0), (b"LINDEX", key, -1)]
        return [(b"ZRANGE", key, 0, 0), (b"ZRANGE", key, -1, -1)]

    def _note(self, sources: Mapping[bytes, Source], asked: _Asked) -> dict[bytes, Source]:
        """Remember what the keys are now; return those that have to be asked again for that."""
        changed: dict[bytes, Source] = {}
        for key, source in sources.items():
            shape, commands, answers = asked[key]
            kind = answers[0]
            if isinstance(kind, Exception) or kind == b"none":
                continue  # a drained queue keeps its type: it will most likely be filled as the same
            now = _Shape(kind)
            if kind == shape.kind:
                self._refuse(key, commands, answers)
                if kind != b"stream" or source.work:
                    continue  # as it was
                now = _Shape(kind, self._group_ids(answers[2]))
            self._shapes[key] = now
            if now.is_other(shape) and (kind == b"stream" or kind in _LENGTHS):
                changed[key] = source
        return changed

    def _group_ids(self, answer: Any) -> dict[bytes, bytes]:
        if isinstance(answer, Exception):
            return {}
        return {group.name: group.delivered for group in Stream.groups_of(answer, self._groups)}

    def _refuse(self, key: bytes, commands: list[Command], answers: list[Any]) -> None:
        """Remember what this server does not know or allow, so that it is not asked for ever.

        An older Redis has no SORT_RO, a cluster allows none, and an ACL user may have few rights.
        """
        for (name, *_), answer in zip(commands, answers, strict=True):
            if name in _OPTIONAL and isinstance(answer, Exception) and "NOGROUP" not in str(answer):
                self._refused.add((name, key))

    def _reading(
        self, source: Source, shape: _Shape, commands: list[Command], answers: list[Any]
    ) -> Reading | Stream:
        kind, key = answers[0], source.key
        if kind == b"none":
            return Reading(0)
        problem = _problem(source, shape, answers)
        if problem is not None:
            return Reading(problem)
        if kind == b"stream":
            return self._stream(commands, answers, key)
        return Reading(answers[1], self._oldest(source, answers[2:]) if answers[1] and answers[2:] else None)

    def _oldest(self, source: Source, answers: list[Any]) -> float | None:
        """Return the earliest time that the messages which were read tell."""
        found = [answer for answer in answers if answer and not isinstance(answer, Exception)]
        messages = [answer[0] if isinstance(answer, list) else answer for answer in found]
        if source.due:
            return float(found[0][1]) / 1_000 if found else None
        if source.stamp:
            return earliest(entry_time(message) for message in messages if message is not None)
        return earliest(envelope_time(message, self._fields) for message in messages)

    def _stream(self, commands: list[Command], answers: list[Any], key: bytes) -> Reading | Stream:
        stream = Stream.read(commands, answers, self._groups)
        if isinstance(stream.consumers, Exception):
            stream = replace(stream, consumers=unreadable(key, stream.consumers))
        if stream.depth is None:
            return stream
        return Reading(stream.depth, stream.oldest, _consumers(key, stream))


def _problem(source: Source, shape: _Shape, answers: list[Any]) -> TopicError | None:
    """Return why a key's answers tell no depth, if they tell none."""
    kind, key = answers[0], source.key
    if isinstance(kind, Exception):
        return unreadable(key, kind)
    if kind not in ((b"list", b"zset", b"hash") if source.work else (b"list", b"zset", b"stream")):
        return OtherTypeError(f"key {shown(key)} is a {kind.decode()}, not a list, sorted set or stream")
    if kind != shape.kind:
        return TopicError(f"key {shown(key)} keeps changing its type")
    needed = answers[1 : 3 if kind == b"stream" else 2]
    failed = [answer for answer in needed if isinstance(answer, Exception)]
    return unreadable(key, failed[0]) if failed else None


def _counted(key: bytes, stream: Stream, depth: int | Exception | None) -> Reading:
    if depth is None:
        text = f"stream {shown(key)}: the server cannot tell the group's lag, and it is too long to count"
        return Reading(TopicError(text), consumers=_consumers(key, stream))
    if isinstance(depth, Exception):
        return Reading(unreadable(key, depth), consumers=_consumers(key, stream))
    return Reading(depth, stream.oldest, _consumers(key, stream))


def _consumers(key: bytes, stream: Stream) -> tuple[Consumer, ...] | TopicError:
    found = stream.consumers
    return unreadable(key, found) if isinstance(found, Exception) else found


def unreadable(key: bytes, error: Exception) -> TopicError:
    """Return the error of one key."""
    return error if isinstance(error, TopicError) else TopicError(f"key {shown(key)}: {error}")


def shown(key: bytes) -> str:
    """Return a key as text."""
    return repr(key.decode(errors="backslashreplace"))
