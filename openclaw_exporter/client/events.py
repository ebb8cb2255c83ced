"""Server-sent events, parsed: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.client.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_RETRY_SECONDS: Final = 3.0
MAX_LINE_BYTES: Final = 1 << 20
_MAX_RETRY_SECONDS: Final = 60.0


class NodeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a node.

    Attributes:
        event: `registered`, `late`, `suspect`, `expired`, `returned`, `draining`, `offline`, `forgotten` or
            `updated`; `gap` where events before it are lost: read the nodes again.
        at: When, by the receiver's clock; None of a gap.
        node: The node after it; None of a gap.
        last_event_id: Where to go on behind it.
    """

    event: str
    at: dt.datetime | None = None
    node: Node | None = None
    last_event_id: str = ""


class EventParser:
    """Parses one stream after the other.

    Attributes:
        last_event_id: Of the last event that was read whole.
        retry: Seconds to wait before coming back, as the stream asks.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry = DEFAULT_RETRY_SECONDS

    def parse(self, pieces: Iterable[bytes]) -> Iterator[NodeEvent]:
        """Yield the events of one stream; what is left of one at its end is no event.

        Raises:
            ValueError: An event is not what a registry tells.
        """
        data: list[bytes] = []
        name, event_id = b"", self.last_event_id
        for line in _lines(pieces):
            if not line:
                self.last_event_id = event_id
                if data:
                    told = msgspec.json.decode(b"\n".join(data), type=NodeEvent)
                    named = name.decode("utf-8", "replace") or told.event
                    yield msgspec.structs.replace(told, event=named, last_event_id=event_id)
                name, data = b"", []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == b"id" and b"\0" not in value:
                event_id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit():
                self.retry = min(int(value) / 1000, _MAX_RETRY_SECONDS)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines without their ends, which are LF, CRLF or CR."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        # A CR at the end may be half of a CRLF.
        held = b"\r" if text.endswith(b"\r") else b""
        *whole, last = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = last + held
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("a line without an end")
        yield from whole
