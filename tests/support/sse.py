"""Server-sent events as a browser reads them, over an httpx stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import httpx


@dataclass(frozen=True)
class Message:
    """One message; `last_id` is the stream's last event id when it came."""

    event: str
    data: dict[str, Any]
    last_id: str

    @property
    def node_id(self) -> str:
        name: str = self.data["node"]["node_id"]
        return name


class Events:
    """The messages of a stream, in the order in which they come."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        self.last_id = ""
        self.comments = 0
        self.retry_ms = 0
        self._messages = self._read(response.iter_lines())

    def __iter__(self) -> Iterator[Message]:
        return self._messages

    def take(self, count: int) -> list[Message]:
        """Return the next messages; the stream's own time-out ends a wait that is too long."""
        return [next(self._messages) for _ in range(count)]

    def _read(self, lines: Iterable[str]) -> Iterator[Message]:
        event, data = "message", ""
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield Message(event, json.loads(data), self.last_id)
                event, data = "message", ""
            elif not name:
                self.comments += 1
            elif name == "id":
                self.last_id = value
            elif name == "event":
                event = value
            elif name == "data":
                data += value
            elif name == "retry":
                self.retry_ms = int(value)
