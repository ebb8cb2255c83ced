"""The receiver's pulse: four times a second, and a measure of how late it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.listening import STALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD: Final = 0.25
_PER_SECOND: Final = round(1 / PERIOD)
_REMEMBERED: Final = 15 * _PER_SECOND


class Pulse:
    """Calls what has to be done regularly.

    Args:
        tick: Called each time.
        second: Called about once a second.
    """

    def __init__(self, tick: Callable[[], None], second: Callable[[], None]) -> None:
        self._tick = tick
        self._second = second
        self._lags: deque[float] = deque(maxlen=_REMEMBERED)

    @property
    def lag(self) -> float:
        """How late it came, at worst, within the last 15 seconds; seconds."""
        return max(self._lags, default=0.0)

    @property
    def stalled(self) -> bool:
        """Whether it came so late just now that the loop counts as stalled."""
        return bool(self._lags) and self._lags[-1] > STALL_SECONDS

    async def run(self) -> None:
        """Go on until cancelled."""
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            due = loop.time() + PERIOD
            await asyncio.sleep(PERIOD)
            self._lags.append(max(0.0, loop.time() - due))
            self._tick()
            count += 1
            if count % _PER_SECOND == 0:
                self._second()
