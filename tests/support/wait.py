"""Waiting for what happens in another task, thread or process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], *, timeout: float = 120, what: str = "the condition") -> T:
    """Return the predicate's first true value; fail after `timeout` seconds.

    The time is for a crowded machine: it only says how long a failure takes to be called one.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            message = f"{what} did not come about within {timeout} s (last value: {value!r})"
            raise AssertionError(message)
        time.sleep(0.02)


async def come_true(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks or processes do, within a running loop."""
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.02)
