"""A million known nodes at 60 s on one machine, brought by a proxy over kept connections (RFC 9440).

    python tests/benchmarks/bench_million.py [--nodes N] [--rate N,N…] [--seconds N] [--workers N]
        [--scaled] [--beating N] [--keep DIR] [--no-kill]

The load generator is on the same machine. It shows a proxy's certificate, sends each node's own certificate
and token, at the given rate by a fixed timetable: a latency counts from the moment at which the request was
due, so that a generator that waits for answers hides nothing. Nodes say an interval of 60 s; where that
means more than the rate, let the receiver stretch it (`--scaled`: `target_rate` is the last rate). Then
the receiver's process is killed (-9) under the last load: how long until it is ready, is what was
acknowledged there, does anybody expire?

First every node registers, as fast as it goes: that costs a chain and a token verification each, and after
the kill as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import million_fleet
import million_seed
from interpreter import announce
from million_fleet import Fleet
from million_receiver import LONGEST, Receiver, Usage
from proxy_load import CONNECTIONS, PATIENCE, Generator, LostError, percentiles

from support.pki import Pki

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 60


def register(generator: Generator, receiver: Receiver) -> None:
    """Let every node be known, and report."""
    before, usage, started = receiver.memory(), Usage(receiver), time.monotonic()
    generator.interval = LONGEST
    generator.register()
    took = time.monotonic() - started
    print(
        f"registered in {took:.0f} s = {generator.recorded / took:.0f} a second, others {others(generator)}",
        flush=True,
    )
    usage.report(generator.recorded)
    grown = [now - was for now, was in zip(receiver.memory(), before, strict=True)]
    each = ", ".join(f"{size / generator.fleet.count / 1024:.2f}" for size in grown)
    print(f"  memory a node: {each} KiB (the registry's process first, then each worker)", flush=True)


def others(generator: Generator) -> str:
    """Return the answers that were not `recorded`, in words."""
    counts = ", ".join(f"{count} x {text.decode()}" for text, count in generator.other.most_common(4))
    return counts or "none"


def steady(generator: Generator, receiver: Receiver, rate: float, seconds: float) -> None:
    """Run at a rate for some time, and report."""
    generator.forget()
    expired = receiver.total("openclaw_registry_node_expired_total")
    usage, started = Usage(receiver), time.monotonic()
    due = generator.run(rate, seconds)
    took = time.monotonic() - started
    short = max(0, due - generator.recorded)
    print(
        f"at {rate:.0f} a second for {seconds:.0f} s: {generator.recorded} recorded = "
        f"{generator.recorded / took:.0f} a second, {short} of {due} due were not; others "
        f"{others(generator)}; at most {generator.latest * 1000:.0f} ms behind the timetable"
    )
    print(f"  from due to answered: {percentiles(generator.latencies)}")
    answered = sorted(generator.intervals)
    print(
        f"  a round takes {generator.fleet.count / rate:.0f} s; intervals answered: {answered[:1]} to", end=""
    )
    print(f" {answered[-1:]} s")
    usage.report(generator.recorded)
    gone = receiver.total("openclaw_registry_node_expired_total") - expired
    states, beating = receiver.states(), generator.fleet.count
    silent = sum(states.values()) - beating
    others_said = f" and {silent} silent ones that had said {LONGEST} s" if silent else ""
    print(
        f"  expired {gone:.0f} of {beating} nodes that beat at {generator.interval} s{others_said}; "
        f"nodes by state {states}",
        flush=True,
    )


def killed(generator: Generator, receiver: Receiver, rate: float, seconds: float) -> None:
    """Kill the receiver under load; report."""
    generator.forget()
    pid = os.fork()
    if pid == 0:
        time.sleep(min(10.0, seconds / 4))
        os.kill(receiver.pids()[0], signal.SIGKILL)
        os._exit(0)
    try:
        generator.run(rate, seconds)
    except LostError:
        pass
    else:
        message = "the receiver was not killed"
        raise AssertionError(message)
    finally:
        os.waitpid(pid, 0)
    receiver.kill()
    acknowledged = list(generator.recent)
    generator.close()
    ready = receiver.start()
    generator.connect()
    sent, known = generator.again(acknowledged)
    print(
        f"kill -9 at {rate:.0f} a second: ready again after {ready}; of the last {sent} "
        f"acknowledged {sent - known} lost",
        flush=True,
    )
    steady(generator, receiver, rate, seconds)


@contextmanager
def place(keep: str) -> Iterator[Path]:
    """Yield a directory; a temporary one where none is named."""
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        yield Path(keep)
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--nodes", type=int, default=1_000_000)
    arguments.add_argument(
        "--rate", default="16700", help="heartbeats a second; several: one after the other"
    )
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument("--beating", type=int, default=0, help="of the nodes; 0: all")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--scaled", action="store_true", help="let the receiver stretch the intervals")
    arguments.add_argument("--keep", default="", help="a directory for the files")
    arguments.add_argument("--no-kill", action="store_true", help="end before the kill")
    chosen = arguments.parse_args()
    announce()
    with place(chosen.keep) as directory:
        pki = Pki(directory)
        beating = chosen.beating or chosen.nodes
        million_fleet.make(pki, directory / "fleet", beating)
        rates = [float(rate) for rate in chosen.rate.split(",")]
        target = rates[-1] if chosen.scaled else 0.0
        # A proxy's connections may wait for their first request.
        receiver = Receiver(
            directory,
            pki,
            chosen.workers,
            chosen.nodes,
            target_rate=target,
            limits=f"header_timeout = {PATIENCE}",
        )
        print(f"{chosen.nodes} nodes, {CONNECTIONS} connections of a proxy, {chosen.workers} workers")
        if beating < chosen.nodes:
            million_seed.seed(receiver.registry, range(beating, chosen.nodes))
        print(f"ready after {receiver.start()}, with {chosen.nodes - beating} nodes", flush=True)
        print(f"  memory: {', '.join(f'{size / 2**20:.0f}' for size in receiver.memory())} MiB")
        generator = Generator(Fleet(directory / "fleet"), pki, receiver.port)
        generator.connect()
        try:
            register(generator, receiver)
            generator.interval = INTERVAL
            for rate in rates:
                steady(generator, receiver, rate, chosen.seconds)
            if not chosen.no_kill:
                killed(generator, receiver, rates[-1], min(chosen.seconds, 120))
        finally:
            receiver.stop()


if __name__ == "__main__":
    main()
