from __future__ import annotations

import base64
import hashlib
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.forge import NODE, OTHER_NODE, certificate, dns, uri

from openclaw_exporter.errors import ConfigError, IdentityError
from openclaw_exporter.wire.certificates import (
    Identity,
    IdentityRule,
    PeerCertificate,
    check_publisher,
    thumbprint,
)

if TYPE_CHECKING:
    from support.pki import Pki

SPIFFE = IdentityRule(trust_domain="test.openclaw")
DNS = IdentityRule(dns_suffix="fleet.example")
NODE_URI = f"spiffe://test.openclaw/chimera/node/{NODE}"
READER_URI = "spiffe://test.openclaw/openclaw/reader/grafana"
OTHER_URI = NODE_URI.replace(NODE, OTHER_NODE)
NODE_DNS = f"{NODE}.node.fleet.example"
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
ADDRESS = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def slug_of(rule: IdentityRule, der: bytes) -> str:
    with pytest.raises(IdentityError) as caught:
        rule.identify(der)
    assert caught.value.status == 403
    assert NODE not in str(caught.value)
    return caught.value.slug


def test_a_real_nodes_certificate_names_the_node(pki: Pki) -> None:
    files = pki.node(NODE)
    der = ssl.PEM_cert_to_DER_cert(files.certificate.read_text())
    peer = IdentityRule(trust_domain=pki.trust_domain).identify(der)
    assert peer.identity == Identity("node", NODE)
    assert peer.thumbprint == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert peer.not_after - peer.not_before == pytest.approx(90 * 86_400 + 300)


def test_a_real_readers_certificate_names_the_reader(pki: Pki) -> None:
    der = ssl.PEM_cert_to_DER_cert(pki.reader("grafana").certificate.read_text())
    assert IdentityRule(trust_domain=pki.trust_domain).identify(der).identity == Identity("reader", "grafana")


def test_a_real_servers_certificate_is_nobody(pki: Pki) -> None:
    der = ssl.PEM_cert_to_DER_cert(pki.server().certificate.read_text())
    assert slug_of(SPIFFE, der) == "identity-usage"


def test_a_real_authority_is_nobody(pki: Pki) -> None:
    der = ssl.PEM_cert_to_DER_cert(pki.authority.issued.certificate_pem.decode())
    assert slug_of(SPIFFE, der) == "identity-authority"


def test_the_validity_is_in_unix_seconds() -> None:
    peer = SPIFFE.identify(certificate([uri(NODE_URI)]))
    assert (peer.not_before, peer.not_after) == (1_767_225_600, 1_767_225_600 + 90 * 86_400)


ACCEPTED = [
    (SPIFFE, certificate([uri(NODE_URI)]), Identity("node", NODE)),
    (SPIFFE, certificate([uri(READER_URI)]), Identity("reader", "grafana")),
    (SPIFFE, certificate([uri(READER_URI.replace("grafana", "A.b_c-9"))]), Identity("reader", "A.b_c-9")),
    (SPIFFE, certificate([uri(NODE_URI), dns("host.example"), ADDRESS]), Identity("node", NODE)),
    (SPIFFE, certificate([uri(NODE_URI)], ca=None), Identity("node", NODE)),
    (SPIFFE, certificate([uri(NODE_URI)], signs=False), Identity("node", NODE)),
    (SPIFFE, certificate([uri(NODE_URI)], common_name=OTHER_NODE), Identity("node", NODE)),
    (
        SPIFFE,
        certificate(
            [uri(NODE_URI)], usages=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        ),
        Identity("node", NODE),
    ),
    (DNS, certificate([dns(NODE_DNS)]), Identity("node", NODE)),
    (DNS, certificate([dns(NODE_DNS.upper())]), Identity("node", NODE)),
    (DNS, certificate([dns("grafana-1.reader.fleet.example")]), Identity("reader", "grafana-1")),
    (DNS, certificate([dns(NODE_DNS), uri("spiffe://elsewhere/x")]), Identity("node", NODE)),
]


@pytest.mark.parametrize(("rule", "der", "identity"), ACCEPTED)
def test_a_right_certificate_is_identified(rule: IdentityRule, der: bytes, identity: Identity) -> None:
    assert rule.identify(der).identity == identity


