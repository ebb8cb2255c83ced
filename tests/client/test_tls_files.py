"""Rotation: what is new and whole takes over, what is torn never does."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from client.stub import Answer, StubReceiver
from client.virtual import SkippingClock
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from openclaw_exporter.cli.authority import private_key_pem
from openclaw_exporter.client import ClientSettings, TlsSettings, TokenSettings
from openclaw_exporter.errors import CredentialError
from openclaw_exporter.wire.tokens.compact import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openclaw_exporter.client import Publisher
    from support.pki import Pki

    Make = Callable[..., Publisher]


def rotate(pki: Pki, settings: ClientSettings, node_id: str) -> tuple[bytes, bytes]:
    """Return another certificate and key of the node, without touching its files."""
    kept = (settings.tls.certificate, settings.tls.key)
    before = tuple(path.read_bytes() for path in kept if path is not None)
    pki.node(node_id)
    fresh = tuple(path.read_bytes() for path in kept if path is not None)
    for path, content in zip(kept, before, strict=True):
        assert path is not None
        path.write_bytes(content)
    return fresh[0], fresh[1]


def settle(*paths: Path | None) -> None:
    """Make files look as if they had lain there for a while."""
    for path in paths:
        assert path is not None
        os.utime(path, (time.time() - 60, time.time() - 60))


def binding(seen: object) -> str:
    return str(parse(seen.token).claims["cnf"]["x5t#S256"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("settled", [True, False])
def test_a_new_pair_opens_a_new_connection_with_a_token_of_its_own(
    *,
    settled: bool,
    pki: Pki,
    settings: ClientSettings,
    node_id: str,
    publish: Make,
    stub: StubReceiver,
) -> None:
    certificate, key = settings.tls.certificate, settings.tls.key
    assert certificate is not None
    assert key is not None
    if settled:
        settle(certificate, key, pki.ca)
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    publisher.tick()
    clock.skipped += 60
    publisher.tick()
    assert [seen.connection for seen in stub.seen] == [1, 1]
    fresh_certificate, fresh_key = rotate(pki, settings, node_id)
    certificate.write_bytes(fresh_certificate)
    clock.skipped += 60
    # The certificate is there, its key is not yet: the old pair stays in force.
    publisher.tick()
    assert stub.seen[2].connection == 1
    assert binding(stub.seen[2]) == binding(stub.seen[0])
    key.write_bytes(fresh_key)
    clock.skipped += 60
    publisher.tick()
    assert stub.seen[3].connection == 2
    assert binding(stub.seen[3]) != binding(stub.seen[0])
    clock.skipped += 60
    publisher.tick()
    assert stub.seen[4].connection == 2
    assert publisher.stats.failure == 0
    assert publisher.stats.success == 5


def test_torn_writes_cost_no_publish(
    pki: Pki, settings: ClientSettings, node_id: str, publish: Make, stub: StubReceiver
) -> None:
    pairs = [rotate(pki, settings, node_id) for _ in range(6)]
    certificate, key = settings.tls.certificate, settings.tls.key
    assert certificate is not None
    assert key is not None
    stopping = threading.Event()

    def write_torn(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            for start in range(0, len(content), 97):
                file.write(content[start : start + 97])
                file.flush()
                time.sleep(0.0005)

    def rotator() -> None:
        turn = 0
        while not stopping.is_set():
            fresh = pairs[turn % len(pairs)]
            write_torn(certificate, fresh[0])
            write_torn(key, fresh[1])
            turn += 1
            stopping.wait(0.02)

    def bindings() -> set[str]:
        return {binding(seen) for seen in stub.seen}

    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    thread = threading.Thread(target=rotator)
    thread.start()
    try:
        while publisher.stats.success < 150 or (len(bindings()) < 2 and publisher.stats.success < 5000):
            publisher.tick()
            clock.skipped += 60
            assert publisher.stats.failure == 0
    finally:
        stopping.set()
        thread.join()
    assert len(bindings()) > 1


def test_another_nodes_certificate_never_takes_over(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    other = pki.node(str(uuid4()))
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    publisher.tick()
    put(settings, other.certificate.read_bytes(), other.key.read_bytes())
    for _ in range(3):
        clock.skipped += 60
        publisher.tick()
    assert publisher.stats.success == 4
    assert stub.connections == 1
    assert sum("not of this one" in record.message for record in caplog.records) == 1


def test_a_readers_certificate_never_takes_over(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    reader = pki.reader()
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    publisher.tick()
    put(settings, reader.certificate.read_bytes(), reader.key.read_bytes())
    for _ in range(3):
        clock.skipped += 60
        publisher.tick()
    assert publisher.stats.success == 4
    assert stub.connections == 1
    assert len({binding(seen) for seen in stub.seen}) == 1
    assert sum("names no node" in record.message for record in caplog.records) == 1


def test_certificates_with_dns_names_alone_are_renewed(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver
) -> None:
    first, second = (pki.authority.client([], dns=["chimera-01.fleet.test"]) for _ in range(2))
    put(settings, first.certificate_pem, first.key_pem)
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    publisher.tick()
    put(settings, second.certificate_pem, second.key_pem)
    clock.skipped += 60
    publisher.tick()
    assert publisher.stats.success == 2
    assert stub.connections == 2
    assert len({binding(seen) for seen in stub.seen}) == 2


def put(settings: ClientSettings, certificate: bytes, key: bytes) -> None:
    """Write another pair over the node's."""
    assert settings.tls.certificate is not None
    assert settings.tls.key is not None
    settings.tls.certificate.write_bytes(certificate)
    settings.tls.key.write_bytes(key)


