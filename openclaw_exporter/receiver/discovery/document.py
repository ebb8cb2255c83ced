"""The OpenAPI 3.1 document of the API, made of the table of operations and the types that answer them."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import msgspec

from openclaw_exporter import __version__
from openclaw_exporter.errors import FieldProblem
from openclaw_exporter.receiver.discovery.capacity import Capacity
from openclaw_exporter.receiver.discovery.events import NodeEvent
from openclaw_exporter.receiver.discovery.operations import (
    OPERATIONS,
    HistoryEntry,
    NodeHistory,
    NodePage,
    Operation,
    Parameter,
)
from openclaw_exporter.receiver.discovery.targets import Target
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.query import NodeView
from openclaw_exporter.wire import fields
from openclaw_exporter.wire.answers import Recorded
from openclaw_exporter.wire.heartbeat import Heartbeat
from openclaw_exporter.wire.problems import CASES, CONTENT_TYPE, Problem

_REFERENCE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(name="Problem")}}}
_TYPES: Final = {
    known.__name__: known
    for known in (
        Capacity,
        FieldProblem,
        Heartbeat,
        HistoryEntry,
        NodeEvent,
        NodeHistory,
        NodePage,
        NodeView,
        Problem,
        Recorded,
        Target,
    )
}
_EVERYWHERE: Final = ("bad-request", "identity-missing", "headers-too-large", "internal-error")


def build_document() -> dict[str, Any]:
    """Return the document."""
    types = {operation.answer for operation in OPERATIONS if operation.answer is not None}
    ordered = sorted(types, key=str)
    schemas, components = msgspec.json.schema_components(
        [*ordered, Heartbeat, Problem], ref_template=_REFERENCE
    )
    for name, known in components.items():
        _describe(known, _TYPES[name].__doc__ or "")
    _describe_heartbeat(components)
    bodies = dict(zip(ordered, schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        body = {"type": "object"} if operation.answer is None else bodies[operation.answer]
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, body)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenClaw receiver",
            "version": __version__,
            "description": "Node certificates publish and never read; readers' read and never publish.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "certificate": {"type": "mutualTLS", "description": "A node's or a reader's certificate"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
        "security": [{"certificate": []}],
    }


def _operation(operation: Operation, body: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": _success(operation, body), **_refusals(operation)},
    }
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.path == AVAILABILITY:
        described["security"] = [{"certificate": [], "token": []}]
        heartbeat = {"$ref": _REFERENCE.format(name="Heartbeat")}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": heartbeat}}}
    return described


def _success(operation: Operation, body: dict[str, Any]) -> dict[str, Any]:
    # The schema of a stream would be that of its text; the summary names the type of an event's data.
    schema = {"type": "string"} if operation.media == "text/event-stream" else body
    return {"description": operation.summary, "content": {operation.media: {"schema": schema}}}


def _refusals(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for slug in (*_EVERYWHERE, "role-not-allowed", *operation.problems):
        by_status.setdefault(CASES[slug].status, []).append(f"`{slug}`: {CASES[slug].title}")
    return {
        str(status): {"description": "; ".join(cases), "content": _PROBLEM}
        for status, cases in sorted(by_status.items())
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = {"type": "array", "items": parameter.schema} if parameter.repeats else parameter.schema
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": schema,
    }
    if parameter.required:
        described["required"] = True
    return described


def _describe(schema: dict[str, Any], text: str) -> None:
    """Give a type's docstring to the type and to each of its properties."""
    head, *rest = re.split(r"\n\n(?:Attributes|Args):\n", inspect.cleandoc(text), maxsplit=1)
    attributes = "".join(rest)
    schema["description"] = " ".join(head.split())
    for name, words in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE):
        schema["properties"][name]["description"] = " ".join(words.replace("`", "").split())


def _describe_heartbeat(components: dict[str, Any]) -> None:
    """Say what the fields' own checks ask beyond their types."""
    properties = components["Heartbeat"]["properties"]
    properties["node_id"]["pattern"] = f"^{fields.UUID}$"
    properties["last_heartbeat"]["format"] = "date-time"
    properties["hostname"]["pattern"] = f"^{fields.HOST_NAME}$"
    count = {"type": "integer", "minimum": 0, "maximum": fields.MAX_INTEGER}
    properties["capacity"]["required"] = list(fields.REQUIRED_RESOURCES)
    properties["capacity"]["properties"] = dict.fromkeys(fields.REQUIRED_RESOURCES, count)
    properties["capacity"]["propertyNames"] = {"pattern": f"^{fields.RESOURCE}$"}
    properties["queue_depth"]["propertyNames"] = {"pattern": f"^{fields.TOPIC}$"}
    # Absent it may be, but not null.
    uptime = properties["uptime_seconds"]
    properties["uptime_seconds"] = {**count, "description": uptime["description"]}
    # Members that are not known are dropped, and are no error.
    del components["Heartbeat"]["additionalProperties"]
    components["NodeView"]["properties"]["heartbeat"] = {"$ref": _REFERENCE.format(name="Heartbeat")}
