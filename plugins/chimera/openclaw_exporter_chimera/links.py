"""The three ways to a Redis: itself, through Sentinels, and as a cluster of many.

A request is a command with the place that it goes to: a key's bytes, or one of `places` for what looks at a
whole database. A batch of requests takes one round trip, to each master of a cluster at the same time.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from msgspec.structs import replace

from openclaw_exporter_chimera.connection import (
    AnswerError,
    AuthenticationError,
    Command,
    password,
    settings_of,
)
from openclaw_exporter_chimera.wire import AwayError, Line, ask_all, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openclaw_exporter_chimera.connection import Settings
    from openclaw_exporter_chimera.options import Options

Place: TypeAlias = str
"""The address of a master, `host:port`; empty where there is one only."""
Request: TypeAlias = tuple[bytes | Place, Command]

_SLOTS: Final = 16_384


class Link(Protocol):
    """The way to the keys."""

    def places(self) -> tuple[Place, ...]:
        """The masters that hold keys now."""
        ...

    def run(self, requests: Sequence[Request]) -> list[Any]:
        """Return the answers; an exception for what was refused, or whose master is away.

        Raises:
            OSError: Redis cannot be reached, or does not answer in time.
            AuthenticationError: It refuses user or password.
            AwayError: Nobody tells where Redis is.
        """
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


def link(options: Options) -> Link:
    """Return the link that the options ask for.

    Raises:
        PermissionError: A password's file cannot be read.
    """
    settings = settings_of(options)
    if options.mode == "cluster":
        return Cluster(options, settings)
    return Single(Line(settings)) if options.mode == "single" else Sentinels(options, settings)


class Single:
    """One Redis at a known place."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def places(self) -> tuple[Place, ...]:
        """One, without an address."""
        return ("",)

    def run(self, requests: Sequence[Request]) -> list[Any]:
        """Send all requests to it."""
        return self._line.ask([command for _, command in requests])

    def close(self) -> None:
        """Close the connection."""
        self._line.close()


