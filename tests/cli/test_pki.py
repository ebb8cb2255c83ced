from __future__ import annotations

import json
import socket
import ssl
import stat
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from openclaw_exporter.cli.app import app
from openclaw_exporter.cli.pki_files import ALGORITHMS, Algorithm, PkiDirectory
from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.config import load
from openclaw_exporter.errors import CredentialError
from openclaw_exporter.receiver.settings import ReceiverSettings
from openclaw_exporter.wire.certificates import Identity, IdentityRule, identify_proxy
from openclaw_exporter.wire.thumbprint import thumbprint
from openclaw_exporter.wire.tokens import Issuer, KeySet, Minter, SigningKey, Verifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
DOMAIN = "fleet.example"


@pytest.fixture
def made(tmp_path: Path) -> PkiDirectory:
    return PkiDirectory.create(tmp_path / "pki", trust_domain=DOMAIN, hosts=("localhost", "127.0.0.1"))


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def uris(path: Path) -> Sequence[str]:
    names = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def usages(path: Path) -> Sequence[x509.ObjectIdentifier]:
    return list(certificate(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def handshake(pki: PkiDirectory, client: tuple[Path, Path] | None, host: str) -> bytes:
    """Do a mutual TLS handshake over a real socket; return the client's certificate as the server sees it."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(pki.path / "receiver.pem", pki.path / "receiver.key")
    context = ssl.create_default_context(cafile=str(pki.ca))
    if client is not None:
        context.load_cert_chain(*client)
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_one, args=(listener, server, seen))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=60) as raw,
                context.wrap_socket(raw, server_hostname=host) as connection,
            ):
                connection.recv(1)  # TLS 1.3: a refusal comes after the client's own handshake
        finally:
            thread.join()
    return seen[0]


def serve_one(listener: socket.socket, context: ssl.SSLContext, seen: list[bytes]) -> None:
    raw, _ = listener.accept()
    with raw:
        try:
            with context.wrap_socket(raw, server_side=True) as connection:
                seen.append(connection.getpeercert(binary_form=True) or b"")
                connection.sendall(b"!")
        except OSError:
            return


def test_init_says_what_it_made_and_what_comes_next(tmp_path: Path) -> None:
    code, text = run("pki", "init", tmp_path / "pki", "--trust-domain", DOMAIN, "--host", "receiver.example")
    assert code == 0
    for name in (
        "ca.pem",
        "ca.key",
        "receiver.pem",
        "receiver.key",
        "token.key",
        "jwks.json",
        "receiver.toml",
    ):
        assert (tmp_path / "pki" / name).is_file()
        assert f"{tmp_path}/pki/{name}" in text
    assert f"openclaw-exporter receiver --config {tmp_path}/pki/receiver.toml" in text
    assert f"openclaw-exporter pki node {tmp_path}/pki --node-id new" in text


def test_private_keys_are_the_owners_alone(made: PkiDirectory) -> None:
    made.issue_node(NODE)
    made.issue_reader("dashboard")
    keys = sorted(made.path.rglob("*.key"))
    assert len(keys) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert not list(made.path.rglob(".*"))


def test_nothing_is_overwritten_without_force(made: PkiDirectory) -> None:
    before = {path: path.read_bytes() for path in made.path.iterdir() if path.is_file()}
    code, text = run("pki", "init", made.path)
    assert code == 2
    assert "--force replaces them" in text
    assert str(made.ca) in text
    assert {path: path.read_bytes() for path in before} == before
    code, _ = run("pki", "init", made.path, "--force")
    assert code == 0
    assert made.ca.read_bytes() != before[made.ca]


def test_a_nodes_files_are_not_overwritten_without_force(made: PkiDirectory) -> None:
    first = made.issue_node(NODE).certificate.read_bytes()
    code, text = run("pki", "node", made.path, "--node-id", NODE)
    assert (code, "--force replaces them" in text) == (2, True)
    code, _ = run("pki", "node", made.path, "--node-id", NODE, "--force")
    assert code == 0
    assert (made.path / "nodes" / NODE / "node.pem").read_bytes() != first


def test_a_node_has_one_uri_and_may_be_a_client_only(made: PkiDirectory) -> None:
    node = made.issue_node(NODE.upper())
    assert node.name == NODE
    assert uris(node.certificate) == [f"spiffe://{DOMAIN}/chimera/node/{NODE}"]
    assert usages(node.certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert usages(made.path / "receiver.pem") == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_new_node_has_a_random_id(made: PkiDirectory) -> None:
    one, other = made.issue_node(), made.issue_node("new")
    assert one.name != other.name
    assert uuid.UUID(one.name).version == 4


def test_the_certificates_hold_in_real_handshakes(made: PkiDirectory) -> None:
    rule = IdentityRule(DOMAIN, None)
    node, reader = made.issue_node(NODE), made.issue_reader("dashboard")
    seen = handshake(made, (node.certificate, node.key), "localhost")
    assert rule.identify(seen).identity == Identity("node", NODE)
    seen = handshake(made, (reader.certificate, reader.key), "127.0.0.1")
    assert rule.identify(seen).identity == Identity("reader", "dashboard")


def test_a_proxys_two_certificates(made: PkiDirectory) -> None:
    code, text = run("pki", "proxy", made.path, "--name", "edge-1", "--host", "receiver.example")
    uri = f"spiffe://{DOMAIN}/openclaw/proxy/edge-1"
    assert code == 0
    assert f'names = ["{uri}"]' in text
    folder = made.path / "proxies" / "edge-1"
    seen = handshake(made, (folder / "proxy.pem", folder / "proxy.key"), "localhost")
    proxy = identify_proxy(seen, frozenset({uri}))
    assert proxy is not None
    assert proxy.identity == Identity("proxy", uri)
    assert usages(folder / "server.pem") == [ExtendedKeyUsageOID.SERVER_AUTH]
    code, text = run("pki", "proxy", made.path, "--name", "edge-1", "--json")
    assert (code, "--force replaces them" in text) == (2, True)
    code, text = run("pki", "proxy", made.path, "--name", "edge-1", "--json", "--force")
    assert (code, json.loads(text)["name"]) == (0, uri)
    code, text = run("pki", "proxy", made.path, "--name", "../edge")
    assert (code, "no proxy's name" in text) == (2, True)


def test_another_authoritys_certificate_fails_in_a_real_handshake(made: PkiDirectory, tmp_path: Path) -> None:
    other = PkiDirectory.create(tmp_path / "other", trust_domain=DOMAIN, hosts=("localhost",))
    stranger = other.issue_node(NODE)
    with pytest.raises(OSError, match=r"(?i)unknown ca|reset|broken pipe|eof"):
        handshake(made, (stranger.certificate, stranger.key), "localhost")
    with pytest.raises(OSError, match=r"(?i)certificate required|reset|broken pipe|eof"):
        handshake(made, None, "localhost")


def test_another_host_name_fails_in_a_real_handshake(made: PkiDirectory) -> None:
    node = made.issue_node(NODE)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(made, (node.certificate, node.key), "elsewhere.example")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_key_set_verifies_what_the_token_key_signs(tmp_path: Path, algorithm: Algorithm) -> None:
    made = PkiDirectory.create(
        tmp_path / "pki", trust_domain=DOMAIN, hosts=("localhost",), algorithm=algorithm
    )
    der = certificate(made.issue_node(NODE).certificate)
    bound_to = thumbprint(der.public_bytes(Encoding.DER))
    key = SigningKey.load(made.token_key.read_bytes(), kid=made.key_id, algorithm=made.algorithm)
    token = Minter(key, issuer=made.issuer, audience=made.audience).mint(NODE, thumbprint=bound_to, now=1e9)
    keys = KeySet.from_jwks((made.path / "jwks.json").read_bytes())
    issuer = Issuer(made.issuer, made.audience, "minted", (algorithm,), 600)
    verified = Verifier(keys, [issuer]).verify(token.text, thumbprint=bound_to, now=1e9)
    assert verified.subject == NODE
    assert b'"d"' not in (made.path / "jwks.json").read_bytes()


def test_the_configurations_are_right(made: PkiDirectory) -> None:
    node = made.issue_node(NODE)
    client = load(node.configuration, {}).get(ClientSettings)
    assert client.endpoint == "https://localhost:8443"
    assert client.tls.certificate == node.certificate
    assert client.token.kid == made.key_id
    receiver = load(made.receiver_configuration, {}).get(ReceiverSettings)
    assert receiver.tls.trust_domain == DOMAIN
    assert receiver.tokens.issuers[0].audience == client.token.audience
    assert receiver.store.url == f"sqlite:///{made.path}/registry.sqlite"


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [(("localhost", "127.0.0.1", "::1"), "127.0.0.1"), (("receiver.example", "localhost"), "0.0.0.0")],
)
def test_the_receiver_listens_where_its_nodes_look_for_it(
    tmp_path: Path, hosts: tuple[str, ...], expected: str
) -> None:
    made = PkiDirectory.create(tmp_path / "pki", trust_domain=DOMAIN, hosts=hosts)
    assert load(made.receiver_configuration, {}).get(ReceiverSettings).host == expected


def test_scripts_get_json(tmp_path: Path) -> None:
    place = tmp_path / "pki"
    code, text = run("pki", "init", place, "--json", "--host", "::1", "--port", 9443)
    made: dict[str, Any] = json.loads(text)
    assert (code, made["endpoint"]) == (0, "https://[::1]:9443")
    node = json.loads(run("pki", "node", place, "--node-id", NODE, "--json")[1])
    assert node["name"] == NODE
    assert set(node) == {"name", "certificate", "key", "configuration"}
    reader = json.loads(run("pki", "reader", place, "--name", "grafana", "--json")[1])
    assert reader["certificate"] == f"{place}/readers/grafana/reader.pem"


def test_people_are_told_what_comes_next(made: PkiDirectory) -> None:
    assert (
        f"openclaw-exporter agent --config {made.path}/nodes/{NODE}/agent.toml"
        in run("pki", "node", made.path, "--node-id", NODE)[1]
    )
    assert (
        f"openclaw-exporter nodes --endpoint https://localhost:8443 --ca {made.ca}"
        in run("pki", "reader", made.path, "--name", "dashboard")[1]
    )


MISTAKES = [
    (("node", "--node-id", "uuid-1234"), "'uuid-1234' is no UUID"),
    (("reader", "--name", "../../etc"), "'../../etc' is no reader's name"),
    (("reader", "--name", ".."), "'..' is no reader's name"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES)
def test_names_that_cannot_be_are_refused(
    made: PkiDirectory, arguments: tuple[str, ...], expected: str
) -> None:
    command, *flags = arguments
    code, text = run("pki", command, made.path, *flags)
    assert (code, expected in text) == (2, True)


def test_a_trust_domain_that_cannot_be_is_refused(tmp_path: Path) -> None:
    code, text = run("pki", "init", tmp_path / "pki", "--trust-domain", "Fleet/Example")
    assert (code, "'Fleet/Example' is no trust domain" in text) == (2, True)
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize(
    "host", ["bad host", "https://receiver.example", "receiver.example:8443", "", "a..b"]
)
def test_a_host_that_cannot_be_is_refused(made: PkiDirectory, tmp_path: Path, host: str) -> None:
    for arguments in (
        ("init", tmp_path / "other", "--host", host),
        ("proxy", made.path, "--name", "edge-1", "--host", host),
    ):
        code, text = run("pki", *arguments)
        assert (code, f"{host!r} is no host name and no address" in text) == (2, True)
    assert not (tmp_path / "other").exists()
    assert not (made.path / "proxies").exists()


def test_hosts_may_be_wildcards_and_names_of_containers(tmp_path: Path) -> None:
    names = ("receiver.example", "*.receiver.example", "openclaw_receiver", "2001:db8::1")
    code, _ = run("pki", "init", tmp_path / "pki", *(part for name in names for part in ("--host", name)))
    assert code == 0


def test_a_directory_without_a_pki_names_the_remedy(tmp_path: Path) -> None:
    code, text = run("pki", "node", tmp_path, "--node-id", "new")
    assert code == 2
    assert f"openclaw-exporter pki init {tmp_path}" in text


def test_damaged_files_are_named(made: PkiDirectory) -> None:
    (made.path / "ca.key").write_text("not a key")
    with pytest.raises(CredentialError, match=r"ca\.key cannot be read"):
        made.issue_node()
    (made.path / "pki.toml").write_text("trust_domain = 5\nunknown = 1")
    with pytest.raises(CredentialError, match=r"pki\.toml cannot be read"):
        PkiDirectory.open(made.path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CredentialError, match="cannot be written"):
        PkiDirectory.create(tmp_path / "file" / "pki", trust_domain=DOMAIN, hosts=("localhost",))
