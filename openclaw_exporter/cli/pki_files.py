"""The files of a small PKI: where they lie, who may read them, and what a node and a receiver need of them.

DIR/
  pki.toml              trust domain, token key id, issuer and audience
  ca.pem, ca.key        the authority
  receiver.pem, .key    the receiver's certificate
  receiver.toml         a configuration that is ready to run
  token.key, jwks.json  the service account's key, and its public half for the receiver
  nodes/NODE_ID/        node.pem, node.key and agent.toml of one node
  readers/NAME/         reader.pem and reader.key of one reader of the registry
  proxies/NAME/         proxy.pem, .key of one proxy that ends TLS, for receivers; server.pem, .key for nodes
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from openclaw_exporter.cli.authority import Authority, node_uri, proxy_uri, reader_uri
from openclaw_exporter.cli.pki_configurations import agent_tables, document, pki_toml, receiver_tables
from openclaw_exporter.cli.places import taken
from openclaw_exporter.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

_RSA_BITS: Final = 3072
_KEY_ID_LENGTH: Final = 16
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
_DIRECTORY: Final = 0o700
# SPIFFE ID specification, sections 2.1 and 2.2: what a trust domain and a path segment may hold.
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's certificate and key on disk.

    Attributes:
        name: The node's id, the reader's name, or the proxy's SAN.
        certificate: The certificate, PEM.
        key: Its private key, PKCS #8, PEM, mode 0600.
        configuration: A configuration that is ready to run; None for a reader or proxy.
    """

    name: str
    certificate: Path
    key: Path
    configuration: Path | None = None


