"""The policies of payload signatures, over real TLS."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from receiver.scene import AVAILABILITY, Node, problem, receiver_settings, running

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.settings import IssuerSettings
from openclaw_exporter.wire.signatures import sign
from openclaw_exporter.wire.tokens import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Running

    from support.pki import Pki


@pytest.fixture(scope="module", params=["off", "verify", "require"])
def policy(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(scope="module")
def scene(pki: Pki, tmp_path_factory: pytest.TempPathFactory, policy: str) -> Iterator[Running]:
    """A receiver with the policy."""
    settings = receiver_settings(pki, tmp_path_factory.mktemp("signed"), tokens={"signatures": policy})
    with running(pki, settings) as started:
        yield started


def sent(node: Node, *, kid: str | None = None, created: float | None = None, **more: str) -> dict[str, Any]:
    """Return the arguments of a signed POST."""
    body = json.dumps(node.fields()).encode()
    fields = (
        node.headers | {"OpenClaw-Interval": "60"} | {name.replace("_", "-"): more[name] for name in more}
    )
    key = SigningKey.load(node.pki.token_key.read_bytes(), kid=kid or node.pki.key_id)
    at = int(time.time() if created is None else created)
    made = sign(fields, method="POST", path=AVAILABILITY, body=body, key=key, created=at)
    return {"content": body, "headers": fields | made}


def test_a_signed_heartbeat_is_recorded(scene: Running) -> None:
    node = scene.node()
    for _ in range(3):
        assert node.client.post(AVAILABILITY, **sent(node)).status_code == 200
    assert node.client.post(AVAILABILITY, **sent(node, OpenClaw_Replay="1")).json()["result"] == "history"


def test_one_without_a_signature(scene: Running, policy: str) -> None:
    node = scene.node()
    if policy == "require":
        assert problem(node.beat()) == (401, "signature-missing")
    else:
        assert node.beat().status_code == 200


def spoilt(node: Node) -> Iterator[dict[str, Any]]:
    """Yield requests that are signed and then changed."""
    for header, before, after in (
        ("OpenClaw-Interval", "60", "61"),
        ("Content-Digest", "=:", "=:AAAA"),
        ("Signature", "=:", "=:AAAA"),
        ("Signature-Input", "created=1", "created=2"),
    ):
        request = sent(node)
        request["headers"][header] = request["headers"][header].replace(before, after, 1)
        yield request
    request = sent(node)
    yield request | {"headers": request["headers"] | {"OpenClaw-State": "draining"}}
    request = sent(node)
    yield request | {"content": request["content"].replace(b'"available_slots": 5', b'"available_slots": 9')}
    request = sent(node)
    del request["headers"]["Signature"]
    yield request
    request = sent(node)
    # A token that is as good as the first, but another.
    yield request | {"headers": request["headers"] | {"Authorization": f"Bearer {node.mint(lifetime=60)}"}}
    yield sent(node, kid="another")
    yield sent(node, created=time.time() - 400)
    yield sent(node, created=time.time() + 100)


def test_one_that_was_changed_after_it_was_signed(scene: Running, policy: str) -> None:
    node = scene.node()
    for request in spoilt(node):
        response = node.client.post(AVAILABILITY, **request)
        if policy != "off":
            assert problem(response) == (401, "signature-invalid")
            assert response.headers["www-authenticate"].startswith("Bearer")
    if policy != "off":
        status = scene.reader().get(f"/openclaw/nodes/{node.node_id}").status_code
        assert status == 404


def test_signatures_cannot_be_required_of_tokens_that_nodes_do_not_mint(pki: Pki, tmp_path: Path) -> None:
    external = IssuerSettings(issuer="platform", audience=pki.audience, profile="external")
    tokens = {"issuers": (external,), "signatures": "require"}
    with pytest.raises(ConfigError, match=r"receiver\.tokens\.issuers\[0\]\.profile"):
        Receiver(receiver_settings(pki, tmp_path, tokens=tokens)).start()
