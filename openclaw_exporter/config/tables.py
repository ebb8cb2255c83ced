"""Which table of the file is read by which settings class.

The classes are imported when they are needed: an agent's machine may lack what the receiver imports.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from openclaw_exporter.config.keys import keys_of, variable_of
from openclaw_exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from openclaw_exporter.config.keys import Key
    from openclaw_exporter.errors import ConfigProblem

Service: TypeAlias = Literal["agent", "receiver", "collect"]
"""The programs that read a configuration; `collect` runs an agent's collectors and nothing else of it."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how: the table `[log]`.

    Attributes:
        level: The least level that is shown.
        format: `text` for people, `json` for machines; `auto` is text on a terminal and JSON elsewhere.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class Table(msgspec.Struct, frozen=True):
    """One top-level table.

    Attributes:
        name: Its name.
        place: Module and class that read it.
        services: The programs that use it.
        check_place: Module and function that return, or raise, what is wrong between its keys; empty where
            there is none.
    """

    name: str
    place: str
    services: tuple[Service, ...]
    check_place: str = ""

    def settings(self) -> type:
        """Import the class that reads it."""
        cls: type = _imported(self.place)
        return cls

    def check(self, settings: object) -> tuple[ConfigProblem, ...]:
        """Return what is wrong between its keys, where each key by itself is right."""
        if not self.check_place:
            return ()
        try:
            problems: tuple[ConfigProblem, ...] | None = _imported(self.check_place)(settings)
        except ConfigError as error:
            return error.problems
        return problems or ()


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"openclaw_exporter.{module}"), name)


TABLES: Final = (
    Table("node", "agent.settings:NodeSettings", ("agent",)),
    Table("openclaw", "client.settings:ClientSettings", ("agent",), "client.settings:check"),
    Table("collection", "agent.settings:CollectionSettings", ("agent", "collect")),
    Table("pressure", "agent.settings:PressureSettings", ("agent",)),
    Table(
        "telemetry",
        "telemetry.settings:TelemetrySettings",
        ("agent", "receiver"),
        "telemetry.settings:check",
    ),
    Table("receiver", "receiver.settings:ReceiverSettings", ("receiver",), "receiver.safety:require_safe"),
    Table("log", "config.tables:LogSettings", ("agent", "receiver")),
)
PLUGINS: Final = "plugins"
"""The table of the plugins' tables, which the plugins themselves describe."""


def roles_by(names: Collection[str]) -> dict[Service, tuple[str, ...]]:
    """Return whether a file with tables of these names is an agent's, a receiver's or both, and which say so.

    A table that agent and receiver both have says nothing.
    """
    own = {table.name: table.services for table in TABLES}
    own[PLUGINS] = ("agent",)
    told: dict[Service, tuple[str, ...]] = {
        "agent": tuple(name for name in names if name in own and "receiver" not in own[name]),
        "receiver": tuple(name for name in names if name in own and "agent" not in own[name]),
    }
    return {role: tables for role, tables in told.items() if tables}


def owner_of(variable: str) -> str:
    """Return the table that a variable's name belongs to; `openclaw` has those of no other."""
    others = (table.name for table in TABLES if table.name != "openclaw")
    return next(
        (name for name in (*others, PLUGINS) if variable.startswith(f"{variable_of((name,))}_")), "openclaw"
    )


def tables_of(services: Collection[Service]) -> tuple[Table, ...]:
    """Return the tables that one of the programs uses."""
    return tuple(table for table in TABLES if set(table.services) & set(services))


def table_keys(services: Collection[Service] = ("agent", "receiver")) -> Iterator[Key]:
    """Yield every key of the tables that one of the programs uses, those of plugins left out."""
    for table in tables_of(services):
        yield from keys_of(table.settings(), (table.name,))


def all_keys() -> Iterator[Key]:
    """Yield every key that there is; those that each plugin's table has are under the name `NAME`."""
    from openclaw_exporter.plugin.host import HostKeys  # noqa: PLC0415 - the receiver needs no host

    yield from table_keys()
    yield from keys_of(HostKeys, (PLUGINS, "NAME"))