class Sentinels:
    """The Redis that Sentinels name as master now.

    Every batch asks it whether it is one, and the Sentinel whether it is still this one: both at the same
    time, so it stays one round trip. While no Sentinel answers, what the master says of itself is enough.
    """

    def __init__(self, options: Options, settings: Settings) -> None:
        self._service = options.service
        self._settings = settings
        secret = options.sentinel_password_file
        own = replace(
            settings,
            database=0,
            username=options.sentinel_username,
            password=None if secret is None else password(secret),
        )
        self._sentinels = [
            Line(replace(own, host=host, port=port)) for host, port in _addresses(options, settings)
        ]
        self._question: list[Command] = [(b"SENTINEL", b"get-master-addr-by-name", options.service.encode())]
        self._line: Line | None = None
        self._master: tuple[str, int] | None = None

    def places(self) -> tuple[Place, ...]:
        """One, wherever it is."""
        return ("",)

    def run(self, requests: Sequence[Request]) -> list[Any]:
        """Send all requests to the master."""
        commands: list[Command] = [*(command for _, command in requests), (b"ROLE",)]
        known = self._line is not None
        for _ in range(2 if known else 1):
            line, sentinel = self._there(), self._sentinels[0]
            outcome = ask_all({line: commands, sentinel: self._question})
            result, said = outcome[line], outcome[sentinel]
            if isinstance(said, list):
                master = _address(said[0])
            else:
                master = self._master
                self._sentinels.append(self._sentinels.pop(0))  # ask another the next time
            if isinstance(result, list) and master == self._master and _is_master(result[-1]):
                return result[:-1]
            self.close()
        if isinstance(result, Exception):
            raise result
        raise AwayError(f"the Sentinels name no present master of {self._service!r}")

    def close(self) -> None:
        """Close every connection; the next batch asks the Sentinels again."""
        line, self._line = self._line, None
        for open_line in (line, *self._sentinels):
            if open_line is not None:
                open_line.close()

    def _there(self) -> Line:
        """Return the line to the master that the first Sentinel to answer names; keep to that Sentinel."""
        if self._line is not None:
            return self._line
        reasons: list[str] = []
        for sentinel in list(self._sentinels):
            try:
                (answer,) = sentinel.ask(self._question)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one Sentinel, ask the next
                reasons.append(f"a Sentinel: {error}")
                continue
            self._master = _address(answer)
            if self._master is None:
                what = answer if isinstance(answer, Exception) else f"knows no master {self._service!r}"
                reasons.append(f"a Sentinel: {what}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            host, port = self._master
            self._line = Line(replace(self._settings, host=host, port=port))
            return self._line
        raise AwayError("; ".join(reasons))


def _address(answer: Any) -> tuple[str, int] | None:
    """Read a Sentinel's answer; None where it knows no such master."""
    return (answer[0].decode(), int(answer[1])) if isinstance(answer, list) else None


def _is_master(role: Any) -> bool:
    """Read the answer to ROLE; an ACL user who may not ask is taken at the Sentinel's word."""
    return isinstance(role, Exception) or role[0] == b"master"


class Cluster:
    """The masters of a Redis Cluster. Who has which slots is learned anew when that has changed."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self._settings = settings
        self._seeds = _addresses(options, settings)
        self._lines: dict[Place, Line] = {}
        self._slots: list[Place] = []

    def places(self) -> tuple[Place, ...]:
        """The masters' addresses.

        Raises:
            AwayError: Nobody tells, or none has slots.
        """
        if not self._slots:
            self._learn()
        found = tuple(sorted(set(self._slots) - {""}))
        if not found:
            self._slots = []
            raise AwayError("no master of the cluster has slots")
        return found

    def run(self, requests: Sequence[Request]) -> list[Any]:
        """Send each request to the master that has its key."""
        answers = self._run(requests)
        moved = [index for index, answer in enumerate(answers) if _is_moved(answer)]
        if moved:
            self._learn()
            for index, answer in zip(moved, self._run([requests[i] for i in moved]), strict=True):
                answers[index] = answer
        return answers

    def close(self) -> None:
        """Close every connection, and forget where the slots are."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._slots = []

    def _run(self, requests: Sequence[Request]) -> list[Any]:
        if not self._slots:
            self._learn()
        answers: list[Any] = [None] * len(requests)
        at: defaultdict[Place, list[int]] = defaultdict(list)
        for index, (target, _) in enumerate(requests):
            at[target if isinstance(target, str) else self._slots[key_slot(target)]].append(index)
        lost: Exception = AwayError("no master has the key's slot")
        batches = {
            self._line(place): [requests[index][1] for index in indexes]
            for place, indexes in at.items()
            if place
        }
        outcome = ask_all(batches)
        for place, indexes in at.items():
            result = outcome[self._line(place)] if place else lost
            if isinstance(result, AuthenticationError):
                raise result
            if isinstance(result, Exception):
                self._slots = []  # another may hold them soon
            for number, index in enumerate(indexes):
                answers[index] = result if isinstance(result, Exception) else result[number]
        return self._asked(requests, answers)

    def _asked(self, requests: Sequence[Request], answers: list[Any]) -> list[Any]:
        """Follow ASK: a key that has gone ahead of its slot."""
        for index, answer in enumerate(answers):
            if isinstance(answer, AnswerError) and str(answer).startswith("ASK "):
                there = self._line(str(answer).split()[2])
                answers[index] = there.ask([(b"ASKING",), requests[index][1]])[1]
        return answers

    def _line(self, place: Place) -> Line:
        if place not in self._lines:
            host, port = parse_address(place)
            self._lines[place] = Line(replace(self._settings, host=host, port=port))
        return self._lines[place]

    def _learn(self) -> None:
        """Ask the first that answers which master has which slots."""
        reasons: list[str] = []
        known = dict.fromkeys((*(parse_address(place) for place in self._lines), *self._seeds))
        for host, port in known:
            try:
                (answer,) = self._line(f"{host}:{port}").ask([(b"CLUSTER", b"SLOTS")])
            except AuthenticationError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one node, ask the next
                reasons.append(f"{host}:{port}: {error}")
                continue
            if isinstance(answer, list):
                self._slots = [""] * _SLOTS
                for first, last, place in _ranges(answer, host):
                    self._slots[first : last + 1] = [place] * (last + 1 - first)
                self._close_others()
                return
            reasons.append(f"{host}:{port}: {answer}")
        raise AwayError("; ".join(reasons))

    def _close_others(self) -> None:
        for place in self._lines.keys() - set(self._slots):
            self._lines.pop(place).close()


def _ranges(answer: list[Any], asked: str) -> Iterator[tuple[int, int, Place]]:
    """Read CLUSTER SLOTS; a node that does not know its own address is the one that was asked."""
    for first, last, master, *_ in answer:
        host = master[0].decode() if master[0] else asked
        yield int(first), int(last), f"{host}:{int(master[1])}"


def key_slot(key: bytes) -> int:
    """Return a key's slot: that of what stands in its first braces, by Redis Cluster's specification."""
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1)
    return crc_hqx(key[begin + 1 : end] if begin >= 0 and end > begin + 1 else key, 0) % _SLOTS


def _is_moved(answer: Any) -> bool:
    return isinstance(answer, AnswerError) and str(answer).startswith("MOVED ")


def _addresses(options: Options, settings: Settings) -> list[tuple[str, int]]:
    return [(settings.host, settings.port), *(parse_address(node) for node in options.nodes)]
