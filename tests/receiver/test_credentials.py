"""Certificates, authorities and keys that change under a running receiver."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import shutil
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from receiver.raw import Raw, head
from receiver.scene import Node, problem, receiver_settings, running

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.receiver import key_sources
from openclaw_exporter.receiver.credentials import Credentials
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.embedding import Receiver
from openclaw_exporter.receiver.files import Watched
from openclaw_exporter.receiver.key_sources import FileKeys
from openclaw_exporter.receiver.settings import IssuerSettings
from openclaw_exporter.receiver.trust import Trust
from openclaw_exporter.wire.tokens import SigningKey, public_jwks
from support.descriptors import none_left
from support.key_server import KeyServer
from support.pki import Pki
from support.tls_proxies import TRUSTED
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from receiver.scene import Running


def serial(scene: Running, node: Node) -> int:
    """Return the serial number of the certificate that the receiver shows."""
    with scene.tls(node.files) as tls:
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


def test_a_new_certificate_is_shown_to_new_connections_and_a_torn_one_to_nobody(
    pki: Pki, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    first = pki.server(name="rotated-1")
    shutil.copy(first.certificate, certificate)
    shutil.copy(first.key, key)
    settings = receiver_settings(pki, tmp_path, tls={"certificate": certificate, "key": key})
    with running(pki, settings) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
        before = serial(scene, node)
        second = pki.server(name="rotated-2")
        whole = second.certificate.read_bytes()
        certificate.write_bytes(whole[: len(whole) // 2])
        wait_until(lambda: serial(scene, node) == before, what="a connection beside a torn certificate")
        certificate.write_bytes(whole)
        # The key is still the old one: the pair does not fit.
        assert serial(scene, node) == before
        key.write_bytes(second.key.read_bytes())
        wait_until(lambda: serial(scene, node) != before, what="the new certificate")
        # The connection that was open goes on.
        assert node.beat().status_code == 200


def test_files_that_could_not_be_opened_are_read_again(own_pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(own_pki, tmp_path)
    credentials, key_file = Credentials(settings.tls), FileKeys(str(own_pki.jwks))
    before = credentials.context
    asyncio.run(key_file.open(None))
    for path in (settings.tls.certificate, own_pki.jwks):
        assert path is not None
        fresh = path.with_name("fresh")
        fresh.write_bytes(path.read_bytes())
        fresh.replace(path)
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        with none_left():
            assert credentials.reload() == (False, False)
            assert not loop.run_until_complete(key_file.refresh(unknown=False))
        assert credentials.reload() == (True, False)
        assert loop.run_until_complete(key_file.refresh(unknown=False))
    assert credentials.context is not before


def first_of_a_later_version(pem: bytes) -> bytes:
    """Return certificates of which the first says that it is of version 5."""
    first = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    later = first.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)
    return ssl.DER_cert_to_PEM_cert(later).encode() + pem


def as_trusted(pem: bytes) -> bytes:
    return pem.replace(b" CERTIFICATE-", b" TRUSTED CERTIFICATE-")


@pytest.mark.parametrize("spoil", [first_of_a_later_version, as_trusted])
def test_authorities_that_only_a_handshake_can_read_replace_none_behind_a_proxy(
    own_pki: Pki, tmp_path: Path, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    tls = receiver_settings(own_pki, tmp_path).tls
    trust = Trust(tls, TRUSTED, DenyList(None))
    credentials, others = Credentials(tls, accepts=trust.read_authorities), Credentials(tls)
    before = credentials.files
    fresh = own_pki.ca.with_name("fresh")
    fresh.write_bytes(spoil(own_pki.ca.read_bytes()))
    fresh.replace(own_pki.ca)
    assert others.reload() == (True, True)
    assert credentials.reload() == (False, False)
    assert credentials.files is before
    (told,) = [one for one in caplog.messages if "stays in use" in one]
    assert told.startswith(f"{own_pki.ca}: not usable PEM; see receiver.tls.ca")
    with pytest.raises(CredentialError, match=f"^{own_pki.ca}: not usable PEM"):
        Credentials(tls, accepts=trust.read_authorities)
    trust.use_authorities(before.ca)


def test_a_certificate_whose_dates_cannot_be_read_is_used(own_pki: Pki, tmp_path: Path) -> None:
    tls = receiver_settings(own_pki, tmp_path).tls
    credentials = Credentials(tls)
    certificate = tls.certificate
    assert certificate is not None
    fresh = certificate.with_name("fresh")
    (whole,) = x509.load_pem_x509_certificates(certificate.read_bytes())[:1]
    later = first_of_a_later_version(whole.public_bytes(Encoding.PEM)).split(b"-----BEGIN")[1]
    fresh.write_bytes(b"-----BEGIN" + later)
    fresh.replace(certificate)
    assert credentials.reload() == (True, False)


def test_an_expired_certificate_is_told_once_and_its_renewal_too(
    own_pki: Pki, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = receiver_settings(own_pki, tmp_path)
    certificate, key = settings.tls.certificate, settings.tls.key
    assert certificate is not None
    assert key is not None
    good = certificate.read_bytes(), key.read_bytes()
    expired = own_pki.authority.server(["localhost"], lifetime=dt.timedelta(minutes=-1))
    certificate.write_bytes(expired.certificate_pem)
    key.write_bytes(expired.key_pem)
    credentials = Credentials(settings.tls)
    assert credentials.reload() == (False, False)
    (told,) = caplog.messages
    assert told.startswith(f"{certificate}: the certificate has expired (")
    assert told.endswith("), so nodes refuse this receiver; see receiver.tls.certificate")
    caplog.clear()
    for path, content in zip((certificate, key), good, strict=True):
        fresh = path.with_name("fresh")
        fresh.write_bytes(content)
        fresh.replace(path)
    assert credentials.reload() == (True, False)
    (told,) = caplog.messages
    assert told.startswith("the certificate is valid now (after ")


def test_another_authority_ends_connections_and_what_it_signed(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path)
    ca = tmp_path / "clients.pem"
    ca.write_bytes(pki.ca.read_bytes())
    with running(pki, receiver_settings(pki, tmp_path, tls={"ca": ca})) as scene:
        node = scene.node()
        with Raw(scene, node.files) as raw:
            body = json.dumps(node.fields()).encode()
            raw.send(head(node, f"Content-Length: {len(body)}"), body)
            answer = raw.answer()
            assert answer is not None
            assert answer.status == 200
            ca.write_bytes(other.ca.read_bytes())
            assert raw.is_closed()
        assert not is_answered(scene, node)
        assert is_answered(scene, Node(scene, pki=other))


def test_a_handshake_that_began_before_does_not_outlive_its_authority(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path)
    ca = tmp_path / "clients.pem"
    ca.write_bytes(pki.ca.read_bytes())
    with running(pki, receiver_settings(pki, tmp_path, tls={"ca": ca})) as scene:
        node = scene.node()
        context = ssl.create_default_context(cafile=str(pki.ca))
        context.load_cert_chain(node.files.certificate, node.files.key)
        with socket.create_connection(("127.0.0.1", scene.port), timeout=60) as plain:
            # The receiver has accepted it once it has accepted one that came later.
            assert node.beat().status_code == 200
            ca.write_bytes(other.ca.read_bytes())
            wait_until(lambda: not is_answered(scene, node), what="the end of the old authority")
            answer = b""
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                tls.sendall(head(node, "Content-Length: 0"))
                answer = tls.recv(100)
            assert answer == b""


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_file_that_may_be_readable_again_is_looked_at(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret")
    watched = Watched(path)
    assert watched.changed()
    assert not watched.changed()
    time.sleep(0.05)  # the file system's clock ticks in between
    path.chmod(mode)
    assert watched.changed()
    assert not watched.changed()


def is_answered(scene: Running, node: Node) -> bool:
    try:
        with Raw(scene, node.files) as raw:
            raw.send(head(node, "Content-Length: 0"))
            return raw.answer() is not None
    except OSError:
        return False


def new_key(pki: Pki, directory: Path, kid: str) -> SigningKey:
    """Make another token key and let the PKI's tokens be signed with it."""
    other = Pki(directory)
    pki.token_key.write_bytes(other.token_key.read_bytes())
    pki.key_id = kid
    return SigningKey.load(pki.token_key.read_bytes(), kid=kid)


