"""Real HAProxy and nginx in front of a real receiver, and forty ways to pass for somebody else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from receiver.raw import Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.wire.client_cert import client_cert
from support.nodes import mutual_tls_client
from support.sse import Events
from support.tls_proxies import TRUSTED, HAProxy, Nginx, TlsProxy
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from receiver.raw import Front
    from receiver.scene import Node, Running

    from support.pki import Pki

PROXIES: dict[str, type[TlsProxy]] = {"haproxy": HAProxy, "nginx": Nginx}


@pytest.fixture(scope="module")
def receiver(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A receiver that believes the proxies."""
    directory = tmp_path_factory.mktemp("receiver")
    with running(pki, receiver_settings(pki, directory, proxy=TRUSTED)) as scene:
        yield scene


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, receiver: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsProxy]:
    """A proxy in front of it."""
    directory = tmp_path_factory.mktemp("proxies") / request.param
    with PROXIES[request.param](directory, receiver.pki, receiver.port) as started:
        yield started


@pytest.fixture(scope="module", params=["direct", *PROXIES])
def front(
    request: pytest.FixtureRequest, receiver: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """What clients connect to: the receiver itself, or a proxy."""
    if request.param == "direct":
        yield receiver
        return
    directory = tmp_path_factory.mktemp("fronts") / request.param
    with PROXIES[request.param](directory, receiver.pki, receiver.port) as started:
        yield started


def through(proxy: TlsProxy, node: Node) -> Node:
    node.client = mutual_tls_client(proxy.pki.ca, node.files, base_url=proxy.url)
    return node


def test_nodes_publish_and_readers_read_through_it(receiver: Running, proxy: TlsProxy) -> None:
    nodes = [through(proxy, receiver.node()) for _ in range(5)]
    for node in [*nodes, *nodes]:
        assert node.beat().json()["result"] == "recorded"
    with mutual_tls_client(proxy.pki.ca, proxy.pki.reader(), base_url=proxy.url) as reader:
        for node in nodes:
            shown = reader.get(f"/openclaw/nodes/{node.node_id}")
            assert (shown.status_code, shown.json()["state"]) == (200, "up")
    # What the receiver refuses arrives as it said it.
    assert nodes[0].post(b"{").json()["type"] == "urn:openclaw:problem:malformed-json"
    assert nodes[0].post(b"x" * 20_000).json()["type"] == "urn:openclaw:problem:body-too-large"
    assert nodes[0].beat(node_id=nodes[1].node_id).json()["type"] == "urn:openclaw:problem:identity-mismatch"
    for node in nodes:
        node.client.close()


def test_events_come_through_it_at_once(receiver: Running, proxy: TlsProxy) -> None:
    node = through(proxy, receiver.node())
    with (
        mutual_tls_client(proxy.pki.ca, proxy.pki.reader(), base_url=proxy.url) as reader,
        reader.stream("GET", "/openclaw/events", timeout=60) as response,
    ):
        events = Events(response)
        assert node.beat().status_code == 200
        (told,) = events.take(1)
    assert (told.event, told.node_id) == ("registered", node.node_id)
    node.client.close()


def test_a_client_without_a_certificate_gets_nowhere(receiver: Running, proxy: TlsProxy) -> None:
    context = ssl.create_default_context(cafile=str(proxy.pki.ca))
    node = receiver.node()
    lines = f"Client-Cert: {client_cert(der_of(node))}"
    body = json.dumps(node.fields()).encode()
    answer = None
    with contextlib.suppress(OSError), Anonymous(proxy, context) as raw:
        raw.send(head(node, lines, f"Content-Length: {len(body)}"), body)
        answer = raw.answer()
    assert answer is None or answer.status == 400
    assert not is_known(receiver, node)


class Anonymous(Raw):
    """A connection that shows no certificate."""

    def __init__(self, proxy: TlsProxy, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self._received = b""


def der_of(node: Node) -> bytes:
    return ssl.PEM_cert_to_DER_cert(node.files.certificate.read_text())


def is_known(receiver: Running, node: Node) -> bool:
    status = receiver.reader().get(f"/openclaw/nodes/{node.node_id}").status_code
    assert status in (200, 404)
    return status == 200


def _lines(*lines: str) -> Callable[[str, str], list[str]]:
    """Return what makes header lines of the victim's `Client-Cert` and PEM."""
    return lambda field, pem: [line.replace("VALUE", field).replace("PEM", pem) for line in lines]


SPOOFS: dict[str, Callable[[str, str], list[str]]] = {
    "as the proxy writes it": _lines("Client-Cert: VALUE"),
    "lower case": _lines("client-cert: VALUE"),
    "upper case": _lines("CLIENT-CERT: VALUE"),
    "mixed case": _lines("cLiEnT-cErT: VALUE"),
    "twice": _lines("Client-Cert: VALUE", "Client-Cert: VALUE"),
    "twice in two cases": _lines("client-cert: VALUE", "Client-CERT: VALUE"),
    "an empty one first": _lines("Client-Cert:", "Client-Cert: VALUE"),
    "an empty one last": _lines("Client-Cert: VALUE", "Client-Cert:"),
    "a list": _lines("Client-Cert: VALUE, VALUE"),
    "a list with an open end": _lines("Client-Cert: VALUE,"),
    "with a parameter": _lines("Client-Cert: VALUE;a=1"),
    "spaces around": _lines("Client-Cert:    VALUE   "),
    "tabs around": _lines("Client-Cert:\tVALUE\t"),
    "no space": _lines("Client-Cert:VALUE"),
    "space before the colon": _lines("Client-Cert : VALUE"),
    "tab before the colon": _lines("Client-Cert\t: VALUE"),
    "a space before the name": _lines(" Client-Cert: VALUE"),
    "folded": _lines("Client-Cert:", " VALUE"),
    "folded behind another": _lines("X-Other: a", " Client-Cert: VALUE"),
    "underscore": _lines("Client_Cert: VALUE"),
    "underscore and true": _lines("Client_Cert: VALUE", "Client-Cert: VALUE"),
    "a dot": _lines("Client.Cert: VALUE"),
    "a NUL in the name": _lines("Client-Cert\0: VALUE"),
    "a NUL in the value": _lines("Client-Cert: VALUE\0"),
    "a bare CR before": _lines("X-Other: a\rClient-Cert: VALUE"),
    "a bare LF before": _lines("X-Other: a\nClient-Cert: VALUE"),
    "not ASCII": _lines("Client-Cert\N{LATIN SMALL LETTER SHARP S}: VALUE"),
    "as PEM": _lines("Client-Cert: PEM"),
    "X-": _lines("X-Client-Cert: VALUE"),
    "Envoy's": _lines('X-Forwarded-Client-Cert: Cert="PEM"'),
    "nginx's": _lines("X-SSL-Client-Cert: PEM", "SSL-Client-Cert: PEM", "X-SSL-CERT: PEM"),
    "Traefik's": _lines("X-Forwarded-Tls-Client-Cert: PEM"),
    "AWS's": _lines("X-Amzn-Mtls-Clientcert-Leaf: PEM", "X-Amzn-Mtls-Clientcert: PEM"),
    "Forwarded": _lines('Forwarded: for=127.0.0.1;proto=https;client-cert="VALUE"'),
    "its own chain": _lines("Client-Cert-Chain: VALUE"),
    "certificate and chain": _lines("Client-Cert: VALUE", "Client-Cert-Chain: VALUE"),
    "as a hop's own header": _lines("Connection: keep-alive, Client-Cert", "Client-Cert: VALUE"),
    "hop's own, first": _lines("Client-Cert: VALUE", "Connection: Client-Cert"),
    "from a proxy's address": _lines(
        "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Client-Cert: VALUE"
    ),
    "a name that says who": _lines(
        "X-SSL-Client-S-DN: edge", "X-SSL-Client-Verify: SUCCESS", "Client-Cert: VALUE"
    ),
    "behind many headers": _lines(*(f"X-{number}: a" for number in range(60)), "Client-Cert: VALUE"),
}


def test_there_are_forty() -> None:
    assert len(SPOOFS) >= 40


@pytest.mark.parametrize("how", SPOOFS)
def test_no_header_makes_somebody_else_of_a_client(receiver: Running, front: Front, how: str) -> None:
    victim, attacker = receiver.node(), receiver.node()
    pem = quote(victim.files.certificate.read_text(), safe="")
    lines = SPOOFS[how](client_cert(der_of(victim)), pem)
    # The attacker has the key that mints tokens, so that it has every node's token.
    for token in (victim.token, attacker.mint(subject=victim.node_id)):
        victim.token = token
        body = json.dumps(victim.fields()).encode()
        with Raw(front, attacker.files) as raw:
            raw.send(_head(victim, len(body), lines), body)
            answer = raw.answer()
        assert answer is None or answer.status in (400, 401, 403, 431, 501), answer
    assert not is_known(receiver, victim)
    # Beside its own token the header is either harmless or no HTTP: the attacker is never anybody but itself.
    body = json.dumps(attacker.fields()).encode()
    with Raw(front, attacker.files) as raw:
        raw.send(_head(attacker, len(body), lines), body)
        answer = raw.answer()
    assert answer is None or answer.status in (200, 400, 431, 501), answer
    assert not is_known(receiver, victim)


def _head(node: Node, length: int, lines: list[str]) -> bytes:
    first = head(node, f"Content-Length: {length}").removesuffix(b"\r\n\r\n")
    return b"\r\n".join([first, *(line.encode() for line in lines), b"", b""])


def test_a_second_request_and_a_trailer_bring_no_certificate_either(receiver: Running, front: Front) -> None:
    victim, attacker = receiver.node(), receiver.node()
    field = f"Client-Cert: {client_cert(der_of(victim))}"
    mine, theirs = (json.dumps(node.fields()).encode() for node in (attacker, victim))
    chunked = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(mine), mine, field.encode())
    with Raw(front, attacker.files) as raw:
        raw.send(head(attacker, "Transfer-Encoding: chunked", f"Trailer: {field[:11]}"), chunked)
        raw.send(head(victim, field, f"Content-Length: {len(theirs)}"), theirs)
        first, second = raw.answer(), raw.answer()
    assert first is None or first.status in (200, 400)
    assert second is None or second.status in (400, 401, 403)
    assert not is_known(receiver, victim)


def test_a_proxy_takes_up_with_a_receiver_that_was_away(
    pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("restarted")
    settings = receiver_settings(pki, directory, proxy=TRUSTED)
    with running(pki, settings) as first:
        port = first.port
        proxy = HAProxy(directory / "proxy", pki, port)
        with proxy:
            node = through(proxy, first.node())
            assert node.beat().status_code == 200
            first.receiver.stop()
            assert node.beat().status_code == 503
            with running(pki, dataclasses.replace(settings, port=port)):
                wait_until(lambda: node.beat().status_code == 200, what="the receiver's return")
            node.client.close()
