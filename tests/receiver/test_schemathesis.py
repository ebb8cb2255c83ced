"""schemathesis over the OpenAPI document: whatever it makes up is answered as documented, and never with 5xx.

The same requests every time: a fixed seed and a bounded number for each operation and mode.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from openclaw_exporter.receiver.discovery.document import build_document
from openclaw_exporter.receiver.discovery.operations import BY_PATH, EVENTS, OPERATIONS
from openclaw_exporter.receiver.publishing import AVAILABILITY
from openclaw_exporter.wire.timestamps import format_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from receiver.scene import Node, Running

    from support.pki import Files

EXAMPLES = 30
DOCUMENT = build_document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
# Those that look at one answer, and send no requests of their own.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
READ = [operation.path for operation in OPERATIONS if operation.path not in (AVAILABILITY, EVENTS)]

repeatable = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def session(calm: Running, files: Files) -> requests.Session:
    """Return a client with a certificate."""
    client = requests.Session()
    client.trust_env = False
    client.verify = str(calm.pki.ca)
    client.cert = (str(files.certificate), str(files.key))
    return client


@pytest.fixture(scope="module")
def reader(calm: Running) -> Iterator[requests.Session]:
    for number in range(3):
        calm.node().beat(tags=["region:eu", f"swarm:{number}", "metrics:9464"], hostname=f"n{number}.example")
    with session(calm, calm.pki.reader()) as client:
        yield client


def operation(path: str) -> Any:
    return SCHEMA[path][BY_PATH[path].method]


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_what_is_read_is_answered_as_documented(
    calm: Running, reader: requests.Session, path: str, mode: GenerationMode
) -> None:
    if mode is GenerationMode.NEGATIVE and not BY_PATH[path].parameters:
        # There is nothing to get wrong.
        return

    @seed(1)
    @repeatable
    @given(case=operation(path).as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(base_url=calm.url, session=reader, verify=reader.verify)
        assert response.status_code < 500
        case.validate_response(response, checks=CHECKS)

    ask()


def test_known_nodes_are_shown_as_documented(calm: Running, reader: requests.Session) -> None:
    node = calm.node()
    node.beat()
    for path in ("/openclaw/nodes/{node_id}", "/openclaw/nodes/{node_id}/history"):
        case = operation(path).Case(path_parameters={"node_id": node.node_id})
        response = case.call(base_url=calm.url, session=reader, verify=reader.verify)
        assert response.status_code == 200
        case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_streams_begin_as_documented(calm: Running, reader: requests.Session, mode: GenerationMode) -> None:
    documented = DOCUMENT["paths"][EVENTS]["get"]["responses"]

    @seed(1)
    @repeatable
    @given(case=operation(EVENTS).as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        request = case.as_transport_kwargs(base_url=calm.url)
        with reader.request(**request, stream=True, verify=reader.verify, timeout=60) as response:
            described = documented[str(response.status_code)]
            assert response.headers["content-type"] in described["content"]
            assert response.status_code in (200, 400)

    ask()


@pytest.fixture
def sender(calm: Running) -> Node:
    return calm.node()


@pytest.fixture
def publisher(calm: Running, sender: Node) -> Iterator[requests.Session]:
    with session(calm, sender.files) as client:
        client.headers["Authorization"] = f"Bearer {sender.token}"
        yield client


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_heartbeats_are_answered_as_documented(
    calm: Running, sender: Node, publisher: requests.Session, mode: GenerationMode
) -> None:
    statuses: set[int] = set()
    sent_ms = int(time.time() * 1000)

    @seed(1)
    @repeatable
    @given(case=operation(AVAILABILITY).as_strategy(generation_mode=mode))
    def publish(case: Any) -> None:
        nonlocal sent_ms
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            sent_ms += 1
            # Whose certificate it is, and when it is, is no matter of form.
            case.body |= {"node_id": sender.node_id, "last_heartbeat": format_ms(sent_ms)}
            case.headers = {"Content-Type": "application/json"}
        response = case.call(base_url=calm.url, session=publisher, verify=publisher.verify)
        assert response.status_code < 500
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    publish()
    if mode is GenerationMode.POSITIVE:
        # Tags are limited in bytes, which JSON Schema cannot say.
        assert 200 in statuses
        assert statuses <= {200, 413, 422}
    else:
        assert not statuses & {200}
