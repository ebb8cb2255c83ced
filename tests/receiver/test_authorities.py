"""Chains up to the client authorities: what is known of one certificate's excuses nothing of another's."""

from __future__ import annotations

import datetime as dt
import itertools
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from receiver.issuing import issue

from openclaw_exporter.cli.authority import node_uri
from openclaw_exporter.errors import IdentityError
from openclaw_exporter.receiver.authorities import Authorities
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.settings import ProxySettings, TlsSettings
from openclaw_exporter.receiver.trust import Trust
from openclaw_exporter.wire.client_cert import client_cert
from support.pki import TRUST_DOMAIN
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec

    Issued = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]

HOURS = 3600.0


def client(signer: Issued, **terms: Any) -> x509.Certificate:
    """Issue a node's certificate."""
    uri = node_uri(TRUST_DOMAIN, str(uuid4()))
    return issue("client", signer=(signer[0].subject, signer[1]), ca=False, uri=uri, **terms)[0]


def authority(name: str, signer: Issued | None = None, **terms: Any) -> Issued:
    return issue(name, signer=None if signer is None else (signer[0].subject, signer[1]), ca=True, **terms)


def hours(number: float) -> dt.timedelta:
    return dt.timedelta(hours=number)


def der(issued: Issued) -> bytes:
    return issued[0].public_bytes(Encoding.DER)


def believing(*roots: Issued) -> Authorities:
    return Authorities(b"".join(root[0].public_bytes(Encoding.PEM) for root in roots), "the authorities")


def is_good(
    authorities: Authorities, leaf: x509.Certificate, between: Sequence[bytes] = (), *, later: float = 0.0
) -> bool:
    try:
        authorities.verify(leaf, between, time.time() + later)
    except IdentityError:
        return False
    return True


def leaves_of(monkeypatch: pytest.MonkeyPatch, name: str) -> list[x509.Certificate]:
    """Return the leaves with which a method of `Authorities` is called from now on."""
    leaves: list[x509.Certificate] = []
    method = getattr(Authorities, name)

    def noting(self: Authorities, leaf: x509.Certificate, *rest: Any) -> Any:
        leaves.append(leaf)
        return method(self, leaf, *rest)

    monkeypatch.setattr(Authorities, name, noting)
    return leaves


def test_what_is_the_same_for_a_fleet_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    root = authority("root", lifetime=hours(9))
    upper = authority("upper", root, lifetime=hours(5))
    lower = authority("lower", upper, lifetime=hours(7))
    whole = leaves_of(monkeypatch, "_verify")
    authorities = believing(root)
    between = [der(upper), der(lower)]
    fleet = [client(lower, lifetime=hours(number)) for number in (8, 6, 4)]
    ends = [authorities.verify(leaf, list(between), time.time()) for leaf in fleet]
    # The end of whatever ends first, be it far above.
    upper_end = upper[0].not_valid_after_utc.timestamp()
    assert ends == [upper_end, upper_end, fleet[2].not_valid_after_utc.timestamp()]
    assert whole == fleet[:1]
    direct = [client(root) for _ in range(2)]
    assert all(is_good(authorities, leaf) for leaf in direct)
    assert whole == fleet[:1]


def test_each_certificate_of_a_known_chain_has_its_time() -> None:
    root = authority("root", lifetime=hours(9))
    upper = authority("upper", root, lifetime=hours(5))
    lower = authority("lower", upper, age=hours(0.5), lifetime=hours(7))
    authorities = believing(root)
    between = [der(upper), der(lower)]
    short, long = client(lower, lifetime=hours(2)), client(lower, lifetime=hours(8), age=hours(2))
    for _ in range(2):
        for leaf in (short, long):
            assert is_good(authorities, leaf, between)
        assert not is_good(authorities, short, between, later=3 * HOURS)
        assert is_good(authorities, long, between, later=3 * HOURS)
        assert not is_good(authorities, long, between, later=6 * HOURS)
        # Before the lower authority begins, and before the leaf does.
        assert not is_good(authorities, long, between, later=-0.75 * HOURS)
        assert not is_good(authorities, short, between, later=-1.5 * HOURS)
    direct = client(root, lifetime=hours(20))
    assert is_good(authorities, direct, later=8 * HOURS)
    assert not is_good(authorities, direct, later=10 * HOURS)


def test_the_name_of_a_known_authority_is_not_its_signature() -> None:
    root = authority("root")
    middle = authority("middle", root)
    authorities = believing(root)
    assert is_good(authorities, client(middle), [der(middle)])
    assert is_good(authorities, client(root))
    forger = issue("middle", signer=(root[0].subject, authority("root")[1]), ca=True)
    for _ in range(2):
        assert not is_good(authorities, client(forger), [der(middle)])
        assert not is_good(authorities, client(forger), [der(forger)])
        assert not is_good(authorities, client(forger), [der(forger), der(middle)])
        assert not is_good(authorities, client(authority("root")))
        # A certificate of the known one, changed.
        changed = bytearray(client(middle).public_bytes(Encoding.DER))
        changed[-1] ^= 1
        assert not is_good(authorities, x509.load_der_x509_certificate(bytes(changed)), [der(middle)])
        assert is_good(authorities, client(middle), [der(middle)])