def test_a_removed_file_keeps_the_pair_in_force(
    settings: ClientSettings, publish: Make, stub: StubReceiver
) -> None:
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    assert settings.tls.key is not None
    settings.tls.key.unlink()
    publisher.tick()
    assert publisher.stats.success == 1


def test_a_new_token_key_signs_the_next_token(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, tmp_path: Path
) -> None:
    key = tmp_path / "token.pem"
    key.write_bytes(pki.token_key.read_bytes())
    token = TokenSettings(key=key, kid="k", issuer="chimera", audience="openclaw")
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock, token=token)
    publisher.tick()
    key.write_bytes(b"-----BEGIN torn")
    clock.skipped += 60
    publisher.tick()
    assert stub.seen[1].token == stub.seen[0].token
    key.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    clock.skipped += 60
    publisher.tick()
    assert stub.seen[2].token != stub.seen[0].token
    assert publisher.stats.success == 3


def test_a_token_is_minted_anew_at_80_percent_of_its_life(publish: Make, stub: StubReceiver) -> None:
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock)
    for _ in range(11):
        publisher.tick()
        clock.skipped += 60
    assert len({seen.token for seen in stub.seen}) == 2
    issued = [parse(seen.token).claims["iat"] for seen in stub.seen]
    assert 460 <= max(issued) - min(issued) <= 560


def external(issued: int = 1_800_000_000) -> str:
    import jwt  # noqa: PLC0415 - only here

    return jwt.encode({"sub": "x", "exp": issued + 3600, "iat": issued}, "k" * 32, algorithm="HS256")


