"""Rotation: what is new and whole takes over, what is torn never does."""

from __future__ import annotations

import os
import threading
import time
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


@pytest.mark.parametrize(
    ("broken", "content", "message"),
    [
        ("certificate", b"nothing", "holds no certificate in PEM form"),
        ("key", b"nothing", "holds no private key in PEM form"),
        ("key", "encrypted", "the key is encrypted"),
        ("key", "other", "is not the key of"),
        ("ca", b"", "holds no certificate in PEM form"),
        ("ca", None, "cannot be read: No such file"),
        ("certificate", None, "cannot be read: No such file"),
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
    if content == "encrypted":
        path.write_bytes(encrypted(pki))
    elif content == "other":
        path.write_bytes(private_key_pem(ec.generate_private_key(ec.SECP256R1())))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    files = {name: getattr(settings.tls, name) for name in ("ca", "certificate", "key")}
    with pytest.raises(CredentialError, match=message) as raised:
        publish(tls=TlsSettings(**{**files, broken: path}))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "not a private key"), ("weak", "2048|weak|bits")],
)
def test_a_token_key_that_cannot_be_used_is_named_at_the_start(
    content: object, message: str, settings: ClientSettings, publish: Make, tmp_path: Path
) -> None:
    path = tmp_path / "token.pem"
    if content == "weak":
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - on purpose
        path.write_bytes(
            weak.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    elif isinstance(content, bytes):
        path.write_bytes(content)
    token = TokenSettings(key=path, kid="k", issuer="i", audience="a")
    with pytest.raises(CredentialError, match=message):
        publish(token=token)


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
