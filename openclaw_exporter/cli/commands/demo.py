"""`demo`: everything at work on this machine."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json
from openclaw_exporter.errors import UserError

_NEEDED: Final = ("httptools", "prometheus_client", "sortedcontainers", "uvicorn", "uvloop")


@click.command(name="demo")
@click.option(
    "--nodes", type=click.IntRange(0, 2_000), default=20, show_default=True, help="Simulated neighbours."
)
@click.option(
    "--interval",
    type=click.IntRange(1, 120),
    default=2,
    show_default=True,
    metavar="SECONDS",
    help="Between two heartbeats of a node.",
)
@click.option("--for", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so long.")
@click.option("--redis", metavar="URL", help="A Redis for the queues, instead of one of the demo's own.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work there, and leave it.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    nodes: int,
    interval: int,
    seconds: float | None,
    redis: str | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Show everything at work on this machine, in a temporary directory.

    A PKI, a receiver, one real agent with the plugins on this host, real queues in a Redis, and simulated
    neighbours, some of which stop now and then: watch them go late, expire and return.

    Ends with 0 if the real agent is up at the end, the receiver refused nothing, and what it turned away for
    a moment of too much load has come back.
    """
    _check_extras()
    from openclaw_exporter.cli.demo.ending import Ending  # noqa: PLC0415 - only where the command runs
    from openclaw_exporter.cli.demo.processes import ChildError  # noqa: PLC0415
    from openclaw_exporter.cli.demo.show import Demo, Wishes  # noqa: PLC0415
    from openclaw_exporter.cli.demo.view import PlainView, totals  # noqa: PLC0415

    live = sys.stdout.isatty() and not as_json
    wishes = Wishes(nodes=nodes, interval=interval, seconds=seconds, redis=redis, keep=keep, live=live)
    view = PlainView(sys.stderr if as_json else sys.stdout)
    try:
        with Ending() as ending:
            result = Demo(wishes, view, ending).run()
    except ChildError as error:
        raise click.ClickException(str(error)) from error
    if result is not None:
        if as_json:
            print_json(result.document(), indent=None)
        else:
            click.echo(f"After {result.seconds:.0f} s: {totals(result.sight)}")
        for fault in result.faults:
            click.echo(f"openclaw-exporter: {fault}", err=True)
    if ending.signal is not None:
        context.exit(128 + ending.signal)
    context.exit(0 if result is not None and not result.faults else 1)


def _check_extras() -> None:
    """Say at once what the extra brings, before half of the demo has started without it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise UserError(
            f"the demo needs what is not installed ({names}): pip install 'openclaw-exporter[demo,plugins]'"
        )
