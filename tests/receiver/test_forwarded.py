"""Behind a proxy that ends TLS: what a trusted peer forwards counts, and nothing else does."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from jwt.algorithms import ECAlgorithm
from receiver.issuing import issue
from receiver.raw import Raw, head
from receiver.scene import receiver_settings, running

from openclaw_exporter.cli.authority import Authority, node_uri, proxy_uri, reader_uri
from openclaw_exporter.receiver import trust
from openclaw_exporter.receiver.authorities import Authorities
from openclaw_exporter.receiver.discovery import streaming
from openclaw_exporter.receiver.settings import ProxySettings
from openclaw_exporter.wire.certificates import identify_proxy, thumbprint
from openclaw_exporter.wire.client_cert import client_cert
from openclaw_exporter.wire.tokens import Verifier
from support.pki import TRUST_DOMAIN, Pki
from support.tls_proxies import TRUSTED
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.raw import RawAnswer
    from receiver.scene import Node, Running


@pytest.fixture
def behind(pki: Pki, tmp_path: Path) -> Iterator[Running]:
    """A receiver that believes the proxy `edge`."""
    with running(pki, receiver_settings(pki, tmp_path, proxy=TRUSTED)) as scene:
        yield scene


def field(der: bytes) -> str:
    return f"Client-Cert: {client_cert(der)}"


def der_of(node: Node) -> bytes:
    return ssl.PEM_cert_to_DER_cert(node.files.certificate.read_text())


def publish(raw: Raw, node: Node, *lines: str) -> tuple[int, str]:
    """Publish with these lines in the head; return the status and the result or problem."""
    body = json.dumps(node.fields()).encode()
    raw.send(head(node, f"Content-Length: {len(body)}", *lines), body)
    return said(raw.answer())


def said(answer: RawAnswer | None) -> tuple[int, str]:
    assert answer is not None
    document = json.loads(answer.body)
    return answer.status, document.get("result") or document["type"].rpartition(":")[2]


def edge(scene: Running) -> Raw:
    return Raw(scene, scene.pki.proxy())


def test_many_nodes_share_one_connection_and_each_request_is_its_own_nodes(behind: Running) -> None:
    nodes = [behind.node() for _ in range(5)]
    with edge(behind) as raw:
        for node in [*nodes, *reversed(nodes)]:
            assert publish(raw, node, field(der_of(node))) == (200, "recorded")
        # The token of one with the certificate of another.
        assert publish(raw, nodes[0], field(der_of(nodes[1]))) == (401, "token-binding")
        thief = nodes[0]
        thief.token = thief.mint(subject=nodes[1].node_id)
        assert publish(raw, thief, field(der_of(thief))) == (403, "identity-mismatch")
        assert publish(raw, nodes[2], field(der_of(nodes[2]))) == (200, "recorded")


def test_a_token_is_verified_once_with_each_certificate(
    behind: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    original = Verifier.verify

    def counting(self: Verifier, token: bytes | str, **arguments: Any) -> Any:
        verified.append(arguments["thumbprint"])
        return original(self, token, **arguments)

    monkeypatch.setattr(Verifier, "verify", counting)
    one, other = behind.node(), behind.node()
    with edge(behind) as first, edge(behind) as second:
        for raw in (first, second):
            for node in (one, other, one, other):
                assert publish(raw, node, field(der_of(node)))[0] == 200
    assert sorted(verified) == sorted([one.thumbprint, other.thumbprint])
    one.token = one.mint(lifetime=300)
    with edge(behind) as raw:
        assert publish(raw, one, field(der_of(one)))[0] == 200
    assert verified[2:] == [one.thumbprint]


def test_a_reader_is_forwarded_as_well_and_roles_are_kept_apart(behind: Running, pki: Pki) -> None:
    node = behind.node()
    reader = ssl.PEM_cert_to_DER_cert(pki.reader().certificate.read_text())
    with edge(behind) as raw:
        assert publish(raw, node, field(der_of(node)))[0] == 200
        path = f"/openclaw/nodes/{node.node_id}"
        raw.send(head(node, field(reader), method="GET", path=path))
        answer = raw.answer()
        assert answer is not None
        assert answer.status == 200
        raw.send(head(node, field(der_of(node)), method="GET", path=path))
        assert said(raw.answer()) == (403, "role-not-allowed")
        assert publish(raw, node, field(reader)) == (403, "role-not-allowed")
        # The proxy itself is neither.
        assert publish(raw, node) == (403, "identity-missing")
        raw.send(head(node, method="GET", path=path))
        assert said(raw.answer()) == (403, "identity-missing")


def test_what_cannot_be_the_certificate_of_one_client_is_refused(behind: Running, pki: Pki) -> None:
    node, other = behind.node(), behind.node()
    stranger = Authority.create().client([node_uri(TRUST_DOMAIN, node.node_id)])
    server = pki.authority.server(["localhost"])
    nameless = pki.authority.client([node_uri("other.example", node.node_id)])
    expired = pki.authority.client([node_uri(TRUST_DOMAIN, node.node_id)], lifetime=dt.timedelta(seconds=-60))
    proxy = ssl.PEM_cert_to_DER_cert(pki.proxy().certificate.read_text())
    cases = {
        "identity-forwarded": [
            ["Client-Cert: "],
            ["Client-Cert: nonsense"],
            [f"{field(der_of(node))};a=1"],
            [field(der_of(node)), field(der_of(node))],
            [field(der_of(node)), field(der_of(other))],
            [field(der_of(node)), "Client-Cert-Chain: nonsense"],
            [field(der_of(node)), f"Client-Cert-Chain: {client_cert(b'no certificate')}"],
            [field(stranger.certificate.public_bytes(Encoding.DER))],
            [field(expired.certificate.public_bytes(Encoding.DER))],
        ],
        "identity-certificate": [
            ["Client-Cert: :AAAA:"],
            [field(der_of(node)[:-1])],
            [field(der_of(node) + b"\0")],
        ],
        "identity-authority": [[field(pki.authority.issued.certificate.public_bytes(Encoding.DER))]],
        "identity-usage": [[field(server.certificate.public_bytes(Encoding.DER))]],
        "identity-name": [[field(nameless.certificate.public_bytes(Encoding.DER))], [field(proxy)]],
    }
    with edge(behind) as raw:
        for slug, requests in cases.items():
            for lines in requests:
                assert publish(raw, node, *lines) == (403, slug), lines
        # Nothing of that has spoilt the connection.
        assert publish(raw, node, field(der_of(node))) == (200, "recorded")


def test_the_same_headers_of_anybody_else_have_no_effect(behind: Running, pki: Pki) -> None:
    victim = behind.node()
    for name in ("edge-2", "Edge", "edge.", "edg"):
        with Raw(behind, pki.proxy(name)) as raw:
            assert publish(raw, victim, field(der_of(victim))) == (403, "identity-name")
    attacker = behind.node()
    with Raw(behind, attacker.files) as raw:
        assert publish(raw, attacker, field(der_of(victim))) == (200, "recorded")
        assert publish(raw, victim, field(der_of(victim))) == (401, "token-binding")
    with Raw(behind, pki.reader()) as raw:
        assert publish(raw, victim, field(der_of(victim))) == (403, "role-not-allowed")


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), (200, "recorded")),
        (("127.0.0.0/8",), (200, "recorded")),
        (("10.0.0.0/8", "2001:db8::/32"), (403, "identity-name")),
    ],
)
def test_a_proxy_is_believed_from_its_own_addresses(
    pki: Pki, tmp_path: Path, addresses: tuple[str, ...], expected: tuple[int, str]
) -> None:
    proxy = ProxySettings(names=TRUSTED.names, addresses=addresses)
    with running(pki, receiver_settings(pki, tmp_path, proxy=proxy, host="::")) as scene:
        node = scene.node()
        with edge(scene) as raw:
            assert publish(raw, node, field(der_of(node))) == expected


def test_without_the_table_nobody_forwards(scene: Running) -> None:
    node = scene.node()
    with edge(scene) as raw:
        assert publish(raw, node, field(der_of(node))) == (403, "identity-name")


def test_the_deny_list_reaches_through_a_proxy_whose_connection_goes_on(pki: Pki, tmp_path: Path) -> None:
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    settings = receiver_settings(pki, tmp_path, proxy=TRUSTED, tls={"deny_list": deny})
    with running(pki, settings) as behind:
        node, other, proxy = behind.node(), behind.node(), pki.proxy()
        with Raw(behind, proxy) as raw:
            for one in (node, other):
                assert publish(raw, one, field(der_of(one))) == (200, "recorded")
            deny.write_text(f"{node.node_id}\n")
            wait_until(
                lambda: publish(raw, node, field(der_of(node))) == (403, "node-denied"),
                what="the denial",
            )
            assert publish(raw, other, field(der_of(other))) == (200, "recorded")
            deny.write_text(f"{thumbprint(ssl.PEM_cert_to_DER_cert(proxy.certificate.read_text()))}\n")
            assert raw.is_closed()
            with Raw(behind, proxy) as again:
                assert publish(again, other, field(der_of(other))) == (403, "node-denied")


def test_a_forwarded_readers_stream_ends_with_its_right_to_read(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.2)
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    settings = receiver_settings(pki, tmp_path, proxy=TRUSTED, tls={"deny_list": deny})
    with running(pki, settings) as behind, edge(behind) as raw:
        node = behind.node()
        reader = ssl.PEM_cert_to_DER_cert(pki.reader("leaving").certificate.read_text())
        raw.send(head(node, field(reader), method="GET", path="/openclaw/events"))
        text = b""
        while b": keep-alive" not in text:
            text += raw.socket.recv(4096)
        assert text.startswith(b"HTTP/1.1 200")
        deny.write_text(f"{thumbprint(reader)}\n")
        raw.socket.settimeout(60)
        while not text.endswith(b"\r\n0\r\n\r\n"):
            piece = raw.socket.recv(4096)
            assert piece, "the connection was closed"
            text += piece
        # The proxy's connection serves others.
        assert publish(raw, node, field(der_of(node))) == (200, "recorded")


def test_changes_that_concern_others_verify_nobody_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pki").mkdir()
    pki = Pki(tmp_path / "pki")
    verified: list[str] = []
    token, chain = Verifier.verify, Authorities.verify
    monkeypatch.setattr(
        Verifier, "verify", lambda *given, **named: verified.append("t") or token(*given, **named)
    )
    monkeypatch.setattr(Authorities, "verify", lambda *given: verified.append("c") or chain(*given))
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    settings = receiver_settings(pki, tmp_path, proxy=TRUSTED, tls={"deny_list": deny})
    with running(pki, settings) as behind:
        node, other, direct = behind.node(), behind.node(), behind.node()
        with edge(behind) as raw, Raw(behind, direct.files) as own:

            def beat() -> None:
                assert publish(raw, node, field(der_of(node))) == (200, "recorded")
                assert publish(own, direct) == (200, "recorded")

            beat()
            assert sorted(verified) == ["c", "t", "t"]
            deny.write_text(f"{other.node_id}\n")
            denied = (403, "node-denied")
            wait_until(lambda: publish(raw, other, field(der_of(other))) == denied, what="the denial")
            seen = len(verified)
            beat()
            assert len(verified) == seen
            # Another key beside the one that is used.
            document = json.loads(pki.jwks.read_bytes())
            fresh = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
            document["keys"].append(fresh | {"kid": "fresh", "alg": "ES256", "use": "sig"})
            pki.jwks.write_text(json.dumps(document))
            stranger = behind.node()
            stranger.token = stranger.mint(kid="fresh")
            changed = (401, "token-signature")
            wait_until(
                lambda: publish(raw, stranger, field(der_of(stranger))) == changed, what="the second key"
            )
            seen = len(verified)
            beat()
            assert len(verified) == seen


def test_another_authority_counts_for_forwarded_certificates_too(tmp_path: Path, pki: Pki) -> None:
    directory = tmp_path / "other"
    directory.mkdir()
    other = Pki(directory)
    ca = tmp_path / "clients.pem"
    ca.write_bytes(pki.ca.read_bytes() + other.ca.read_bytes())
    with running(pki, receiver_settings(pki, tmp_path, proxy=TRUSTED, tls={"ca": ca})) as scene:
        node = scene.node()
        files = other.proxy()
        with Raw(scene, files) as raw:
            assert publish(raw, node, field(der_of(node))) == (200, "recorded")
            ca.write_bytes(other.ca.read_bytes())
            assert raw.is_closed()
        with Raw(scene, files) as raw:
            assert publish(raw, node, field(der_of(node))) == (403, "identity-forwarded")


def test_intermediates_are_taken_from_the_chain_and_verified(pki: Pki, tmp_path: Path) -> None:
    root, root_key = issue("root", signer=None, ca=True)
    middle, middle_key = issue(
        "middle", signer=(root.subject, root_key), ca=True, lifetime=dt.timedelta(minutes=9)
    )
    no_authority, wrong_key = issue("no authority", signer=(root.subject, root_key), ca=False)
    ca = tmp_path / "clients.pem"
    ca.write_bytes(pki.ca.read_bytes() + root.public_bytes(Encoding.PEM))
    with running(pki, receiver_settings(pki, tmp_path, proxy=TRUSTED, tls={"ca": ca})) as scene:
        node = scene.node()
        uri = node_uri(TRUST_DOMAIN, node.node_id)
        leaf, _ = issue("leaf", signer=(middle.subject, middle_key), ca=False, uri=uri)
        wrong, _ = issue("leaf", signer=(no_authority.subject, wrong_key), ca=False, uri=uri)
        between = client_cert(middle.public_bytes(Encoding.DER))
        others = client_cert(no_authority.public_bytes(Encoding.DER))
        node.files.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        node.token = node.mint()
        with edge(scene) as raw:
            assert publish(raw, node, field(der_of(node))) == (403, "identity-forwarded")
            for chain in (between, f"{others}, {between}"):
                lines = (field(der_of(node)), f"Client-Cert-Chain: {chain}")
                assert publish(raw, node, *lines) == (200, "recorded")
            lines = (field(wrong.public_bytes(Encoding.DER)), f"Client-Cert-Chain: {others}")
            assert publish(raw, node, *lines) == (403, "identity-forwarded")
            # An authority of servers is none of clients, as in a handshake.
            servers, servers_key = issue(
                "servers",
                signer=(root.subject, root_key),
                ca=True,
                usages=[x509.ExtendedKeyUsageOID.SERVER_AUTH],
            )
            theirs, _ = issue("leaf", signer=(servers.subject, servers_key), ca=False, uri=uri)
            chain = client_cert(servers.public_bytes(Encoding.DER))
            lines = (field(theirs.public_bytes(Encoding.DER)), f"Client-Cert-Chain: {chain}")
            assert publish(raw, node, *lines) == (403, "identity-forwarded")


def test_a_certificate_ends_although_its_token_goes_on(
    behind: Running, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = behind.node(lifetime=dt.timedelta(hours=1))
    ahead = 0.0

    class Clock:
        @staticmethod
        def time() -> float:
            return time.time() + ahead

    with edge(behind) as raw:
        assert publish(raw, node, field(der_of(node))) == (200, "recorded")
        monkeypatch.setattr(trust, "time", Clock)
        assert publish(raw, node, field(der_of(node))) == (200, "recorded")
        ahead = 3601.0
        assert publish(raw, node, field(der_of(node))) == (403, "identity-certificate")
        assert publish(raw, node, field(der_of(node))) == (403, "identity-forwarded")


def test_only_so_many_are_remembered_and_the_others_are_looked_at_again(pki: Pki, tmp_path: Path) -> None:
    proxy = ProxySettings(names=TRUSTED.names, remembered=2)
    with running(pki, receiver_settings(pki, tmp_path, proxy=proxy)) as scene:
        nodes = [scene.node() for _ in range(4)]
        with edge(scene) as raw:
            for node in nodes * 3:
                assert publish(raw, node, field(der_of(node))) == (200, "recorded")


def test_the_names_of_proxies() -> None:
    uri = proxy_uri(TRUST_DOMAIN, "edge")
    authority = Authority.create()

    def read(uris: list[str], dns: list[str], *names: str) -> str | None:
        issued = authority.client(uris, dns=dns)
        peer = identify_proxy(issued.certificate.public_bytes(Encoding.DER), frozenset(names))
        return None if peer is None else peer.identity.name

    assert read([uri], [], uri) == uri
    assert read([uri], ["edge.example"], "edge.example") == "edge.example"
    assert read([uri, reader_uri(TRUST_DOMAIN, "x")], [], uri) is None
    assert read([uri], ["a.example", "b.example"], "a.example") is None
    assert read([node_uri(TRUST_DOMAIN, str(uuid4()))], [], uri) is None