def test_what_is_known_beside_one_leaf_may_stand_beside_one_of_another_authority() -> None:
    roots = [authority("one"), authority("two")]
    middles = [authority("middle", root) for root in roots]
    authorities = believing(*roots)
    between = [der(middle) for middle in middles]
    for _ in range(2):
        for issuer in (*middles, *roots):
            assert is_good(authorities, client(issuer), between)
        assert not is_good(authorities, client(authority("middle")), between)
    # Without what stood between it has no chain, however often it had one.
    assert not is_good(authorities, client(middles[0]))
    assert not is_good(authorities, client(middles[0]), between[1:])


@pytest.mark.parametrize("place", ["root", "upper", "lower"])
def test_an_authority_that_constrains_names_is_asked_about_each(place: str) -> None:
    def constrained(name: str) -> str:
        return "fleet.example" if name == place else ""

    root = authority("root", permitted=constrained("root"))
    upper = authority("upper", root, permitted=constrained("upper"))
    lower = authority("lower", upper, permitted=constrained("lower"))
    between = [der(upper), der(lower)]
    inside, outside = (client(lower, host=f"a.{name}.example") for name in ("fleet", "other"))
    for order in itertools.permutations([inside, outside]):
        authorities = believing(root)
        for leaf in order * 2:
            assert is_good(authorities, leaf, between) == (leaf is inside)


def test_a_path_that_is_too_long_stays_so() -> None:
    root = authority("root", path_length=0)
    middle = authority("middle", root)
    authorities = believing(root)
    for _ in range(2):
        assert is_good(authorities, client(root))
        assert not is_good(authorities, client(middle), [der(middle)])


def test_what_is_no_authority_of_clients_vouches_for_nobody() -> None:
    servers = authority("servers", usages=[x509.ExtendedKeyUsageOID.SERVER_AUTH])
    root = authority("root")
    authorities = believing(servers, root)
    for _ in range(2):
        assert not is_good(authorities, client(servers))
        assert is_good(authorities, client(root))
    assert not is_good(believing(servers), client(servers))


def test_what_cannot_be_read_is_refused_beside_a_certificate_that_is_good_without() -> None:
    root = authority("root")
    authorities = believing(root)
    leaf = client(root)
    for _ in range(2):
        assert is_good(authorities, leaf)
        assert not is_good(authorities, leaf, [b"no certificate"])


def test_more_chains_than_are_remembered() -> None:
    root = authority("root")
    middle = authority("middle", root)
    leaf, forged = client(middle), client(issue("middle", signer=None, ca=True))
    authorities = believing(root)
    others = [der(authority(f"other {number}")) for number in range(9)]
    for pair in itertools.permutations(others, 2):
        assert is_good(authorities, leaf, [*pair, der(middle)])
        assert not is_good(authorities, forged, [*pair, der(middle)])
    assert is_good(authorities, leaf, [der(middle)])
    assert is_good(authorities, client(root))


def headers(leaf: x509.Certificate, *between: Issued) -> list[tuple[bytes, bytes]]:
    fields = [(b"client-cert", client_cert(leaf.public_bytes(Encoding.DER)).encode())]
    return fields + [(b"client-cert-chain", client_cert(der(one)).encode()) for one in between]


def test_a_known_chain_ends_with_its_root_and_with_the_deny_list(tmp_path: Path) -> None:
    root, other = authority("root"), authority("other")
    middle = authority("middle", root)
    deny = tmp_path / "denied"
    deny.write_text("# nobody\n")
    tls = TlsSettings(trust_domain=TRUST_DOMAIN, deny_list=deny)
    denied = DenyList(deny)
    denied.open()
    trust = Trust(tls, TRUSTED, denied)

    def slug_of(leaf: x509.Certificate) -> str:
        try:
            trust.forwarded(headers(leaf, middle))
        except IdentityError as error:
            return error.slug
        return ""

    def use(*roots: Issued) -> None:
        trust.use_authorities(b"".join(root[0].public_bytes(Encoding.PEM) for root in roots))

    use(root, other)
    known, fresh = client(middle), client(middle)
    assert slug_of(known) == ""
    name = trust.forwarded(headers(known, middle)).identify().identity.name
    deny.write_text(f"{name}\n")
    assert trust.reload()
    for _ in range(2):
        assert slug_of(known) == "node-denied"
        assert slug_of(fresh) == ""
    use(other)
    for leaf in (fresh, client(middle)):
        assert slug_of(leaf) == "identity-forwarded"
    use(root)
    assert slug_of(fresh) == ""


def test_of_a_fleet_that_is_too_large_only_the_rest_is_verified_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified = leaves_of(monkeypatch, "verify")
    root = authority("root")
    proxy = ProxySettings(names=TRUSTED.names, remembered=8)
    trust = Trust(TlsSettings(trust_domain=TRUST_DOMAIN), proxy, DenyList(None))
    trust.use_authorities(root[0].public_bytes(Encoding.PEM))

    def round_of(fleet: list[x509.Certificate]) -> int:
        verified.clear()
        for leaf in fleet:
            name = trust.forwarded(headers(leaf)).identify().identity.name
            assert name in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value[0].value
        return len(verified)

    fleet = [client(root) for _ in range(10)]
    assert [round_of(fleet) for _ in range(6)] == [10, 2, 2, 2, 2, 2]
    # All have new certificates, and those before are not shown any more.
    renewed = [client(root) for _ in range(8)]
    assert [round_of(renewed) for _ in range(6)][-1] == 0
