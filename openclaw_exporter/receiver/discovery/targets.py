"""Live nodes as Prometheus' HTTP service discovery reads them: `GET /openclaw/prometheus-sd`.

A node says where its metrics are with a tag `metrics:<port>`. Prometheus then connects to whatever the node
calls itself, so only host names below a configured suffix are told. Tags become meta labels alone: a node
cannot set a label that Prometheus gives a meaning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.receiver.liveness import NodeState

_TAG: Final = "metrics:"
_MAX_PORT: Final = 65535
_META: Final = "__meta_openclaw_"
_unsafe = re.compile(r"[^a-zA-Z0-9_]")


class Target(msgspec.Struct):
    """One node to scrape.

    Attributes:
        targets: One `host:port`.
        labels: Meta labels: `__meta_openclaw_node_id`, `_hostname`, `_state`, `_version`, and
            `__meta_openclaw_tag_<key>` of each tag.
    """

    targets: list[str]
    labels: dict[str, str]


class _Content(msgspec.Struct, gc=False):
    hostname: str


_CONTENT: Final = msgspec.json.Decoder(_Content)


class Suffixes:
    """The host names that may be told.

    Args:
        suffixes: Domain names; each allows itself and what is below it. Without any, nothing is allowed.
    """

    def __init__(self, suffixes: Iterable[str]) -> None:
        self._names = tuple(suffix.strip(".").lower() for suffix in suffixes)
        self._endings = tuple(f".{name}" for name in self._names)

    def allow(self, hostname: str) -> bool:
        """Whether a host name is one of them or below one."""
        name = hostname.lower()
        return name in self._names or name.endswith(self._endings)


def target_of(state: NodeState, suffixes: Suffixes) -> Target | None:
    """Return a node as a target; None where it tells no port, or its host name is not allowed."""
    port = next((found for found in map(_port, state.tags) if found is not None), None)
    if port is None:
        return None
    hostname = _CONTENT.decode(state.payload).hostname
    if not suffixes.allow(hostname):
        return None
    labels = {
        f"{_META}node_id": state.node_id,
        f"{_META}hostname": hostname,
        f"{_META}state": state.state,
        f"{_META}version": state.version,
    }
    for tag in state.tags:
        key, colon, value = tag.partition(":")
        name = f"{_META}tag_{_unsafe.sub('_', key)}"
        text = value if colon else "true"
        # Several tags of one key, or keys that look alike to Prometheus, are told together.
        labels[name] = f"{labels[name]},{text}" if name in labels else text
    return Target([f"{hostname}:{port}"], labels)


def _port(tag: str) -> int | None:
    text = tag[len(_TAG) :]
    if not tag.startswith(_TAG) or not (text.isascii() and text.isdigit()) or len(text) > len(str(_MAX_PORT)):
        return None
    port = int(text)
    return port if 0 < port <= _MAX_PORT else None