@pytest.fixture
def own_pki(tmp_path: Path) -> Pki:
    """A PKI that a test may change."""
    directory = tmp_path / "pki"
    directory.mkdir()
    return Pki(directory)


def test_a_key_file_is_read_again_and_old_tokens_count_no_more(own_pki: Pki, tmp_path: Path) -> None:
    with running(own_pki, receiver_settings(own_pki, tmp_path)) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
        (tmp_path / "other").mkdir()
        signing = new_key(own_pki, tmp_path / "other", "second")
        own_pki.jwks.write_bytes(b"{ torn")
        fresh = node.mint()
        assert node.beat().status_code == 200
        own_pki.jwks.write_bytes(public_jwks([signing]))
        # The verdict that was kept on this connection is dropped with the key, and the connection closed.
        wait_until(lambda: refused(node), what="the end of the old key")
        node.token = fresh
        assert node.beat().status_code == 200


def refused(node: Node) -> bool:
    try:
        return problem(node.beat()) == (401, "token-key-unknown")
    except (httpx.TransportError, AssertionError, KeyError):
        return False


def test_the_end_of_a_key_ends_the_connections_of_its_tokens_alone(own_pki: Pki, tmp_path: Path) -> None:
    with running(own_pki, receiver_settings(own_pki, tmp_path)) as scene:
        old, first = scene.node(), own_pki.jwks.read_bytes()
        (tmp_path / "other").mkdir()
        second = new_key(own_pki, tmp_path / "other", "second")
        both = json.loads(public_jwks([second]))["keys"] + json.loads(first)["keys"]
        own_pki.jwks.write_text(json.dumps({"keys": both}))
        new = scene.node()
        with Raw(scene, old.files) as of_old, Raw(scene, new.files) as of_new:
            wait_until(lambda: published(of_new, new) == 200, what="the new key")
            assert published(of_old, old) == 200
            own_pki.jwks.write_bytes(public_jwks([second]))
            assert of_old.is_closed()
            assert published(of_new, new) == 200