WRONG_URIS = [
    f"spiffe://other.openclaw/chimera/node/{NODE}",
    f"spiffe://test.openclaw.evil/chimera/node/{NODE}",
    f"spiffe://sub.test.openclaw/chimera/node/{NODE}",
    f"spiffe://testxopenclaw/chimera/node/{NODE}",
    f"spiffe://test.openclaw:443/chimera/node/{NODE}",
    f"spiffe://user@test.openclaw/chimera/node/{NODE}",
    f"SPIFFE://test.openclaw/chimera/node/{NODE}",
    f"https://test.openclaw/chimera/node/{NODE}",
    f"test.openclaw/chimera/node/{NODE}",
    f"spiffe://test.openclaw/chimera/node/{NODE.upper()}",
    f"spiffe://test.openclaw/chimera/node/{NODE}/",
    f"spiffe://test.openclaw/chimera/node/{NODE}/x",
    f"spiffe://test.openclaw/chimera/node/{NODE}?x=1",
    f"spiffe://test.openclaw/chimera/node/{NODE}#x",
    f"spiffe://test.openclaw/chimera/node/{NODE}\n",
    f"spiffe://test.openclaw/chimera/node/{NODE}\x00",
    f"spiffe://test.openclaw/chimera//node/{NODE}",
    f"spiffe://test.openclaw/x/../chimera/node/{NODE}",
    f"spiffe://test.openclaw/chimera/node/%30{NODE[1:]}",
    f"spiffe://test.openclaw/Chimera/node/{NODE}",
    f"spiffe://test.openclaw/chimera/node/{NODE.replace('-', '')}",
    "spiffe://test.openclaw/chimera/node/",
    "spiffe://test.openclaw/chimera/node/*",
    "spiffe://test.openclaw/openclaw/reader/",
    "spiffe://test.openclaw/openclaw/reader/.",
    "spiffe://test.openclaw/openclaw/reader/..",
    "spiffe://test.openclaw/openclaw/reader/a/b",
    "spiffe://test.openclaw/openclaw/reader/a b",
    "spiffe://test.openclaw/openclaw/reader/" + "x" * 65,
    "spiffe://test.openclaw/",
    "spiffe://test.openclaw",
    "",
]
WRONG_HOSTS = [
    f"{NODE}.node.other.example",
    f"{NODE}.node.fleet.example.evil",
    f"{NODE}.nodexfleet.example",
    f"{NODE}.node.fleetxexample",
    f"x.{NODE}.node.fleet.example",
    f"{NODE}.fleet.example",
    f"{NODE}.node.fleet.example.",
    f"{NODE}.node.fleet.example\n",
    "*.node.fleet.example",
    "host.node.fleet.example",
    "-a.reader.fleet.example",
    "a_b.reader.fleet.example",
    ".reader.fleet.example",
    "fleet.example",
    "",
]


@pytest.mark.parametrize("name", WRONG_URIS)
def test_a_uri_that_is_not_exactly_a_nodes_or_readers_is_refused(name: str) -> None:
    assert slug_of(SPIFFE, certificate([uri(name)])) == "identity-name"


@pytest.mark.parametrize("name", WRONG_HOSTS)
def test_a_host_that_is_not_exactly_a_nodes_or_readers_is_refused(name: str) -> None:
    assert slug_of(DNS, certificate([dns(name)])) == "identity-name"


