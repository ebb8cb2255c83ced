"""What can be asked of the API, as data: the routes and the OpenAPI document are both made of this table."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from openclaw_exporter.receiver.discovery.capacity import Capacity
from openclaw_exporter.receiver.discovery.events import ALL_EVENTS, NodeEvent
from openclaw_exporter.receiver.discovery.targets import Target
from openclaw_exporter.receiver.liveness import STATES
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.query import DEFAULT_LIMIT, MAX_INTEGER, MAX_LIMIT, NodeView
from openclaw_exporter.wire.answers import Recorded
from openclaw_exporter.wire.fields import MAX_TAG_BYTES

NODES: Final = "/openclaw/nodes"
NODE: Final = "/openclaw/nodes/{node_id}"
HISTORY: Final = "/openclaw/nodes/{node_id}/history"
CAPACITY: Final = "/openclaw/capacity"
EVENTS: Final = "/openclaw/events"
TARGETS: Final = "/openclaw/prometheus-sd"
DOCUMENT: Final = "/openapi.json"


class NodePage(msgspec.Struct):
    """One page of nodes.

    Attributes:
        nodes: The nodes.
        next_cursor: The `cursor` of the next page; null where there is none. A page may have fewer nodes than
            `limit` and yet not be the last.
    """

    nodes: list[NodeView]
    next_cursor: str | None


class HistoryEntry(msgspec.Struct):
    """One arrival.

    Attributes:
        arrived_at: When it arrived, RFC 3339.
        last_heartbeat: The heartbeat's own time, RFC 3339.
        result: `recorded` or `history`.
        sequence: Its `OpenClaw-Sequence`, or null.
    """

    arrived_at: str
    last_heartbeat: str
    result: str
    sequence: str | None


class NodeHistory(msgspec.Struct):
    """What arrived from a node in the last hour, oldest first.

    Attributes:
        node_id: The node.
        history: The arrivals.
    """

    node_id: str
    history: list[HistoryEntry]


class Parameter(NamedTuple):
    """A query parameter, header field or part of the path.

    Attributes:
        name: Its name.
        description: What it does.
        schema: Its JSON Schema; of one value where it repeats.
        place: `query`, `path` or `header`.
        repeats: Whether it may be there more than once.
        required: Whether it must be there.
    """

    name: str
    description: str
    schema: dict[str, Any]
    place: str = "query"
    repeats: bool = False
    required: bool = False


class Operation(NamedTuple):
    """One thing that can be asked.

    Attributes:
        path: Its path; `{node_id}` stands for a node's.
        name: Its name in the document.
        summary: What it does.
        answer: The type of the body of a 200 answer; None: the document itself.
        method: GET or POST.
        parameters: What it takes.
        problems: The cases that it may be refused for, beside those of every call.
        media: The media type of a 200 answer.
    """

    path: str
    name: str
    summary: str
    answer: Any
    method: str = "GET"
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    media: str = "application/json"

    @property
    def repeated(self) -> tuple[str, ...]:
        """The query parameters that may repeat."""
        return tuple(one.name for one in self.parameters if one.repeats)

    @property
    def single(self) -> tuple[str, ...]:
        """The query parameters that may not."""
        return tuple(one.name for one in self.parameters if one.place == "query" and not one.repeats)


_TEXT: Final = {"type": "string"}
_TAG: Final = Parameter(
    "tag",
    f"Nodes that have this tag, of 1 to {MAX_TAG_BYTES} bytes; given again: and that one too",
    _TEXT,
    repeats=True,
)
_NODE_ID: Final = Parameter(
    "node_id", "The node", {"type": "string", "format": "uuid"}, place="path", required=True
)


def _header(name: str, description: str, *, pattern: str) -> Parameter:
    return Parameter(name, description, {"type": "string", "pattern": pattern}, place="header")


OPERATIONS: Final = (
    Operation(
        AVAILABILITY,
        "publish",
        "Publish one heartbeat of a node",
        Recorded,
        method="POST",
        parameters=(
            _header("OpenClaw-Interval", "Its configured interval, seconds", pattern="^[1-9][0-9]*$"),
            _header("OpenClaw-Sequence", "epoch.number: the node's own order", pattern=r"^[0-9]+\.[0-9]+$"),
            _header("OpenClaw-Replay", "A buffered heartbeat, delivered late", pattern="^1$"),
            _header("OpenClaw-State", "The node leaves on purpose", pattern="^draining$"),
        ),
        problems=(
            "malformed-json",
            "token-missing",
            "request-timeout",
            "key-conflict",
            "body-too-large",
            "media-type",
            "invalid-fields",
            "rate-limited",
            "store-unavailable",
        ),
    ),
    Operation(
        NODES,
        "listNodes",
        "A page of nodes by node_id, or the best by free slots",
        NodePage,
        parameters=(
            Parameter(
                "state",
                "Nodes in this state; given again: or in that one",
                {"type": "string", "enum": list(STATES)},
                repeats=True,
            ),
            _TAG,
            Parameter(
                "min_available_slots",
                "Live nodes that offer at least so many slots",
                {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
            ),
            Parameter(
                "limit",
                "At most so many",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
            Parameter("cursor", "The `next_cursor` of the page before; not beside `sort`", _TEXT),
            Parameter(
                "sort",
                "The most free slots first",
                {"type": "string", "enum": ["-available_slots"]},
            ),
        ),
        problems=("invalid-query",),
    ),
    Operation(NODE, "getNode", "One node", NodeView, parameters=(_NODE_ID,), problems=("node-unknown",)),
    Operation(
        HISTORY,
        "getHistory",
        "What arrived from a node in the last hour",
        NodeHistory,
        parameters=(_NODE_ID,),
        problems=("node-unknown", "store-unavailable"),
    ),
    Operation(
        CAPACITY,
        "getCapacity",
        "What the live nodes have together",
        Capacity,
        parameters=(_TAG,),
        problems=("invalid-query",),
    ),
    Operation(
        EVENTS,
        "streamEvents",
        "What happens to nodes, as server-sent events; the data of each is a NodeEvent",
        NodeEvent,
        parameters=(
            Parameter(
                "event",
                "Only these events; without it all but suspect, forgotten and updated",
                {"type": "string", "enum": list(ALL_EVENTS)},
                repeats=True,
            ),
            _TAG,
            Parameter("Last-Event-ID", "Go on behind this event", _TEXT, place="header"),
        ),
        problems=("invalid-query", "shedding"),
        media="text/event-stream",
    ),
    Operation(
        TARGETS,
        "listTargets",
        "Live nodes with a tag metrics:PORT, in the form of Prometheus' HTTP service discovery",
        list[Target],
        parameters=(_TAG,),
        problems=("invalid-query",),
    ),
    Operation(DOCUMENT, "getDocument", "This document", None),
)
BY_PATH: Final = {operation.path: operation for operation in OPERATIONS}
WHOLE: Final = frozenset(path for path in BY_PATH if "{" not in path)
"""The paths that are asked for as they stand here."""
