"""How many tasks wait in a Chimera's Redis, and how many workers the node is configured with.

The same key is a list in one code base, a sorted set or a stream in another, so its type is asked for and
never assumed. A drained queue's key vanishes: that is depth 0. What cannot be read is left out, never zero.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from openclaw_exporter.plugin import Capacity, Observation, QueueDepth, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import redis
    from redis.client import Pipeline

Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Url: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(redis|rediss|unix)://.",
        description="redis://host:port/number, rediss://… or unix:///path",
    ),
]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=512)]

_SCAN_COUNT: Final = 1_000
_ENTRY_LIMIT: Final = 256
"""Entries of a stream that are counted one by one at most, where the server cannot tell a group's lag."""

_DEPTH_COMMANDS: Final[Mapping[bytes, tuple[str, ...]]] = {
    b"list": ("llen",),
    b"zset": ("zcard",),
    b"stream": ("xlen", "xinfo_groups"),
    b"none": (),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    r"""The table `[plugins.chimera]`.

    Attributes:
        url: Where Redis is: `redis://host:6379/0`, `rediss://…` for TLS, or `unix:///path`.
        username: The ACL user, where it is not the default one.
        password_file: A file that holds the password; read again after Redis has refused it.
        ca: A file with the CA certificates that a `rediss` server is checked against.
        queues: Topics and their keys: `worker = ["task_queue"]`, `planner = ["planner:queue:*"]`. A key with
            `*`, `?` or `[` is a pattern (a backslash before it makes it plain). The depths of all of
            a topic's keys are added up.
        groups: Consumer groups to read in streams; without any, the group that is furthest behind counts.
        workers: How many workers this node runs.
        socket_timeout: Seconds to wait for one answer from Redis.
        scan_limit: SCAN calls for one pattern at most; each looks at about 1000 keys of the database.
        max_keys: Keys that one pattern may find.
    """

    url: Url = field(default="redis://127.0.0.1:6379/0", repr=False)
    username: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    queues: Annotated[dict[Topic, Annotated[tuple[Key, ...], Meta(min_length=1)]], Meta(max_length=32)] = (
        field(default_factory=dict)
    )
    groups: tuple[Key, ...] = ()
    workers: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    socket_timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0
    scan_limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    max_keys: Annotated[int, Meta(ge=1, le=100_000)] = 1_000

    def __post_init__(self) -> None:
        """Check the URL, whose text must not come up in an error because it may hold a password."""
        parts = urlsplit(self.url)
        try:
            usable = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number, or too high
            usable = False
        if not usable:
            raise ValueError("url has no usable host, port or path")
        if parts.password and self.password_file:
            raise ValueError("the password stands in url and in password_file: keep one")

    @property
    def place(self) -> str:
        """The URL without user and password, for error texts."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class TopicError(Exception):
    """One topic cannot be read; the text names the key."""


class OtherTypeError(TopicError):
    """A key is there and is no queue."""


Depth: TypeAlias = int | TopicError


@hookimpl
def openclaw_collectors(options: Options) -> list[Queues | Workers]:
    """Return a collector for what is configured. Workers are known whether Redis answers or not."""
    collectors: list[Queues | Workers] = []
    if options.queues:
        collectors.append(Queues(options))
    if options.workers is not None:
        collectors.append(Workers(options.workers))
    return collectors


class Workers:
    """The configured workers. How many are busy is unknown, so each counts as a slot."""

    name = "workers"

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Observation]:
        """Yield both capacities that a heartbeat has to have."""
        yield Capacity("workers", self._workers)
        yield Capacity("available_slots", self._workers)


class Queues:
    """The depth of every configured topic."""

    name = "queues"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._redis: redis.Redis | None = None
        self._reader = _Reader(options.groups)
        keys = dict.fromkeys(key for keys in options.queues.values() for key in keys)
        self._patterns = [key for key in keys if _is_pattern(key)]

    def collect(self) -> list[Observation | Exception]:
        """Return the depth of each topic, and an error for each that cannot be read.

        Raises:
            PermissionError: Redis refuses user or password, or the password's file cannot be read.
            TimeoutError: Redis did not answer in time.
            ConnectionError: Redis cannot be reached, or none of the topics can be read.
        """
        import redis  # noqa: PLC0415 - 150 ms that the agent's start need not wait for

        place = self._options.place
        try:
            client = self._client(redis)
            found = self._find(client)
            depths = self._reader.read(client, self._keys(found))
        except redis.AuthenticationError:
            self.close()  # the next connection reads the password's file again
            raise PermissionError(f"{place} refuses the user name or password") from None
        except redis.TimeoutError:
            raise TimeoutError(f"{place} gave no answer within {self._options.socket_timeout:g} s") from None
        except redis.RedisError as error:
            raise ConnectionError(f"{place} cannot be read: {error}") from None
        outcome = [self._topic(topic, keys, found, depths) for topic, keys in self._options.queues.items()]
        if all(isinstance(result, Exception) for result in outcome):
            raise ConnectionError(f"no topic at {place} can be read: {outcome[0]}")
        return outcome

    def close(self) -> None:
        """Close the connection."""
        client, self._redis = self._redis, None
        if client is not None:
            with suppress(Exception):
                client.close()

    def _client(self, module: Any) -> redis.Redis:
        if self._redis is None:
            from redis.backoff import NoBackoff  # noqa: PLC0415 - comes with redis
            from redis.retry import Retry  # noqa: PLC0415 - comes with redis

            options = self._options
            settings: dict[str, Any] = {
                "socket_timeout": options.socket_timeout,
                "client_name": "openclaw-exporter",
                "protocol": 2,  # needs no HELLO, which Redis before 6 does not know
                # One second try, for the kept connection that a restart of Redis has closed.
                "retry": Retry(NoBackoff(), 1, supported_errors=(module.ConnectionError,)),
            }
            if not options.url.startswith("unix:"):
                settings["socket_connect_timeout"] = options.socket_timeout
            if options.username is not None:
                settings["username"] = options.username
            if options.password_file is not None:
                settings["password"] = _password(options.password_file)
            if options.ca is not None:
                settings["ssl_ca_certs"] = str(options.ca)
            self._redis = module.Redis.from_url(options.url, **settings)
        return self._redis

    def _find(self, client: redis.Redis) -> dict[str, list[bytes] | TopicError]:
        """Return the keys of each pattern: one SCAN call for each pattern in a round trip, with a bound."""
        found: dict[str, set[bytes]] = {pattern: set() for pattern in self._patterns}
        failed: dict[str, TopicError] = {}
        cursors = dict.fromkeys(self._patterns, 0)
        for _ in range(self._options.scan_limit):
            if not cursors:
                break
            pipeline = client.pipeline(transaction=False)
            for pattern, cursor in cursors.items():
                pipeline.scan(cursor, match=pattern, count=_SCAN_COUNT)
            for pattern, answer in zip(list(cursors), _run(pipeline), strict=True):
                if isinstance(answer, Exception):
                    failed[pattern] = TopicError(f"pattern {pattern!r}: {answer}")
                else:
                    cursors[pattern] = int(answer[0])
                    found[pattern].update(answer[1])
                    if len(found[pattern]) > self._options.max_keys:
                        failed[pattern] = self._beyond(pattern, "max_keys", self._options.max_keys)
                if pattern in failed or not cursors[pattern]:
                    del cursors[pattern]
        for pattern in cursors:
            failed[pattern] = self._beyond(pattern, "scan_limit", self._options.scan_limit)
        return {pattern: failed.get(pattern) or sorted(keys) for pattern, keys in found.items()}

    def _beyond(self, pattern: str, bound: str, value: int) -> TopicError:
        return TopicError(f"pattern {pattern!r} goes beyond {bound} = {value}, so its depth is unknown")

    def _topic(
        self,
        topic: str,
        keys: tuple[str, ...],
        found: Mapping[str, list[bytes] | TopicError],
        depths: Mapping[bytes, Depth],
    ) -> Observation | Exception:
        """Add up one topic: each key once, however many patterns find it."""
        counted: dict[bytes, int] = {}
        for key in keys:
            matches = found.get(key, [_plain(key)])
            if isinstance(matches, TopicError):
                return TopicError(f"topic {topic!r}: {matches}")
            for match in matches:
                depth = depths[match]
                if isinstance(depth, OtherTypeError) and key in found:
                    continue  # a pattern is a search: what it finds beside the queues is none
                if isinstance(depth, TopicError):
                    return TopicError(f"topic {topic!r}: {depth}")
                counted[match] = depth
        return QueueDepth(topic, sum(counted.values()))

    def _keys(self, found: Mapping[str, list[bytes] | TopicError]) -> set[bytes]:
        keys = {_plain(key) for keys in self._options.queues.values() for key in keys if key not in found}
        for matches in found.values():
            keys.update(matches if isinstance(matches, list) else ())
        return keys


class _Reader:
    """Reads the depths of keys. It remembers each key's type, so that the next time takes one round trip."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self._groups = frozenset(group.encode() for group in groups)
        self._types: dict[bytes, bytes] = {}

    def read(self, client: redis.Redis, keys: set[bytes]) -> dict[bytes, Depth]:
        """Return the depth of each key, or why it is unknown."""
        answers = self._ask(client, {key: self._types.get(key, b"none") for key in sorted(keys)})
        types = {key: answer[0] for key, answer in answers.items()}
        depths: dict[bytes, Depth] = {
            key: _unreadable(key, kind) for key, kind in types.items() if isinstance(kind, Exception)
        }
        changed = {
            key: kind
            for key, kind in types.items()
            if key not in depths and _DEPTH_COMMANDS.get(kind) and kind != self._types.get(key, b"none")
        }
        # A drained queue keeps its type: it will most likely be filled as the same.
        self._types = {
            key: self._types.get(key, kind) if kind == b"none" else kind
            for key, kind in types.items()
            if key not in depths
        }
        if changed:
            answers |= self._ask(client, changed)
        unsure: dict[bytes, list[tuple[bytes, int]]] = {}
        for key in keys - depths.keys():
            depth = self._depth(key, types[key], answers[key][1:], unsure)
            if depth is not None:
                depths[key] = depth
        return depths | (_count(client, unsure) if unsure else {})

    def _ask(self, client: redis.Redis, kinds: Mapping[bytes, bytes]) -> dict[bytes, list[Any]]:
        """Send TYPE and what the expected type needs for every key, in one round trip."""
        pipeline = client.pipeline(transaction=False)
        for key, kind in kinds.items():
            for command in ("type", *_DEPTH_COMMANDS.get(kind, ())):
                getattr(pipeline, command)(key)
        answers = iter(_run(pipeline))
        return {
            key: [next(answers) for _ in range(1 + len(_DEPTH_COMMANDS.get(kind, ())))]
            for key, kind in kinds.items()
        }

    def _depth(
        self, key: bytes, kind: bytes, answers: list[Any], unsure: dict[bytes, list[tuple[bytes, int]]]
    ) -> Depth | None:
        """Return a key's depth, or None after noting in `unsure` the groups that have to be counted."""
        if kind == b"none":
            return 0
        if kind not in _DEPTH_COMMANDS:
            return OtherTypeError(f"key {_shown(key)} is a {kind.decode()}, not a list, sorted set or stream")
        for answer in answers:
            if isinstance(answer, Exception):
                return _unreadable(key, answer)
        if kind != b"stream":
            return int(answers[0])
        length, groups = int(answers[0]), answers[1]
        read = [group for group in groups if not self._groups or group["name"] in self._groups]
        if any(group.get("lag") is None for group in read):
            unsure[key] = [(group["last-delivered-id"], int(group["pending"])) for group in read]
            return None
        return max((int(group["lag"]) + int(group["pending"]) for group in read), default=length)


def _count(client: redis.Redis, unsure: Mapping[bytes, list[tuple[bytes, int]]]) -> dict[bytes, Depth]:
    """Count the entries beyond each group's last delivered one, from whichever end of the stream is nearer.

    The server cannot tell a group's lag after entries were deleted (XDEL, XTRIM), and before Redis 7.
    """
    pipeline = client.pipeline(transaction=False)
    for key, groups in unsure.items():
        for last, _ in groups:
            pipeline.xlen(key)
            pipeline.xrange(key, min=_following(last), max="+", count=_ENTRY_LIMIT + 1)
            pipeline.xrevrange(key, max=last, min="-", count=_ENTRY_LIMIT + 1)
    answers = iter(_run(pipeline))
    depths: dict[bytes, Depth] = {}
    for key, groups in unsure.items():
        depths[key] = 0
        for _, pending in groups:
            length, after, before = next(answers), next(answers), next(answers)
            depth = depths[key]
            if isinstance(depth, int):
                lag = _lag(key, length, after, before)
                depths[key] = max(depth, lag + pending) if isinstance(lag, int) else lag
    return depths


def _lag(key: bytes, length: Any, after: Any, before: Any) -> Depth:
    for answer in (length, after, before):
        if isinstance(answer, Exception):
            return _unreadable(key, answer)
    if len(after) <= _ENTRY_LIMIT:
        return len(after)
    if len(before) <= _ENTRY_LIMIT:
        return int(length) - len(before)
    return TopicError(
        f"stream {_shown(key)}: the server cannot tell the group's lag, and it is too long to count"
    )


def _following(entry: bytes) -> bytes:
    """Return the next possible id after that of a stream's entry; `(id` needs Redis 6.2."""
    milliseconds, _, number = entry.partition(b"-")
    if int(number) == 2**64 - 1:
        return b"%d-0" % (int(milliseconds) + 1)
    return b"%s-%d" % (milliseconds, int(number) + 1)


def _run(pipeline: Pipeline) -> list[Any]:
    """Run a pipeline; an answer of one command alone may be an error, one of the connection is raised."""
    import redis  # noqa: PLC0415 - loaded already, by the collector

    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, (redis.ConnectionError, redis.TimeoutError)):
            raise answer
    return answers


def _unreadable(key: bytes, error: Exception) -> TopicError:
    return TopicError(f"key {_shown(key)}: {error}")


def _shown(key: bytes) -> str:
    return repr(key.decode(errors="backslashreplace"))


def _plain(key: str) -> bytes:
    return re.sub(r"\\(.)", r"\1", key).encode()


def _is_pattern(key: str) -> bool:
    return re.search(r"(?<!\\)[*?\[]", key) is not None


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PermissionError(f"password_file {path} cannot be read: {reason}") from None