REFUSED: list[tuple[str, IdentityRule, dict[str, Any], str]] = [
    ("no SAN, CN is the node", SPIFFE, {"names": [], "common_name": NODE}, "identity-name"),
    ("no SAN, CN is the URI", SPIFFE, {"names": [], "common_name": NODE_URI[:64]}, "identity-name"),
    ("no DNS SAN, CN is the host", DNS, {"names": [], "common_name": NODE_DNS}, "identity-name"),
    ("the URI as a DNS SAN", SPIFFE, {"names": [dns(NODE_URI)]}, "identity-name"),
    ("the host as a URI SAN", DNS, {"names": [uri(NODE_DNS)]}, "identity-name"),
    ("only a DNS SAN", SPIFFE, {"names": [dns(NODE_DNS)]}, "identity-name"),
    (
        "two nodes",
        SPIFFE,
        {"names": [uri(NODE_URI), uri(OTHER_URI)]},
        "identity-name",
    ),
    ("one node twice", SPIFFE, {"names": [uri(NODE_URI), uri(NODE_URI)]}, "identity-name"),
    ("node and reader", SPIFFE, {"names": [uri(NODE_URI), uri(READER_URI)]}, "identity-name"),
    ("a second, foreign URI", SPIFFE, {"names": [uri(NODE_URI), uri("https://x.example")]}, "identity-name"),
    ("two hosts", DNS, {"names": [dns(NODE_DNS), dns("x.example")]}, "identity-name"),
    ("no usage", SPIFFE, {"usages": None}, "identity-usage"),
    ("server only", SPIFFE, {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, "identity-usage"),
    ("any usage", SPIFFE, {"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]}, "identity-usage"),
    ("code signing", SPIFFE, {"usages": [ExtendedKeyUsageOID.CODE_SIGNING]}, "identity-usage"),
    ("authority", SPIFFE, {"ca": True}, "identity-authority"),
    ("may sign certificates", SPIFFE, {"signs": True}, "identity-authority"),
    ("may sign, no constraints", SPIFFE, {"signs": True, "ca": None}, "identity-authority"),
]


@pytest.mark.parametrize(("rule", "made", "slug"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_a_wrong_certificate_is_refused(rule: IdentityRule, made: dict[str, Any], slug: str) -> None:
    assert slug_of(rule, certificate(**{"names": [uri(NODE_URI)]} | made)) == slug


GOOD = certificate([uri(NODE_URI)])
URI_TAG = bytes([0x86, len(NODE_URI)])


UNREADABLE = {
    "nothing": b"",
    "a null": b"\x00",
    "letters": b"x" * 100,
    "cut": GOOD[:-1],
    "cut in the middle": GOOD[:50],
    "longer": GOOD + b"x",
    "twice": GOOD + GOOD,
    "many letters": b"x" * 20_000,
    "an extension twice": GOOD.replace(b"\x06\x03\x55\x1d\x13", b"\x06\x03\x55\x1d\x25"),
    "a name that is no text": GOOD.replace(b"spiffe", b"spiff\xff"),
    "a name of an unknown kind": GOOD.replace(URI_TAG, b"\x8f" + URI_TAG[1:]),
}


# The ids are words: several test processes must agree on them, and a certificate is never the same twice.
@pytest.mark.parametrize("der", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_refused(der: bytes) -> None:
    assert slug_of(SPIFFE, der).startswith("identity-")


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_mutated_certificate_raises_nothing_else(edits: list[tuple[int, int]]) -> None:
    der = bytearray(GOOD)
    for position, value in edits:
        der[position] = value
    try:
        peer = SPIFFE.identify(bytes(der))
    except IdentityError:
        return
    assert peer.thumbprint == thumbprint(bytes(der))
    assert peer.identity.role in {"node", "reader"}


@given(st.binary())
def test_random_bytes_raise_nothing_else(der: bytes) -> None:
    with pytest.raises(IdentityError):
        SPIFFE.identify(der)


@pytest.mark.parametrize(
    "settings_of",
    [{}, {"trust_domain": "a", "dns_suffix": "b"}, {"trust_domain": ""}, {"trust_domain": "spiffe://a"},
     {"trust_domain": "A.example"}, {"trust_domain": "a/b"}, {"trust_domain": "a\n"}, {"dns_suffix": ""},
     {"dns_suffix": ".example"}, {"dns_suffix": "*.example"}, {"dns_suffix": "example."}],
)  # fmt: skip
def test_an_unsafe_rule_is_refused(settings_of: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        IdentityRule(**settings_of)
    assert caught.value.problems[0].key in {"trust_domain", "dns_suffix"}


def peer_of(role: Any, name: str) -> PeerCertificate:
    return PeerCertificate(Identity(role, name), "thumbprint", 0, 1)


def test_only_one_and_the_same_node_may_publish() -> None:
    check_publisher(peer_of("node", NODE), subject=NODE, node_id=NODE)
    for name, subject, node_id in [
        (OTHER_NODE, NODE, NODE),
        (NODE, OTHER_NODE, NODE),
        (NODE, NODE, OTHER_NODE),
        (NODE, NODE.upper(), NODE),
        (NODE, "", NODE),
    ]:
        with pytest.raises(IdentityError) as caught:
            check_publisher(peer_of("node", name), subject=subject, node_id=node_id)
        assert caught.value.slug == "identity-mismatch"


def test_a_reader_never_publishes() -> None:
    with pytest.raises(IdentityError) as caught:
        check_publisher(peer_of("reader", NODE), subject=NODE, node_id=NODE)
    assert caught.value.slug == "role-not-allowed"
