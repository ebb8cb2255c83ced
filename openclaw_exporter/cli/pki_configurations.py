"""The configurations that `pki` writes beside the certificates: short, and ready to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_exporter.config.keys import toml_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.cli.pki_files import Identity, PkiDirectory


def pki_toml(pki: PkiDirectory) -> str:
    """Return what `PkiDirectory.open` reads."""
    keys = ("trust_domain", "key_id", "algorithm", "issuer", "audience", "endpoint")
    return _table("", {key: getattr(pki, key) for key in keys})


def agent_toml(pki: PkiDirectory, node: Identity) -> str:
    """Return the configuration of a node's agent."""
    folder = node.certificate.parent
    sections = (
        "# Made by `openclaw-exporter pki node`; every key: openclaw-exporter check-config --list-keys\n",
        _table("openclaw", {"endpoint": pki.endpoint, "state_dir": folder / "state"}),
        _table("openclaw.tls", {"ca": pki.ca, "certificate": node.certificate, "key": node.key}),
        _table(
            "openclaw.token",
            {
                "key": pki.token_key,
                "kid": pki.key_id,
                "algorithm": pki.algorithm,
                "issuer": pki.issuer,
                "audience": pki.audience,
            },
        ),
    )
    return "\n".join(sections)


def receiver_toml(pki: PkiDirectory, *, port: int) -> str:
    """Return the receiver's configuration."""
    path = pki.path
    sections = (
        "# Made by `openclaw-exporter pki init`; every key: openclaw-exporter check-config --list-keys\n",
        _table("receiver", {"port": port}),
        _table(
            "receiver.tls",
            {
                "ca": pki.ca,
                "certificate": path / "receiver.pem",
                "key": path / "receiver.key",
                "trust_domain": pki.trust_domain,
            },
        ),
        _table("receiver.tokens", {"jwks": path / "jwks.json", "algorithms": [pki.algorithm]}),
        _table("[receiver.tokens.issuers]", {"issuer": pki.issuer, "audience": pki.audience}),
        _table("receiver.store", {"url": f"sqlite:///{path / 'registry.sqlite'}"}),
    )
    return "\n".join(sections)


def _table(name: str, values: Mapping[str, object]) -> str:
    lines = [f"[{name}]"] if name else []
    lines += (f"{key} = {toml_text(value)}" for key, value in values.items())
    return "\n".join(lines) + "\n"
