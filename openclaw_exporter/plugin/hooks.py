"""What a plugin implements: one hook that returns collectors.

from openclaw_exporter.plugin import Collector, Uptime, hookimpl

class Clock:
    name = "clock"

    def collect(self):
        yield Uptime(time.monotonic())

@hookimpl
def openclaw_collectors() -> list[Collector]:
    return [Clock()]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openclaw_exporter.plugin.observations import Observation

PROJECT: Final = "openclaw_exporter"
"""The name that pluggy's markers carry, and the group of the plugins' entry points."""

API_VERSION: Final = 1
"""The version of this API. It grows only when a plugin must be able to say that it needs something newer.

A plugin says so with `OPENCLAW_PLUGIN_API = 2` in its module; a host with a lower version refuses it.
"""

hookimpl: Final = pluggy.HookimplMarker(PROJECT)
hookspec: Final = pluggy.HookspecMarker(PROJECT)


@runtime_checkable
class Collector(Protocol):
    """Anything with a name and a `collect()`.

    A class may also state its own defaults for the host's keys, which a `[plugins.NAME]` table overrides:
    `interval: float` and `deadline: float` in seconds, `isolation: "thread" | "process"`, and
    `series_budget: int`. Where it has a `close()`, the host calls that once, when it needs it no more.

    One that asks for a process may have an `absent() -> Iterable[Observation] | None`. The agent calls it
    at each interval, before it starts or asks the process: observations, also none at all, mean that this
    node certainly has nothing to measure, and no process runs; None means that the process has to look. It
    runs in the agent, so it has to be quick and must not touch what can hang or crash.

    Attributes:
        name: 1 to 63 characters of `[a-z][a-z0-9_-]*`, different from the plugin's other collectors.
    """

    name: str

    def collect(self) -> Iterable[Observation | Exception]:
        """Yield what is known now.

        It runs on a thread (or in a process) of its own, never twice at the same time. What cannot be
        known is left out; never yield a zero for it.

        To raise means that nothing is known: the collector turns unhealthy and all of its series
        disappear. To *yield* an exception means that one part could not be read: it is counted and named
        in the log, and the other observations stand.
        """
        ...


class Hooks:
    """The hooks that a plugin may implement."""

    @hookspec
    def openclaw_collectors(self, options: Any) -> Iterable[Collector]:  # type: ignore[empty-body]
        """Return this plugin's collectors; called once at start and once after each reload.

        Args:
            options: The plugin's `[plugins.NAME]` table, read into the dataclass that annotates this
                parameter of the implementation. An implementation without the parameter, or without an
                annotation, takes no options.
        """
