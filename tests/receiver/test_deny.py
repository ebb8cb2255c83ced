"""The deny list under a running receiver: who is turned away, when, and what becomes of their connections."""

from __future__ import annotations

import hashlib
import json
import logging
import ssl
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from receiver.raw import Raw, head
from receiver.scene import problem, receiver_settings, running

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.wire.certificates import Identity, PeerCertificate
from support.descriptors import none_left
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from support.pki import Pki

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
NOBODY = "# nobody\n"


@pytest.fixture
def deny(tmp_path: Path) -> Path:
    path = tmp_path / "denied"
    path.write_text(NOBODY)
    return path


@pytest.fixture
def strict(pki: Pki, tmp_path: Path, deny: Path) -> Iterator[Running]:
    """A receiver with a deny list."""
    with running(pki, receiver_settings(pki, tmp_path, tls={"deny_list": deny})) as scene:
        yield scene


def test_a_list_that_could_not_be_opened_is_read_again(deny: Path) -> None:
    known = DenyList(deny)
    known.open()
    replace(deny, f"{NODE}\n")
    with none_left():
        assert not known.reload()
        assert not known.reload()
    assert known.reload()
    assert len(known) == 1


def test_a_list_that_could_not_be_opened_at_the_start_is_read_later(deny: Path) -> None:
    known = DenyList(deny)
    with none_left():
        known.open(f"{NODE}\n".encode())
        assert len(known) == 1
        assert not known.reload()
    assert known.reload()
    assert len(known) == 0


def replace(path: Path, text: str) -> None:
    """Put another file in the place of one, as an operator should."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def beat(raw: Raw, node: Node) -> int | None:
    """Publish over a raw connection; return the status, or None where the connection has ended."""
    body = json.dumps(node.fields()).encode()
    raw.send(head(node, f"Content-Length: {len(body)}"), body)
    answer = raw.answer()
    return None if answer is None else answer.status


def answer(node: Node) -> tuple[int, str] | None:
    """Publish; None: the connection was closed just then."""
    try:
        response = node.beat()
    except httpx.TransportError:
        return None
    return (200, "") if response.status_code == 200 else problem(response)


def denied(node: Node) -> bool:
    return answer(node) == (403, "node-denied")


@pytest.mark.parametrize("by", ["node_id", "thumbprint", "fingerprint"])
def test_who_is_put_on_the_list_is_refused_and_disconnected(
    strict: Running, deny: Path, pki: Pki, by: str
) -> None:
    node, other = strict.node(), strict.node()
    der = ssl.PEM_cert_to_DER_cert(node.files.certificate.read_text())
    pairs = ":".join(f"{byte:02X}" for byte in hashlib.sha256(der).digest())
    entry = {"node_id": node.node_id, "thumbprint": node.thumbprint, "fingerprint": pairs}[by]
    with Raw(strict, node.files) as mine, Raw(strict, other.files) as theirs:
        assert (beat(mine, node), beat(theirs, other)) == (200, 200)
        replace(deny, f"# stolen\n{entry}  # in March\n")
        assert mine.is_closed()
        assert denied(node)
        # The others' connections go on.
        assert beat(theirs, other) == 200
        replace(deny, NOBODY)
        wait_until(lambda: answer(node) == (200, ""), what="the end of the denial")
        assert beat(theirs, other) == 200
    assert strict.samples()[
        'openclaw_registry_heartbeat_refused_total{error_type="node-denied",http_response_status_code="403"}'
    ]


def test_a_node_that_is_denied_may_come_with_a_new_certificate_if_only_the_old_one_is(
    strict: Running, deny: Path, pki: Pki
) -> None:
    node = strict.node()
    replace(deny, f"{node.thumbprint}\n")
    wait_until(lambda: denied(node), what="the denial")
    node.files = pki.node(node.node_id)
    node.client = strict.client(node.files)
    node.token = node.mint()
    assert node.beat().status_code == 200
    replace(deny, f"{node.node_id.upper()}\n")
    wait_until(lambda: denied(node), what="the denial of every certificate")


def test_a_reader_is_denied_by_its_thumbprint(strict: Running, deny: Path, pki: Pki) -> None:
    files = pki.reader("denied")
    reader = strict.client(files)
    assert reader.get("/openclaw/nodes").status_code == 200
    der = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
    replace(deny, f"{hashlib.sha256(der).hexdigest()}\n")
    wait_until(lambda: refused(reader), what="the denial")


def refused(reader: httpx.Client) -> bool:
    try:
        response = reader.get("/openclaw/nodes")
    except httpx.TransportError:
        return False
    return response.status_code == 403 and problem(response) == (403, "node-denied")


def test_a_torn_file_leaves_the_last_good_list_in_force_and_says_so(
    strict: Running, deny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = strict.node()
    replace(deny, f"{node.node_id}\n")
    wait_until(lambda: denied(node), what="the denial")
    for torn, why in (("", "is empty"), ("# nobody", "no end"), (f"{NODE[:20]}\n", "line 1")):
        replace(deny, torn)
        wait_until(lambda why=why: why in caplog.text, what=f"a line that says: {why}")
        assert denied(node)
    deny.unlink()
    wait_until(lambda: "cannot be read" in caplog.text, what="a line on the missing file")
    assert denied(node)
    replace(deny, NOBODY)
    wait_until(lambda: answer(node) == (200, ""), what="the end of the denial")
    assert "the deny list can be used again" in caplog.text
    assert node.node_id not in caplog.text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"# nobody", "no end"),
        (b"everybody\n", "line 1 is neither"),
        (f"{NODE}\n{NODE[:-1]}\n".encode(), "line 2 is neither"),
        (f"{NODE} {NODE}\n".encode(), "line 1 is neither"),
        (b"\xff\xfe\n", "line 1 is neither"),
        (b"#" * ((16 << 20) + 1), "over 16777216 bytes"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_at_the_start(
    pki: Pki, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "denied"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialError, match=why) as caught:
        Receiver(receiver_settings(pki, tmp_path, tls={"deny_list": path})).start()
    assert str(path) in str(caught.value)
    assert "receiver.tls.deny_list" in str(caught.value)


def test_the_forms_of_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "denied"
    digest = hashlib.sha256(b"certificate").digest()
    path.write_text(f"\n  {digest.hex().upper()}\n\t{NODE}#comment\n#{NODE}\r\n")
    deny = DenyList(path)
    deny.open()
    assert len(deny) == 2
    peer = PeerCertificate(Identity("node", NODE), "", 0, 0)
    assert deny.holds(peer)
    # A reader may bear a node's name; it is not that node.
    assert not deny.holds(msgspec.structs.replace(peer, identity=Identity("reader", NODE)))
    assert not deny.reload()
    assert not DenyList(None).holds(peer)
    assert not DenyList(None).reload()
