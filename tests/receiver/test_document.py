"""GET /openapi.json: every route is in it, and what it says of each is true."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest
from receiver.scene import problem

from openclaw_exporter.receiver.discovery.document import build_document
from openclaw_exporter.receiver.discovery.events import Hub
from openclaw_exporter.receiver.discovery.operations import OPERATIONS
from openclaw_exporter.receiver.discovery.reading import Reading, find_operation
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.receiver.settings import DiscoverySettings
from openclaw_exporter.receiver.store import Store
from openclaw_exporter.wire.problems import CASES

if TYPE_CHECKING:
    from receiver.scene import Running

    from openclaw_exporter.receiver.discovery.operations import Operation


def test_every_route_is_documented_and_every_documented_route_is_there(calm: Running) -> None:
    document = calm.reader().get("/openapi.json").json()
    assert document == build_document()
    assert document["openapi"].startswith("3.1.")
    reading = Reading(mock.create_autospec(Store), Hub(100), DiscoverySettings())
    assert set(document["paths"]) == {AVAILABILITY, *reading.handlers}
    for operation in OPERATIONS:
        path = operation.path.replace("{node_id}", "00000000-0000-0000-0000-000000000000")
        assert find_operation(path)[0] == operation.path
        described = document["paths"][operation.path][operation.method.lower()]
        assert "200" in described["responses"]
        assert len(described["responses"]) > 3


def test_every_reference_leads_somewhere_and_every_property_is_described() -> None:
    document = build_document()
    schemas = document["components"]["schemas"]

    def look(value: object) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if reference is not None:
                assert reference.rpartition("/")[2] in schemas
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(document)
    for name, schema in schemas.items():
        assert schema["description"], name
        for key, inner in schema["properties"].items():
            assert inner.get("description") or "$ref" in inner, (name, key)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_a_wrong_method_and_a_wrong_role_are_refused_everywhere(calm: Running, operation: Operation) -> None:
    path = operation.path.replace("{node_id}", "00000000-0000-0000-0000-000000000000")
    reader, node = calm.reader(), calm.node()
    assert problem(reader.request("DELETE", path)) == (405, "method-not-allowed")
    if operation.method == "GET":
        assert problem(node.client.get(path)) == (403, "role-not-allowed")
    else:
        refused = reader.post(path, content=b"{}", headers=node.headers)
        assert problem(refused) == (403, "role-not-allowed")


def test_every_case_that_is_named_exists() -> None:
    for operation in OPERATIONS:
        assert set(operation.problems) <= set(CASES)
