"""A real certificate authority, token keys and key set in a temporary directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from openclaw_exporter.cli.authority import (
    Authority,
    Issued,
    node_uri,
    private_key_pem,
    proxy_uri,
    reader_uri,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

TRUST_DOMAIN = "test.openclaw"
AUDIENCE = "openclaw-receiver"
ISSUER = "chimera"
KEY_ID = "test-1"


@dataclass(frozen=True, slots=True)
class Files:
    """A certificate and its key on disk."""

    certificate: Path
    key: Path


class Pki:
    """A CA, a service account's token key with its JWKS, and as many certificates as a test asks for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trust_domain = TRUST_DOMAIN
        self.audience = AUDIENCE
        self.issuer = ISSUER
        self.key_id = KEY_ID
        self.authority = Authority.create()
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.authority.issued.certificate_pem)
        self.token_private = ec.generate_private_key(ec.SECP256R1())
        self.token_key = directory / "token-key.pem"
        self.token_key.write_bytes(private_key_pem(self.token_private))
        self.jwks = directory / "jwks.json"
        jwk = ECAlgorithm.to_jwk(self.token_private.public_key(), as_dict=True)
        jwk |= {"kid": KEY_ID, "alg": "ES256", "use": "sig"}
        self.jwks.write_text(json.dumps({"keys": [jwk]}))

    def server(self, hosts: Sequence[str] = ("localhost", "127.0.0.1"), *, name: str = "server") -> Files:
        """Issue the receiver's certificate."""
        return self._write(name, self.authority.server(hosts))

    def node(self, node_id: str, *, lifetime: dt.timedelta | None = None) -> Files:
        """Issue a node's certificate."""
        return self._write(
            node_id, self.authority.client([node_uri(TRUST_DOMAIN, node_id)], lifetime=lifetime)
        )

    def reader(self, name: str = "dashboard", *, lifetime: dt.timedelta | None = None) -> Files:
        """Issue a reader's certificate."""
        issued = self.authority.client([reader_uri(TRUST_DOMAIN, name)], lifetime=lifetime)
        return self._write(f"reader-{name}", issued)

    def proxy(self, name: str = "edge") -> Files:
        """Issue the certificate by which a proxy authenticates to the receiver."""
        return self._write(f"proxy-{name}", self.authority.client([proxy_uri(TRUST_DOMAIN, name)]))

    def _write(self, name: str, issued: Issued) -> Files:
        files = Files(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        files.certificate.write_bytes(issued.certificate_pem)
        files.key.write_bytes(issued.key_pem)
        files.key.chmod(0o600)
        return files
