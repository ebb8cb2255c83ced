"""Whether a server keeps what it is given: what its INFO says of eviction and persistence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openclaw_exporter.receiver.store.redis.connection import AnswerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openclaw_exporter.receiver.store.redis.address import Host


def concerns(host: Host, info: Any) -> Iterator[str]:
    """Yield what an operator should know.

    Args:
        host: The server.
        info: Its answer to INFO.

    Raises:
        UnreachableError: It throws keys away where it runs out of memory.
    """
    if isinstance(info, AnswerError):
        yield f"Redis {host}: whether it keeps what it is given is not known: {info}"
        return
    said = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
    policy = said.get(b"maxmemory_policy", b"noeviction").decode()
    if policy != "noeviction":
        if int(said.get(b"maxmemory", b"0")):
            raise UnreachableError(
                f"{host}: its maxmemory-policy {policy} throws nodes away; set maxmemory-policy noeviction",
                refused=True,
            )
        yield (
            f"Redis {host} has maxmemory-policy {policy}: with a maxmemory it would throw nodes away; "
            "set maxmemory-policy noeviction"
        )
    if said.get(b"aof_enabled", b"1") == b"0":
        yield (
            f"Redis {host} keeps no append-only file: if it crashes without a replica, heartbeats that were "
            "answered are lost; set appendonly yes"
        )
