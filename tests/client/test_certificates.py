"""What a node reads of a certificate is what cryptography's own package for certificates reads."""

from __future__ import annotations

import contextlib
import datetime as dt
from ipaddress import ip_address
from ssl import DER_cert_to_PEM_cert

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.client.certificates import read_certificates

KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(public_exponent=65537, key_size=2048),
}
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ü" * 20)])
BORN = dt.datetime(2024, 2, 29, 23, 59, 59, tzinfo=dt.UTC)

others = st.sampled_from(
    [x509.DNSName("node.example"), x509.IPAddress(ip_address("::1")), x509.RFC822Name("a@example")]
)
uris = st.from_regex(r"spiffe://[a-z.]{1,20}/[a-z0-9/-]{0,90}", fullmatch=True).map(
    x509.UniformResourceIdentifier
)
names = st.none() | st.lists(uris | others, min_size=1, max_size=5)
extensions = st.lists(
    st.sampled_from(
        [
            x509.BasicConstraints(ca=True, path_length=0),
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]),
            x509.SubjectKeyIdentifier(b"x" * 20),
        ]
    ),
    unique_by=type,
)


def made(
    key: str,
    alternatives: list[x509.GeneralName] | None,
    more: list[x509.ExtensionType],
    lifetime: dt.timedelta,
    serial: int = 1,
) -> x509.Certificate:
    private = KEYS[key]
    builder = x509.CertificateBuilder(NAME, NAME, private.public_key(), serial, BORN, BORN + lifetime)
    if alternatives is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(private, None if key == "Ed25519" else hashes.SHA256())


@given(
    st.sampled_from(sorted(KEYS)),
    names,
    extensions,
    st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=40_000)),
    st.integers(1, 2**158),
)
def test_it_reads_what_the_library_reads(
    key: str,
    alternatives: list[x509.GeneralName] | None,
    more: list[x509.ExtensionType],
    lifetime: dt.timedelta,
    serial: int,
) -> None:
    theirs = made(key, alternatives, more, lifetime, serial)
    (ours,) = read_certificates(theirs.public_bytes(Encoding.PEM))
    expected = [name.value for name in alternatives or () if isinstance(name, x509.UniformResourceIdentifier)]
    assert ours.der == theirs.public_bytes(Encoding.DER)
    assert ours.not_before == theirs.not_valid_before_utc.timestamp()
    assert ours.not_after == theirs.not_valid_after_utc.timestamp()
    assert ours.key == theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert list(ours.uris) == expected


def test_all_certificates_of_a_file_in_their_order_and_nothing_else_of_it() -> None:
    first, second = (made("ES256", None, [], dt.timedelta(days=days)) for days in (1, 2))
    pem = b"\r\n".join(
        (
            b"Bag Attributes: a name",
            first.public_bytes(Encoding.PEM),
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            second.public_bytes(Encoding.PEM).replace(b"\n", b"\r\n").replace(b"N CERT", b"N X509 CERT"),
        )
    )
    found = read_certificates(pem)
    assert [one.der for one in found] == [one.public_bytes(Encoding.DER) for one in (first, second)]
    assert read_certificates(b"nothing") == []


ONE = made("Ed25519", [x509.DNSName("a")], [], dt.timedelta(days=1)).public_bytes(Encoding.DER)


@given(st.integers(0, len(ONE) - 1), st.integers(1, 255))
def test_what_is_none_is_refused_and_never_anything_worse(place: int, change: int) -> None:
    der = bytearray(ONE)
    der[place] ^= change
    with contextlib.suppress(ValueError):
        (found,) = read_certificates(DER_cert_to_PEM_cert(bytes(der)).encode())
        assert found.der == der


def test_names_that_are_there_twice_are_refused() -> None:
    der = made(
        "ES256",
        [x509.UniformResourceIdentifier("spiffe://a/b")],
        [x509.SubjectKeyIdentifier(b"x" * 20)],
        dt.timedelta(1),
    ).public_bytes(Encoding.DER)
    twice = der.replace(bytes((0x55, 0x1D, 0x0E)), bytes((0x55, 0x1D, 0x11)))
    assert twice != der
    with pytest.raises(ValueError, match="two extensions"):
        read_certificates(DER_cert_to_PEM_cert(twice).encode())
