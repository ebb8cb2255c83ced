"""What a load test does, and what it must not do."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openclaw_exporter.errors import UserError
from openclaw_exporter.wire.loopback import is_loopback

TAG: Final = "loadtest"
CUT_FROM: Final = 0.4
"""The share of the time after which a partition begins."""
_OTHER_FILES: Final = 200
"""Open files of a worker beside its nodes' connections, and some room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one load test does.

    Attributes:
        pki: The directory that `pki init` made; certificates and tokens are made of its keys.
        endpoint: The receiver's base URL.
        nodes: How many nodes there are at any time.
        interval: Seconds between two heartbeats of one.
        seconds: How long it lasts.
        ramp: Seconds over which the first heartbeats are spread.
        jitter: Each heartbeat is delayed by a random share of the interval up to this one.
        fixed: Keep to `interval`, whatever the receiver answers.
        keep_alive: Whether each node keeps its connection; else it opens one for each heartbeat.
        churn: Percent of the nodes that are replaced by new ones in a minute; every second one says good-bye.
        partition: Percent of the nodes that are cut off in the middle.
        partition_seconds: For how long.
        sign: Whether requests are signed.
        processes: How many processes the nodes are spread over.
        run: Tells this load test from others: the value of the nodes' tag `loadtest`.
    """

    pki: Path
    endpoint: str
    nodes: int
    interval: int
    seconds: float
    ramp: float
    jitter: float = 0.0
    fixed: bool = False
    keep_alive: bool = True
    churn: float = 0.0
    partition: float = 0.0
    partition_seconds: float = 0.0
    sign: bool = False
    processes: int = 1
    run: str = ""

    def share(self, worker: int) -> int:
        """Return how many nodes a worker has."""
        each, more = divmod(self.nodes, self.processes)
        return each + (worker < more)

    def tag(self, worker: int) -> str:
        """Return the tag that a worker's nodes have."""
        return f"{TAG}:{self.run}-{worker}"


def check_target(endpoint: str, *, remote: bool, target: str) -> None:
    """Check that a load test may talk to a receiver.

    Args:
        endpoint: The receiver's base URL.
        remote: Whether it was said that it is not on this machine.
        target: The host that was named once more, on purpose.

    Raises:
        UserError: It is no https URL, or elsewhere and that was not said twice.
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    if not host or parts.scheme != "https":
        raise UserError(f"the endpoint {endpoint!r} is no https URL, such as https://localhost:8443")
    if is_loopback(host):
        return
    if not remote or target != host:
        raise UserError(
            f"{host} is not this machine, and a load test can bring a receiver down. If it is yours and "
            f"you mean it, say so twice: --remote --target {host}"
        )


def check_times(plan: Plan) -> None:
    """Check that what is to happen has its time.

    Raises:
        UserError: The ramp or the partition would outlast the load test.
    """
    if plan.ramp >= plan.seconds:
        raise UserError(f"--ramp {plan.ramp:g} is not shorter than --for {plan.seconds:g}")
    left = (1 - CUT_FROM) * plan.seconds
    if plan.partition and plan.partition_seconds > left:
        raise UserError(
            f"--partition: {plan.partition_seconds:g} s are more than the {left:g} that are left of "
            f"--for {plan.seconds:g} when it begins"
        )


def make_room(plan: Plan) -> None:
    """Raise this process's limit of open files to what a worker needs, which inherits it, if it may.

    Raises:
        UserError: It may not.
    """
    needed = _OTHER_FILES + (plan.share(0) if plan.keep_alive else 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UserError(
            f"{plan.share(0)} connections in one process need {needed} open files, and this shell allows "
            f"{hard}: raise it (ulimit -Hn), spread the nodes with --processes, or give --new-connections"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
