"""Start the swarm, or one of its members: `python -m swarm --layout list --workers 4 --rate 5`.

Every member is a process of its own with its role in its command line. Whoever dies stays away, so that it
can be seen from outside; the rest go on. An interrupt (Ctrl-C) or SIGTERM ends all of them.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from swarm import members
from swarm.layouts import LAYOUTS

if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Read the command line and run what it asks for."""
    options = _arguments()
    if options.role is None:
        _start_all(options)
        return
    signal.signal(signal.SIGTERM, _end)
    layout = LAYOUTS[options.layout](options.url)
    try:
        if options.role == "planner":
            members.plan(layout, options.rate)
        elif options.role == "worker":
            members.work(layout, options.name, options.work)
        else:
            members.judge(layout, options.name)
    except KeyboardInterrupt:
        pass
    finally:
        layout.close()


def _start_all(options: argparse.Namespace) -> None:
    names = ["planner", "judge", *(f"worker-{number}" for number in range(1, options.workers + 1))]
    running: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGTERM, _end)
    try:
        for name in names:
            running[name] = subprocess.Popen(_command(options, name))  # noqa: S603 - it is this program again
            print(f"{name} runs as process {running[name].pid}", flush=True)
        while running:
            time.sleep(0.2)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                print(f"{name} ended with status {running.pop(name).returncode}", flush=True)
    except KeyboardInterrupt:
        print("ending", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _command(options: argparse.Namespace, name: str) -> tuple[str, ...]:
    role = name.partition("-")[0]
    place = ("--layout", options.layout, "--url", options.url)
    pace = ("--rate", str(options.rate), "--work", str(options.work))
    return (sys.executable, "-m", "swarm", "--role", role, "--name", name, *place, *pace)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m swarm", description=__doc__.partition("\n")[0])
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="list", help="how queues lie in Redis")
    parser.add_argument("--url", default="redis://127.0.0.1:6379/0", help="where Redis is")
    parser.add_argument("--workers", type=int, default=4, help="how many workers to start")
    parser.add_argument("--rate", type=float, default=5.0, help="tasks a second that the planner makes")
    parser.add_argument("--work", type=float, default=0.5, help="seconds that a worker takes for a task")
    parser.add_argument(
        "--role", choices=("planner", "worker", "judge"), help="be this one, and nothing else"
    )
    parser.add_argument("--name", default="worker-1", help="the member's name")
    return parser.parse_args()


if __name__ == "__main__":
    main()
