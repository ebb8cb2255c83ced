"""What a worker and the registry's process say to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from openclaw_exporter.receiver.kept import Kept
from openclaw_exporter.receiver.liveness import Arrival, Outcome
from openclaw_exporter.receiver.metrics import Counts, RequestKey
from openclaw_exporter.receiver.settings import ReceiverSettings

Fields = list[tuple[bytes, bytes]]


class Message(msgspec.Struct, array_like=True, gc=False):
    """One message; its fields go over the wire without their names."""


class Greeting(Message, tag=0):
    """The first one to a worker.

    Attributes:
        settings: The `ReceiverSettings`, its limits this worker's share; see `pack_settings`.
        log_level: The least level of what is logged.
        kept: What the other workers serve with, for where a file or URL cannot be used now. It holds the
            private key: this socket pair is known to the two processes alone.
    """

    settings: bytes
    log_level: int
    kept: Kept


class Decided(Message, tag=1):
    """What became of a `Submitted`.

    Attributes:
        number: Its number.
        outcomes: One for each arrival, in their order; None: the store was lost.
    """

    number: int
    outcomes: list[Outcome | None]


class Answered(Message, tag=2):
    """The whole answer to an `Asked`; see `Answer`."""

    number: int
    status: int
    fields: Fields
    body: bytes
    error: str


class Begun(Message, tag=3):
    """The head of an answer to an `Asked` that comes in pieces."""

    number: int
    status: int
    fields: Fields


class Piece(Message, tag=4):
    """A piece of such an answer; the next one comes when this one is `Taken`.

    Attributes:
        number: Of the question.
        body: The piece.
        more: Whether another one comes.
    """

    number: int
    body: bytes
    more: bool


class Cut(Message, tag=5):
    """The connection behind a question is to be ended at once."""

    number: int


class Reload(Message, tag=6):
    """Look at certificates and keys now."""


class Stop(Message, tag=7):
    """Take no more connections, let requests end, and leave."""


class KeysFetched(Message, tag=8):
    """The answer to a `KeysAsked`.

    Attributes:
        url: Whose.
        document: The key set.
        cause: What kind of fault there was; empty: none.
        error: What is wrong.
    """

    url: str
    document: bytes
    cause: str
    error: str


class Ready(Message, tag=0):
    """The first one of a worker: it takes connections."""


class Submitted(Message, tag=1):
    """Admitted heartbeats, to be recorded.

    Attributes:
        number: Counts them.
        arrivals: In the order in which they came.
    """

    number: int
    arrivals: list[Arrival]


class Asked(Message, tag=2):
    """What a reader asks.

    Attributes:
        number: Counts them.
        template: The operation's path.
        arguments: The parts of the path that stand for its braces.
        method: GET or HEAD.
        query: The query string.
        fields: The header fields.
    """

    number: int
    template: str
    arguments: tuple[str, ...]
    method: str
    query: bytes
    fields: Fields


class Taken(Message, tag=3):
    """A `Piece` has gone out."""

    number: int


class Left(Message, tag=4):
    """Whoever asked wants no more.

    Attributes:
        number: Of the question.
        gone: Whether the connection has ended; else the answer is to be ended properly.
    """

    number: int
    gone: bool


class Status(Message, tag=5):
    """How a worker is; four times a second.

    Attributes:
        connections: Those that are open, handshakes under way included.
        passed: Connections that it was passed so far.
        lag: How late its loop came, at worst, in the last 15 seconds; seconds.
        shedding: Whether it has turned somebody away, or told somebody to wait until now.
        checks: What must be true for it to be of use, by name.
        due: Seconds until the last of those whom it told to come back is due.
    """

    connections: int
    passed: int
    lag: float
    shedding: bool
    checks: dict[str, bool]
    due: float


class Counted(Message, tag=6):
    """What a worker has counted since the last time; see `ReceiverMetrics.take`.

    Attributes:
        refused: Heartbeats by slug and status.
        requests: Durations.
    """

    refused: list[tuple[tuple[str, int], int]]
    requests: list[tuple[RequestKey, Counts]]


class Logged(Message, tag=7):
    """What a worker has to log.

    Attributes:
        level: The level.
        logger: The logger's name.
        text: The text, with its traceback where there is one.
        extra: Fields of the record.
    """

    level: int
    logger: str
    text: str
    extra: dict[str, str]


class KeysAsked(Message, tag=8):
    """A key set is to be fetched.

    Attributes:
        url: From where.
    """

    url: str


ToWorker = Greeting | Decided | Answered | Begun | Piece | Cut | Reload | Stop | KeysFetched
FromWorker = Ready | Submitted | Asked | Taken | Left | Status | Counted | Logged | KeysAsked

TO_WORKER: Final = msgspec.msgpack.Decoder(ToWorker)
FROM_WORKER: Final = msgspec.msgpack.Decoder(FromWorker)


def pack_settings(settings: ReceiverSettings) -> bytes:
    """Return a configuration as bytes."""
    return msgspec.msgpack.encode(settings, enc_hook=str)


def unpack_settings(packed: bytes) -> ReceiverSettings:
    """Return the configuration that was packed."""
    return msgspec.msgpack.decode(packed, type=ReceiverSettings, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    assert kind is Path  # noqa: S101 - the only type of the settings that msgspec does not know
    return Path(value)
