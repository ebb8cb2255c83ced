"""Watching what collectors yield: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_exporter.cli.collecting import Round
from openclaw_exporter.cli.output import print_json
from openclaw_exporter.cli.rows import COLUMNS, described, row
from openclaw_exporter.plugin.guard import SeriesKey, series_key
from openclaw_exporter.plugin.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from openclaw_exporter.agent.settings import ProcessSettings
    from openclaw_exporter.cli.collecting import Collected
    from openclaw_exporter.plugin.host import LoadedCollector

_REFUSED: Final = 5
"""Refusals of one collector that a live table shows at most."""

Shown = dict[tuple[str, str], dict[SeriesKey, Any]]
"""The cells of each collector's series in the round before."""


def watch(
    collectors: Sequence[LoadedCollector],
    limits: ProcessSettings,
    interval: float | None,
    *,
    as_json: bool = False,
) -> None:
    """Collect at every interval and show what comes, until Ctrl-C.

    Args:
        collectors: The collectors.
        limits: The limits of those that run in processes of their own.
        interval: Seconds between two rounds; None is the shortest of the collectors' own.
        as_json: Print each round as one line of JSON.
    """
    from rich.console import Console  # noqa: PLC0415 - 60 ms that other commands do not need
    from rich.live import Live  # noqa: PLC0415

    every = interval if interval is not None else min(one.interval for one in collectors)
    console = Console()
    try:
        with Round(collectors, limits) as rounds:
            if console.is_terminal and not as_json:
                before: Shown = {}
                with Live(console=console, auto_refresh=False) as live:

                    def draw(collected: list[Collected]) -> None:
                        live.update(_view(collected, before, every), refresh=True)

                    _repeat(rounds, every, draw)
            else:
                _repeat(rounds, every, _print_json if as_json else _print_lines)
    except KeyboardInterrupt:
        return


def _repeat(rounds: Round, every: float, show: Callable[[list[Collected]], None]) -> None:
    due = time.monotonic()
    while True:
        show(rounds.collect())
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _print_json(collected: list[Collected]) -> None:
    print_json({"at": _now(), "collectors": [described(one) for one in collected]}, indent=None)


def _print_lines(collected: list[Collected]) -> None:
    at = _now()
    for one in collected:
        name = f"{at} {one.plugin}/{one.name}"
        if one.error:
            click.echo(f"{name} failed: {one.error}")
        for rejection in one.rejected:
            click.echo(f"{name} refused ({rejection.reason}): {rejection.detail}")
        for item in one.observations:
            click.echo(f"{name} {' '.join(str(cell) for cell in row(item) if cell != '')}")


def _view(collected: list[Collected], before: Shown, every: float) -> RenderableType:
    """Return the live tables; what has changed since the round before stands out."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    parts: list[RenderableType] = [Text(f"{_now()}, every {every:g} s; Ctrl-C ends", style="dim")]
    for one in collected:
        title = f"{one.plugin}/{one.name}: {len(one.observations)} observations in {one.seconds:.3f} s"
        parts.append(Text(f"\n{title}", style="bold"))
        if one.error:
            parts.append(Text(f"  failed: {one_line(one.error)}", style="red"))
        parts += [
            Text(f"  refused ({rejection.reason}): {rejection.detail}", style="yellow")
            for rejection in one.rejected[:_REFUSED]
        ]
        if one.observations:
            parts.append(_table(one, before))
    return Group(*parts)


def _table(one: Collected, before: Shown) -> RenderableType:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    known = before.get((one.plugin, one.name))
    now: dict[SeriesKey, Any] = {}
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for item in one.observations:
        kind, what, value, unit = row(item)
        key = series_key(item)
        now[key] = value
        changed = known is not None and known.get(key) != value
        cells = (Text(str(kind)), Text(str(what)), Text(str(value), "bold cyan" if changed else ""))
        table.add_row(*cells, Text(str(unit)))
    before[one.plugin, one.name] = now
    return table


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