@dataclass(frozen=True, slots=True)
class PkiDirectory:
    """A PKI in a directory.

    Attributes:
        path: The directory, absolute.
        trust_domain: The trust domain of its certificates.
        key_id: The token key's `kid`.
        algorithm: The token key's `alg`.
        issuer: What minted tokens say in `iss`.
        audience: What they say in `aud`.
        endpoint: The receiver's base URL, for the nodes' configurations.
    """

    path: Path
    trust_domain: str
    key_id: str
    algorithm: Algorithm
    issuer: str
    audience: str
    endpoint: str

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.path / "ca.pem"

    @property
    def receiver_configuration(self) -> Path:
        """The receiver's configuration."""
        return self.path / "receiver.toml"

    @property
    def token_key(self) -> Path:
        """The service account's private key."""
        return self.path / "token.key"

    def contents(self) -> tuple[tuple[Path, str], ...]:
        """Return each file that `create` writes, with what it is."""
        return (
            (self.ca, "certificate authority: for the receiver and every node"),
            (self.path / "ca.key", "its private key: keep it offline"),
            (self.path / "receiver.pem", "the receiver's certificate"),
            (self.path / "receiver.key", "its private key"),
            (self.token_key, f"token key {self.key_id} ({self.algorithm}): for every node"),
            (self.path / "jwks.json", "its public half: for the receiver"),
            (self.receiver_configuration, "configuration of the receiver"),
            (self.path / "pki.toml", "what `pki node` and `pki reader` need to know"),
        )

    def summary(self) -> dict[str, str]:
        """Return what a script needs to know."""
        return {
            "directory": str(self.path),
            "trust_domain": self.trust_domain,
            "key_id": self.key_id,
            "algorithm": self.algorithm,
            "issuer": self.issuer,
            "audience": self.audience,
            "endpoint": self.endpoint,
            "ca": str(self.ca),
            "jwks": str(self.path / "jwks.json"),
            "token_key": str(self.token_key),
            "receiver_configuration": str(self.receiver_configuration),
        }

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        trust_domain: str,
        hosts: Sequence[str],
        algorithm: Algorithm = "ES256",
        port: int = 8443,
        force: bool = False,
    ) -> Self:
        """Make the authority, the receiver's certificate and the token key, and write them.

        Args:
            directory: Where; made where it is missing.
            trust_domain: The SPIFFE trust domain of every certificate.
            hosts: Host names and addresses by which nodes reach the receiver; the first is in their URL.
            algorithm: The token key's algorithm.
            port: The receiver's port.
            force: Whether files that exist are replaced.

        Raises:
            CredentialError: A name is not valid, or files exist and `force` is false.
        """
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise CredentialError(
                f"{trust_domain!r} is no trust domain: use lower-case letters, digits, '.', '-' and '_'"
            )
        private = _token_key(algorithm)
        host = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
        made = cls(
            path=directory.absolute(),
            trust_domain=trust_domain,
            key_id=_key_id(private),
            algorithm=algorithm,
            issuer="chimera",
            audience="openclaw-receiver",
            endpoint=f"https://{host}:{port}",
        )
        authority = Authority.create(name=f"OpenClaw CA of {trust_domain}")
        _write_all(made._first_files(authority, hosts, private, port), force=force)
        return made

    def _first_files(
        self, authority: Authority, hosts: Sequence[str], private: TokenKey, port: int
    ) -> Mapping[Path, bytes]:
        from openclaw_exporter.wire.tokens import SigningKey, public_jwks  # noqa: PLC0415 - slow to import

        server = authority.server(hosts)
        token_pem = _pem(private)
        signing = SigningKey.load(token_pem, kid=self.key_id, algorithm=self.algorithm)
        return {
            self.path / "ca.key": authority.issued.key_pem,
            self.ca: authority.issued.certificate_pem,
            self.path / "receiver.key": server.key_pem,
            self.path / "receiver.pem": server.certificate_pem,
            self.token_key: token_pem,
            self.path / "jwks.json": public_jwks([signing]),
            self.receiver_configuration: document(receiver_tables(self, port=port, hosts=hosts)).encode(),
            self.path / "pki.toml": pki_toml(self).encode(),
        }

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read a PKI that `create` made.

        Raises:
            CredentialError: The directory holds none.
        """
        path = directory.absolute()
        file = path / "pki.toml"
        try:
            table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
            return cls(path=path, **table)
        except FileNotFoundError:
            raise CredentialError(
                f"{file} does not exist; make a PKI there with: openclaw-exporter pki init {directory}"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise CredentialError(f"{file} cannot be read: {error}") from error

    def issue_node(self, node_id: str = "new", *, force: bool = False) -> Identity:
        """Issue a node's certificate, with a configuration for its agent.

        Args:
            node_id: A UUID, or `new` for a random one.
            force: Whether a certificate that exists is replaced.

        Raises:
            CredentialError: The id is no UUID, the files exist, or the authority cannot be read.
        """
        try:
            name = str(uuid.uuid4() if node_id == "new" else uuid.UUID(node_id))
        except ValueError:
            raise CredentialError(
                f"{node_id!r} is no UUID; give one, or 'new' for a random one (RFC 9562)"
            ) from None
        issued = self._authority().client([node_uri(self.trust_domain, name)])
        folder = self.path / "nodes" / name
        made = Identity(name, folder / "node.pem", folder / "node.key", folder / "agent.toml")
        files = {made.key: issued.key_pem, made.certificate: issued.certificate_pem}
        _write_all(files | {folder / "agent.toml": document(agent_tables(self, made)).encode()}, force=force)
        return made

    def issue_reader(self, name: str, *, force: bool = False) -> Identity:
        """Issue a certificate that may read the registry.

        Raises:
            CredentialError: The name is not valid, the files exist, or the authority cannot be read.
        """
        _check_segment(name, "reader")
        issued = self._authority().client([reader_uri(self.trust_domain, name)])
        folder = self.path / "readers" / name
        made = Identity(name, folder / "reader.pem", folder / "reader.key")
        _write_all({made.key: issued.key_pem, made.certificate: issued.certificate_pem}, force=force)
        return made

    def issue_proxy(self, name: str, hosts: Sequence[str], *, force: bool = False) -> Identity:
        """Issue the two certificates of a proxy that ends TLS and forwards nodes and readers (RFC 9440).

        Args:
            name: The proxy's name.
            hosts: Host names and addresses by which nodes reach it.
            force: Whether certificates that exist are replaced.

        Raises:
            CredentialError: The name is not valid, the files exist, or the authority cannot be read.
        """
        _check_segment(name, "proxy")
        uri = proxy_uri(self.trust_domain, name)
        authority = self._authority()
        issued, server = authority.client([uri]), authority.server(hosts)
        folder = self.path / "proxies" / name
        made = Identity(uri, folder / "proxy.pem", folder / "proxy.key")
        files = {made.key: issued.key_pem, made.certificate: issued.certificate_pem}
        files |= {folder / "server.key": server.key_pem, folder / "server.pem": server.certificate_pem}
        _write_all(files, force=force)
        return made

    def _authority(self) -> Authority:
        key = self.path / "ca.key"
        try:
            return Authority.load(self.ca, key)
        except (OSError, ValueError) as error:
            raise CredentialError(f"the authority in {self.ca} and {key} cannot be read: {error}") from error


def _check_segment(name: str, kind: str) -> None:
    if not _SEGMENT.fullmatch(name):
        raise CredentialError(f"{name!r} is no {kind}'s name: use letters, digits, '.', '-' and '_'")


TokenKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def _token_key(algorithm: Algorithm) -> TokenKey:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def _pem(key: TokenKey) -> bytes:
    encoding, layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, layout, serialization.NoEncryption())


def _key_id(key: TokenKey) -> str:
    encoding, layout = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    fingerprint = hashlib.sha256(key.public_key().public_bytes(encoding, layout)).digest()
    return base64.urlsafe_b64encode(fingerprint).decode()[:_KEY_ID_LENGTH]


def _write_all(files: Mapping[Path, bytes], *, force: bool) -> None:
    """Write the files, all or (where one exists that must not be replaced) none; keys for the owner alone."""
    there = taken(files)
    if there and not force:
        listed = ", ".join(str(path) for path in there)
        raise CredentialError(f"these files exist already: {listed}; --force replaces them")
    try:
        for path, content in files.items():
            path.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
            _write(path, content, _PRIVATE if path.suffix == ".key" else _PUBLIC)
    except OSError as error:
        raise CredentialError(f"{error.filename} cannot be written: {error.strerror}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    temporary.replace(path)
