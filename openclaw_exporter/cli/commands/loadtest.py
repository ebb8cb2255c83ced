"""`loadtest`: many simulated nodes against one receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from openclaw_exporter.cli.options import json_option
from openclaw_exporter.cli.output import print_json
from openclaw_exporter.errors import UserError

_RAMP_SHARE: Final = 4


@click.command(name="loadtest")
@click.argument("pki", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--endpoint", metavar="URL", help="The receiver's base URL; by default the one of the PKI.")
@click.option("--nodes", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many.")
@click.option(
    "--interval",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    help="Seconds between two heartbeats.",
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(1, 86_400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long.",
)
@click.option(
    "--ramp",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Spread the first heartbeats over so many; by default over an interval, or a quarter of the time.",
)
@click.option(
    "--jitter",
    type=click.FloatRange(0, 0.4),
    default=0.0,
    help="Delay each heartbeat by a random share of the interval up to this one.",
)
@click.option("--fixed", is_flag=True, help="Keep to --interval whatever the receiver answers.")
@click.option("--new-connections", is_flag=True, help="Open a connection for each heartbeat.")
@click.option(
    "--churn",
    type=click.FloatRange(0, 1000),
    default=0.0,
    metavar="PERCENT",
    help="Replace so many of the nodes in a minute; every second one just vanishes.",
)
@click.option(
    "--partition",
    type=(click.FloatRange(0, 100), click.FloatRange(0, 86_400)),
    metavar="PERCENT SECONDS",
    help="Cut so many of the nodes off, for so long, in the middle.",
)
@click.option("--sign", is_flag=True, help="Sign every request (RFC 9421).")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Spread the nodes over so many.",
)
@click.option("--pid", type=click.IntRange(1), help="The receiver's process, to measure its CPU and memory.")
@click.option("--remote", is_flag=True, help="The receiver is not on this machine; needs --target as well.")
@click.option("--target", metavar="HOST", default="", help="The receiver's host once more, with --remote.")
@json_option
def command(
    *,
    pki: Path,
    endpoint: str | None,
    nodes: int,
    interval: int,
    seconds: float,
    ramp: float | None,
    jitter: float,
    fixed: bool,
    new_connections: bool,
    churn: float,
    partition: tuple[float, float] | None,
    sign: bool,
    processes: int,
    pid: int | None,
    remote: bool,
    target: str,
    as_json: bool,
) -> None:
    """Publish as many nodes at once, and report what the receiver made of it.

    DIR is what `pki init` made, its keys included: every node gets a certificate of its own, for two days, in
    a temporary directory. The nodes are real publishers with the tag loadtest:…; at the end they say
    good-bye, and the registry forgets them in its own time. Ends with 1 where something was lost, refused or
    expired that should not have been.

    Only a receiver on this machine is tested, unless one says twice that another one is meant.
    """
    from openclaw_exporter.cli.load.plan import Plan, check_target, check_times  # noqa: PLC0415 - with all that they import
    from openclaw_exporter.cli.load.run import Progress, run  # noqa: PLC0415
    from openclaw_exporter.cli.pki_files import PkiDirectory  # noqa: PLC0415

    made = PkiDirectory.open(pki)
    base = (endpoint or made.endpoint).rstrip("/")
    check_target(base, remote=remote, target=target)
    cut, cut_seconds = partition or (0.0, 0.0)
    if processes > nodes:
        raise UserError(f"--processes {processes} is more than --nodes {nodes}")
    plan = Plan(
        pki=made.path,
        endpoint=base,
        nodes=nodes,
        interval=interval,
        seconds=seconds,
        ramp=min(float(interval), seconds / _RAMP_SHARE) if ramp is None else ramp,
        jitter=jitter,
        fixed=fixed,
        keep_alive=not new_connections,
        churn=churn,
        partition=cut,
        partition_seconds=cut_seconds,
        sign=sign,
        processes=processes,
    )
    check_times(plan)
    with Progress(seconds) as progress:
        report = run(plan, made, pid=pid, progress=progress)
    if as_json:
        print_json(report.document(), indent=None)
    else:
        for line in report.lines():
            click.echo(line)
    if faults := report.faults():
        raise click.ClickException("; ".join(faults))
