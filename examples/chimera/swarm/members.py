"""What the members of the swarm do."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

from swarm.layouts import Message, now

if TYPE_CHECKING:
    from swarm.layouts import Layout


def plan(layout: Layout, rate: float) -> None:
    """Queue a task every `1 / rate` seconds; each tenth is urgent."""
    for number in count(1):
        urgent = number % 10 == 0
        layout.put("task", Message(str(number), now(), priority=9 if urgent else 1))
        time.sleep(1 / rate)


def work(layout: Layout, name: str, seconds: float) -> None:
    """Take tasks, work on each for some time, and hand the result to the judge."""
    while True:
        task = layout.take("task", name)
        if task is not None:
            time.sleep(seconds)
            layout.put("review", Message(task.text, now(), task.priority))
            layout.done("task", task)


def judge(layout: Layout, name: str) -> None:
    """Take results and judge them; a judge is fast."""
    while True:
        result = layout.take("review", name)
        if result is not None:
            layout.done("review", result)
