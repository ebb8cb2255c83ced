"""The configurations that `pki` writes beside the certificates: short, and ready to run."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias

from openclaw_exporter.config.keys import toml_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openclaw_exporter.cli.pki_files import Identity, PkiDirectory

Tables: TypeAlias = dict[str, dict[str, object]]
"""Tables by their dotted names."""

_HINT = "# Made by `openclaw-exporter pki`; every key: openclaw-exporter check-config --list-keys"


def pki_toml(pki: PkiDirectory) -> str:
    """Return what `PkiDirectory.open` reads."""
    keys = ("trust_domain", "key_id", "algorithm", "issuer", "audience", "endpoint")
    return _lines({key: getattr(pki, key) for key in keys})


def agent_tables(pki: PkiDirectory, node: Identity) -> Tables:
    """Return the configuration of a node's agent."""
    return {
        "openclaw": {"endpoint": pki.endpoint, "state_dir": node.certificate.parent / "state"},
        "openclaw.tls": {"ca": pki.ca, "certificate": node.certificate, "key": node.key},
        "openclaw.token": {
            "key": pki.token_key,
            "kid": pki.key_id,
            "algorithm": pki.algorithm,
            "issuer": pki.issuer,
            "audience": pki.audience,
        },
    }


def receiver_tables(pki: PkiDirectory, *, port: int, hosts: Sequence[str]) -> Tables:
    """Return the configuration of the receiver, which listens to the network only if nodes reach it there."""
    return {
        "receiver": {"host": "127.0.0.1" if all(map(_is_loopback, hosts)) else "0.0.0.0", "port": port},
        "receiver.tls": {
            "ca": pki.ca,
            "certificate": pki.path / "receiver.pem",
            "key": pki.path / "receiver.key",
            "trust_domain": pki.trust_domain,
        },
        "receiver.tokens": {
            "jwks": pki.path / "jwks.json",
            "algorithms": [pki.algorithm],
            "issuers": [{"issuer": pki.issuer, "audience": pki.audience}],
        },
        "receiver.store": {"url": f"sqlite:///{pki.path / 'registry.sqlite'}"},
    }


def document(tables: Tables) -> str:
    """Return tables as a TOML file."""
    sections = (f"[{name}]\n{_lines(values)}" for name, values in tables.items())
    return "\n".join((f"{_HINT}\n", *sections))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _lines(values: Mapping[str, object]) -> str:
    return "".join(f"{key} = {toml_text(value)}\n" for key, value in values.items())
