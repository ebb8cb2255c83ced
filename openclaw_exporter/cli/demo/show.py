"""The demo from beginning to end."""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from openclaw_exporter.cli.demo.neighbours import Neighbour, Neighbours, silences
from openclaw_exporter.cli.demo.processes import Child, ChildError
from openclaw_exporter.cli.demo.queues import Queues
from openclaw_exporter.cli.demo.result import Result
from openclaw_exporter.cli.demo.stage import Stage
from openclaw_exporter.cli.demo.view import LiveView, addresses
from openclaw_exporter.cli.demo.watch import Changes, Sight, Watcher
from openclaw_exporter.client import RegistryError
from openclaw_exporter.logs import set_up_logging
from openclaw_exporter.plugin.host import installed_plugins
from openclaw_exporter.receiver.descriptors import allow_all

if TYPE_CHECKING:
    from openclaw_exporter.cli.demo.ending import Ending
    from openclaw_exporter.cli.demo.view import View

_READY: Final = 60.0
"""Seconds in which the receiver starts, and the agent's first heartbeat comes, on a crowded machine too."""
_LATE: Final = 20.0
"""Seconds that an agent gets which is late when the time is up: the machine may just have stalled."""
_RETURN: Final = 60.0
"""Seconds in which what was turned away comes back: told to wait for 6 s or more, and then one by one."""
_CHIMERA: Final = "chimera"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the demo was asked for.

    Attributes:
        nodes: Simulated neighbours.
        interval: Seconds between two heartbeats of one node.
        seconds: How long; None until it is told to end.
        redis: A Redis for the queues; None for one of its own.
        keep: A directory to work in and to leave behind; None for a temporary one.
        live: Whether to show a table that changes in its place.
    """

    nodes: int
    interval: int
    seconds: float | None
    redis: str | None
    keep: Path | None
    live: bool


class Demo:
    """Everything that runs.

    Args:
        wishes: What was asked for.
        view: Where to say what is going on.
        ending: Tells when to end.
    """

    def __init__(self, wishes: Wishes, view: View, ending: Ending) -> None:
        self._wishes = wishes
        self._view = view
        self._ending = ending

    def run(self) -> Result | None:
        """Show everything; None where it was ended before anything could be seen.

        Raises:
            UserError: The Redis that was named cannot be used, or a directory cannot be written.
            ChildError: A process did not start.
        """
        with ExitStack() as stack:
            if self._wishes.keep is None:
                path = stack.enter_context(tempfile.TemporaryDirectory(prefix="openclaw-demo-"))
            else:
                path = str(self._wishes.keep)
            return self._play(Path(path).resolve(), stack)

    def _play(self, directory: Path, stack: ExitStack) -> Result | None:
        stage = Stage.build(directory, interval=self._wishes.interval)
        _log_to(stage.logs / "neighbours.log", stack)
        allow_all()
        queues = self._start_queues(stage, stack)
        receiver = _command("receiver", stage.write_receiver(), stage, stack)
        watcher = Watcher(stage)
        stack.callback(watcher.close)
        children = [receiver, *(queues.children if queues else ())]
        if not self._wait_for(receiver, watcher):
            return None
        children.append(_command("agent", stage.write_agent(queues), stage, stack))
        neighbours = _neighbours(self._wishes.nodes, stage)
        stack.callback(neighbours.stop)
        neighbours.start()
        if self._wishes.live:
            self._view = LiveView(addresses(stage), stage.agent.name)
            stack.callback(self._view.close)
        else:
            for line in addresses(stage):
                self._view.say(line)
        return self._watch(stage, watcher, neighbours, children)

    def _start_queues(self, stage: Stage, stack: ExitStack) -> Queues | None:
        installed = installed_plugins()
        if not installed:
            self._view.say("no plugin is installed: pip install 'openclaw-exporter[plugins]'")
        if _CHIMERA not in installed:
            self._view.say("no queues: the plugin chimera, which reads them, is not installed")
            return None
        queues = Queues.start(self._wishes.redis, directory=stage.directory, logs=stage.logs, stack=stack)
        if isinstance(queues, str):
            self._view.say(queues)
            return None
        self._view.say(f"Queues            {queues.place}, keys {queues.keys.prefix}:*")
        return queues

    def _wait_for(self, receiver: Child, watcher: Watcher) -> bool:
        deadline = time.monotonic() + _READY
        while not watcher.ready():
            receiver.check()
            if time.monotonic() > deadline:
                raise ChildError(f"the receiver is not ready after {_READY:g} s; its log:\n{receiver.tail()}")
            if self._ending.wait(0.05):
                return False
        return True

    def _watch(self, stage: Stage, watcher: Watcher, neighbours: Neighbours, children: list[Child]) -> Result:
        began = time.monotonic()
        step = min(0.5, self._wishes.interval / 4)
        changes = Changes()
        result = Result(0.0, Sight(), stage.agent.name)
        try:
            while not self._ending.wait(step) and not self._is_over(result, time.monotonic() - began):
                for child in children:
                    child.check()
                result.sight, result.neighbours = watcher.look(), neighbours.delivered
                self._view.show(result.sight, changes.of(result.sight.nodes))
        except (ChildError, RegistryError) as error:
            result.faults.append(str(error))
        result.seconds = time.monotonic() - began
        # By the look that ended it: what was turned away since then has had no time to come back.
        result.judge(ended_early=self._ending.signal is not None)
        return result

    def _is_over(self, result: Result, seconds: float) -> bool:
        """Whether the time is up; what is not there yet, or was turned away, gets some more to be heard."""
        if self._wishes.seconds is None:
            return False
        if result.agent is None:
            patience = _READY
        elif result.waits:
            patience = _RETURN
        else:
            patience = 0.0 if result.agent_is_up else max(_LATE, self._wishes.interval)
        return seconds >= self._wishes.seconds + patience


def _log_to(path: Path, stack: ExitStack) -> None:
    """Send what this process logs, which is what the neighbours' publishers say, to a file."""
    stream = stack.enter_context(path.open("a", encoding="utf-8"))
    set_up_logging(stream=stream, log_format="text")
    stack.callback(logging.getLogger().handlers.clear)


def _command(name: str, configuration: Path, stage: Stage, stack: ExitStack) -> Child:
    """Start one of our own commands through the real command line."""
    child = Child.python(name, "openclaw_exporter", name, "--config", str(configuration), logs=stage.logs)
    stack.callback(child.stop)
    return child


def _neighbours(count: int, stage: Stage) -> Neighbours:
    plans = silences(count)
    listed = [
        Neighbour(number, stage.neighbour(number), silence) for number, silence in enumerate(plans, start=1)
    ]
    return Neighbours(listed, interval=stage.interval)