def published(raw: Raw, node: Node) -> int | None:
    body = json.dumps(node.fields()).encode()
    raw.send(head(node, f"Content-Length: {len(body)}"), body)
    answer = raw.answer()
    return None if answer is None else answer.status


@pytest.fixture
def key_server(own_pki: Pki) -> Iterator[KeyServer]:
    server = KeyServer(own_pki.jwks.read_bytes())
    yield server
    server.close()


def test_an_unknown_key_is_fetched_once_and_an_outage_changes_nothing(
    own_pki: Pki, tmp_path: Path, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = receiver_settings(own_pki, tmp_path, tokens={"jwks": key_server.url})
    with running(own_pki, settings) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
        assert key_server.fetches == 1
        key_server.document = None
        good = node.token
        (tmp_path / "other").mkdir()
        signing = new_key(own_pki, tmp_path / "other", "second")
        unknown = node.mint()
        node.token = unknown
        # It was fetched less than 30 s ago: no token makes it be fetched again.
        assert [problem(node.beat())[1] for _ in range(10)] == ["token-key-unknown"] * 10
        assert key_server.fetches == 1
        monkeypatch.setattr(key_sources, "MIN_FETCH_INTERVAL", 0.2)
        wait_until(lambda: problem(node.beat()) and key_server.fetches > 1, what="a fetch")
        node.token = good
        assert node.beat().status_code == 200
        key_server.document = public_jwks([signing])
        node.token = unknown
        wait_until(lambda: node.beat().status_code == 200, what="the new key")


def test_a_key_server_that_is_away_at_the_start_is_waited_for(
    own_pki: Pki, tmp_path: Path, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "MIN_FETCH_INTERVAL", 0.1)
    document, key_server.document = key_server.document, None
    settings = receiver_settings(own_pki, tmp_path, tokens={"jwks": key_server.url})
    with running(own_pki, settings) as scene:
        node = scene.node()
        assert problem(node.beat()) == (503, "store-unavailable")
        ready = scene.admin.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["keys"]) == (503, False)
        key_server.document = document
        wait_until(lambda: node.beat().status_code == 200, what="the keys")
        assert scene.admin.get("/readyz").status_code == 200