def test_an_external_token_is_read_again_when_it_changes(
    publish: Make, stub: StubReceiver, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{external()}\n")
    clock = SkippingClock()
    publisher = publish(endpoint=stub.url, clock=clock, token=TokenSettings(profile="external", file=file))
    publisher.tick()
    for content, expected in (
        (external(1_800_000_600), 1),
        ("torn.to", 1),
        ("", 1),
        (external(1_800_001_200), 2),
    ):
        file.write_text(content)
        clock.skipped += 60
        publisher.tick()
        assert len({seen.token for seen in stub.seen}) - 1 == expected
    assert publisher.stats.failure == 0


def test_a_refused_external_token_is_read_again_at_once(
    publish: Make, stub: StubReceiver, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(external())

    def refuse_first(_seen: object) -> Answer | None:
        if not stub.seen:
            file.write_text(external(1_800_009_000))
            return Answer(401)
        return None

    stub.on_request = refuse_first
    publisher = publish(endpoint=stub.url, token=TokenSettings(profile="external", file=file))
    publisher.tick()
    assert publisher.stats.success == 1
    assert stub.seen[0].token != stub.seen[1].token


def encrypted(pki: Pki) -> bytes:
    return pki.token_private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


OTHER_PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
TORN_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
AUTHORITIES = "; give the PEM file of the authorities that sign the receiver's certificate"
OWN = "; give the PEM file of this client's certificate"
ITS_KEY = "; give the PEM file of the certificate's private key"
MISSING = "cannot be read: No such file or directory; put it there, or name another"
A_DIRECTORY = "cannot be read: Is a directory; name a file"


def spoil(path: Path, content: object, pki: Pki) -> None:
    """Put something there that is no credential, or nothing."""
    if content == "encrypted":
        path.write_bytes(encrypted(pki))
    elif content == "other":
        path.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    elif content == "weak":
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - on purpose
        form = serialization.PrivateFormat.PKCS8
        path.write_bytes(weak.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    elif content == "directory":
        path.mkdir()
    elif content == "loop":
        path.symlink_to(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("broken", "content", "message"),
    [
        ("certificate", b"nothing", f"holds no certificate in PEM form{OWN}"),
        ("certificate", b"", f"is empty: it holds no certificate{OWN}"),
        ("certificate", OTHER_PEM, f"holds a certificate that cannot be read{OWN}"),
        ("certificate", None, MISSING),
        ("certificate", "directory", A_DIRECTORY),
        ("key", b"nothing", f"holds no private key in PEM form{ITS_KEY}"),
        ("key", b"", f"is empty: it holds no private key{ITS_KEY}"),
        ("key", TORN_KEY, f"holds a private key that cannot be read{ITS_KEY}"),
        ("key", "encrypted", "holds a key that is encrypted; give it without a pass phrase"),
        ("key", "other", "is not the key of {certificate}; give the one that the certificate was made for"),
        ("key", None, MISSING),
        ("key", "loop", "cannot be read: Too many levels of symbolic links; name a file that can be read"),
        ("ca", b"", f"is empty: it holds no certificate{AUTHORITIES}"),
        ("ca", b"nothing", f"holds no certificate in PEM form{AUTHORITIES}"),
        ("ca", None, MISSING),
        ("ca", "directory", A_DIRECTORY),
    ],
)
def test_credentials_that_cannot_be_used_are_named_at_the_start(
    broken: str,
    content: object,
    message: str,
    pki: Pki,
    settings: ClientSettings,
    publish: Make,
    tmp_path: Path,
) -> None:
    path = tmp_path / "broken.pem"
    spoil(path, content, pki)
    files = {name: getattr(settings.tls, name) for name in ("ca", "certificate", "key")}
    with pytest.raises(CredentialError) as raised:
        publish(tls=TlsSettings(**{**files, broken: path}))
    expected = message.replace("{certificate}", str(settings.tls.certificate))
    assert str(raised.value) == f"openclaw.tls.{broken}: {path} {expected}"
    assert raised.value.key == f"openclaw.tls.{broken}"


def test_a_certificate_without_its_key_names_the_key_to_set(
    pki: Pki, settings: ClientSettings, publish: Make
) -> None:
    certificate = settings.tls.certificate
    with pytest.raises(CredentialError) as raised:
        publish(tls=TlsSettings(ca=pki.ca, certificate=certificate))
    assert str(raised.value) == (
        f"openclaw.tls.certificate: {certificate} holds no private key in PEM form; "
        "name the PEM file of the certificate's private key in openclaw.tls.key"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, f" {MISSING}"),
        ("directory", f" {A_DIRECTORY}"),
        (b"", ": not a private key in PEM form; give the PEM file of a P-256, Ed25519 or RSA key"),
        ("encrypted", ": the key is encrypted; give it without a pass phrase"),
        ("weak", ": an RSA key needs 2048 to 8192 bits"),
    ],
)
def test_a_token_key_that_cannot_be_used_is_named_at_the_start(
    content: object, message: str, pki: Pki, publish: Make, tmp_path: Path
) -> None:
    path = tmp_path / "token.pem"
    spoil(path, content, pki)
    with pytest.raises(CredentialError) as raised:
        publish(token=TokenSettings(key=path, kid="k", issuer="i", audience="a"))
    assert str(raised.value) == f"openclaw.token.key: {path}{message}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kid": "ü"}, "openclaw.token.kid: must be 1 to 128 printable ASCII characters; "),
        ({"algorithm": "RS256"}, "openclaw.token.key: .*cannot sign RS256, only ES256; choose one of these"),
    ],
)
def test_what_does_not_fit_a_token_key_is_named(
    changes: dict[str, str], message: str, pki: Pki, publish: Make
) -> None:
    token = {"key": pki.token_key, "kid": "k", "issuer": "i", "audience": "a"}
    with pytest.raises(CredentialError, match=f"^{message}"):
        publish(token=TokenSettings(**token | changes))  # type: ignore[arg-type] # as the table has them


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, MISSING),
        ("directory", A_DIRECTORY),
        (b"", "holds no JWT in compact form; name the file in which the platform keeps one"),
        (b"garbage", "holds no JWT in compact form; name the file in which the platform keeps one"),
    ],
)
def test_a_token_file_that_cannot_be_used_is_named_at_the_start(
    content: object, message: str, pki: Pki, publish: Make, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    spoil(path, content, pki)
    with pytest.raises(CredentialError) as raised:
        publish(token=TokenSettings(profile="external", file=path))
    assert str(raised.value) == f"openclaw.token.file: {path} {message}"


def test_files_that_go_bad_later_are_named_in_the_log(
    settings: ClientSettings,
    publish: Make,
    stub: StubReceiver,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    assert settings.token.key is not None
    key = tmp_path / "token.pem"
    key.write_bytes(settings.token.key.read_bytes())
    publisher = publish(endpoint=stub.url, token=replace(settings.token, key=key))
    assert settings.tls.key is not None
    settings.tls.key.unlink()
    key.unlink()
    publisher.tick()
    assert publisher.stats.success == 1
    told = "\n".join(caplog.messages)
    assert f"openclaw.tls.key: {settings.tls.key} {MISSING}; the credentials in use stay in force" in told
    assert f"openclaw.token.key: {key} {MISSING}; the token credentials in use stay in force" in told


def test_a_combined_file_holds_both(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, tmp_path: Path
) -> None:
    assert settings.tls.certificate is not None
    assert settings.tls.key is not None
    both = tmp_path / "both.pem"
    both.write_bytes(settings.tls.certificate.read_bytes() + settings.tls.key.read_bytes())
    publisher = publish(endpoint=stub.url, tls=TlsSettings(ca=pki.ca, certificate=both))
    publisher.tick()
    assert publisher.stats.success == 1


def test_a_node_id_that_is_not_the_certificates_is_refused(publish: Make, node_id: str) -> None:
    other = str(uuid4())
    with pytest.raises(CredentialError, match=f"openclaw.node_id is {other}.*of node {node_id}"):
        publish(node_id=other)


def test_a_receiver_of_another_authority_is_not_trusted(
    pki: Pki, settings: ClientSettings, publish: Make, stub: StubReceiver, tmp_path: Path
) -> None:
    from openclaw_exporter.cli.authority import Authority  # noqa: PLC0415 - only here

    ca = tmp_path / "other-ca.pem"
    ca.write_bytes(Authority.create().issued.certificate_pem)
    tls = TlsSettings(ca=ca, certificate=settings.tls.certificate, key=settings.tls.key)
    publisher = publish(endpoint=stub.url, tls=tls)
    publisher.tick()
    assert publisher.last_result is not None
    assert publisher.last_result.error_type == "tls"
    assert stub.seen == []
    assert publisher.stats.buffered == 1
    # And as soon as the file is mended, without a restart:
    ca.write_bytes(pki.ca.read_bytes())
    clock_free_ticks(publisher)
    assert publisher.stats.success == 1


def clock_free_ticks(publisher: Publisher) -> None:
    """Tick until the retry that full jitter put off by less than a second has gone out."""
    ends = time.monotonic() + 60
    while publisher.stats.success == 0 and time.monotonic() < ends:
        time.sleep(max(0.0, min(publisher.tick() - time.monotonic(), 0.2)))


def test_a_name_that_is_not_the_receivers_is_not_trusted(publish: Make, stub: StubReceiver) -> None:
    publisher = publish(endpoint=f"https://127.0.0.2:{stub.port}", connect_timeout=2)
    publisher.tick()
    assert publisher.stats.success == 0
    assert stub.seen == []
