"""Publishes a Chimera's availability to OpenClaw: copy this file to `tools/openclaw_client.py`.

In the Chimera's own start-up and shutdown:

    openclaw = openclaw_client.connect(report)     # report() -> openclaw_client.Report
    ...
    openclaw_client.disconnect(openclaw)

By itself, to try the settings (`--once` sends one heartbeat and exits 0 if it was accepted):

    python tools/openclaw_client.py --once --workers 24 --available 5 --queue planner=3 --tag region:eu-1

It is configured by the environment alone: OPENCLAW_ENABLED, OPENCLAW_ENDPOINT, OPENCLAW_STATE_DIR,
OPENCLAW_TLS_CA, _CERTIFICATE and _KEY, OPENCLAW_TOKEN_KEY, _KID, _ISSUER and _AUDIENCE, and every other key
of `[openclaw]`. OpenClaw is advisory: whatever is wrong with it is logged, and the Chimera goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from openclaw_exporter.client import Publisher, Report, load_settings_from_env
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("openclaw")


def connect(report: Callable[[], Report]) -> Publisher | None:
    """Start to publish, from a thread of its own.

    Args:
        report: Returns what this Chimera says of itself now; called once an interval, must not block.

    Returns:
        The running publisher; None where OpenClaw is switched off or cannot be used.
    """
    try:
        publisher = _open(report)
    except UserError as error:
        log.error("OpenClaw cannot be used, this node goes on without it: %s", error)  # noqa: TRY400 - a mistake, no bug
        return None
    if publisher is not None:
        publisher.start()
    return publisher


def disconnect(publisher: Publisher | None) -> None:
    """Say that this node leaves, and end within three seconds."""
    if publisher is not None:
        publisher.stop(draining=True, timeout=3.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish what the command line says, until a signal comes."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    began = time.monotonic()

    def report() -> Report:
        return Report(
            version=options.version,
            capacity={"workers": options.workers, "available_slots": options.available},
            queue_depth=dict(options.queue),
            tags=tuple(options.tag),
            uptime_seconds=int(time.monotonic() - began),
        )

    try:
        publisher = _open(report)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if publisher is None:
        print("OPENCLAW_ENABLED is false: nothing is published")
        return 0
    return _send_one(publisher) if options.once else _run(publisher)


def _open(report: Callable[[], Report]) -> Publisher | None:
    settings = load_settings_from_env(os.environ)
    return Publisher(settings, report) if settings.enabled else None


def _send_one(publisher: Publisher) -> int:
    publisher.tick()
    result = publisher.last_result
    publisher.stop(draining=False)
    if result is None:
        print(f"node {publisher.node_id} is not in the rollout")
        return 0
    print(f"node {publisher.node_id}: {result.outcome.value} ({result.status or result.error_type})")
    return 0 if result.error_type == "" else 1


def _run(publisher: Publisher) -> int:
    # Blocked in all threads, and waited for below: neither comes at a moment that nobody is ready for.
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    publisher.start()
    log.info("node %s publishes every %g s", publisher.node_id, publisher.interval)
    signal.sigwait(ending)
    disconnect(publisher)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publish this node's availability to OpenClaw.")
    parser.add_argument("--once", action="store_true", help="send one heartbeat and exit")
    parser.add_argument("--version", default="1.2.0", help="the version that this node runs")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--available", type=int, default=0, help="free worker slots")
    parser.add_argument("--queue", type=_queue, action="append", default=[], metavar="TOPIC=DEPTH")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY:VALUE")
    return parser.parse_args(arguments)


def _queue(text: str) -> tuple[str, int]:
    topic, _, depth = text.partition("=")
    if not topic or not depth.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no TOPIC=DEPTH, such as planner=3")
    return topic, int(depth)


if __name__ == "__main__":
    sys.exit(main())