def test_external_issuers_have_keys_and_subjects_of_their_own(own_pki: Pki, tmp_path: Path) -> None:
    platform = tmp_path / "platform"
    platform.mkdir()
    platform_pki = Pki(platform)
    platform_pki.issuer = "https://platform.test"
    issuers = (
        IssuerSettings(issuer=own_pki.issuer, audience=own_pki.audience),
        IssuerSettings(
            issuer=platform_pki.issuer,
            audience=own_pki.audience,
            profile="external",
            jwks=str(platform_pki.jwks),
            subjects=("system:serviceaccount:chimera:agent", "spiffe://td/node/{node_id}"),
        ),
    )
    with running(own_pki, receiver_settings(own_pki, tmp_path, tokens={"issuers": issuers})) as scene:
        node = scene.node()
        assert node.beat().status_code == 200

        def external(subject: str, issuer: str = platform_pki.issuer) -> str:
            node.pki = platform_pki
            try:
                return node.mint(subject=subject, issuer=issuer)
            finally:
                node.pki = own_pki

        for subject in ("system:serviceaccount:chimera:agent", f"spiffe://td/node/{node.node_id}"):
            node.token = external(subject)
            assert node.beat().status_code == 200
        for subject in (node.node_id, "system:serviceaccount:chimera:other", "spiffe://td/node/{node_id}"):
            node.token = external(subject)
            assert problem(node.beat()) == (403, "identity-mismatch")
        # The platform's key does not vouch for the nodes' own tokens.
        node.token = external(node.node_id, own_pki.issuer)
        assert problem(node.beat()) == (401, "token-signature")


@pytest.mark.parametrize(
    ("profile", "max_life", "lifetime", "status"),
    [
        ("minted", None, 600, 200),
        ("external", None, 3600, 200),
        ("external", 900, 900, 200),
        ("external", 900, 3600, 401),
    ],
)
def test_how_long_a_token_may_live(
    pki: Pki, tmp_path: Path, profile: Any, max_life: int | None, lifetime: int, status: int
) -> None:
    issuer = IssuerSettings(issuer=pki.issuer, audience=pki.audience, profile=profile, max_life=max_life)
    with running(pki, receiver_settings(pki, tmp_path, tokens={"issuers": (issuer,)})) as scene:
        node = scene.node()
        now = int(time.time())
        claims = {"iss": pki.issuer, "aud": pki.audience, "sub": node.node_id, "iat": now, "nbf": now}
        claims |= {"exp": now + lifetime, "cnf": {"x5t#S256": node.thumbprint}}
        node.token = jwt.encode(claims, pki.token_private, "ES256", headers={"kid": pki.key_id})
        assert node.beat().status_code == status


@pytest.mark.parametrize("broken", ["ca", "certificate", "key", "jwks"])
@pytest.mark.parametrize("how", ["missing", "empty", "garbage"])
def test_a_file_that_cannot_be_used_is_named_at_the_start(
    pki: Pki, tmp_path: Path, broken: str, how: str
) -> None:
    path = tmp_path / "broken"
    if how != "missing":
        path.write_bytes(b"" if how == "empty" else b"\x00garbage\xff")
    changes: dict[str, Any] = {"tls": {broken: path}} if broken != "jwks" else {"tokens": {"jwks": str(path)}}
    with pytest.raises(CredentialError, match=str(path)):
        Receiver(receiver_settings(pki, tmp_path, **changes)).start()


def test_a_key_that_does_not_belong_to_the_certificate_is_named(pki: Pki, tmp_path: Path) -> None:
    settings = receiver_settings(pki, tmp_path, tls={"key": pki.server(name="other").key})
    with pytest.raises(CredentialError, match="does not belong"):
        Receiver(settings).start()


def test_the_certificate_is_in_the_asgi_scope(scene: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from openclaw_exporter.receiver.application import Application  # noqa: PLC0415 - this test's alone

    scopes: list[Any] = []
    original = Application.__call__

    async def spying(self: Application, scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await original(self, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", spying)
    node = scene.node()
    # A heartbeat has no scope on the hot route.
    node.client.get("/openclaw/nodes")
    node.client.get("/openclaw/nodes")
    tls = scopes[0]["extensions"]["tls"]
    (pem,) = tls["client_cert_chain"]
    shown = x509.load_pem_x509_certificate(pem.encode())
    sent = x509.load_pem_x509_certificate(node.files.certificate.read_bytes())
    assert shown.public_bytes(Encoding.DER) == sent.public_bytes(Encoding.DER)
    assert tls["tls_version"] == 0x0304
    assert scopes[1]["extensions"] is scopes[0]["extensions"]
