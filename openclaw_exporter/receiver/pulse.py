"""The receiver's pulse: four times a second, and a measure of how late it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from openclaw_exporter.receiver.listening import STALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger(__name__)

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
        self._last = time.monotonic()

    @property
    def lag(self) -> float:
        """How late it came, at worst, within the last 15 seconds; seconds."""
        return max(self._lags, default=0.0)

    @property
    def last_lag(self) -> float:
        """How late the last one came, seconds."""
        return self._lags[-1] if self._lags else 0.0

    @property
    def stalled(self) -> bool:
        """Whether it is so late, or was just now, that the loop counts as stalled."""
        overdue = time.monotonic() - self._last - PERIOD
        return max(overdue, self.last_lag) > STALL_SECONDS

    async def run(self) -> None:
        """Go on until cancelled."""
        count = 0
        while True:
            await asyncio.sleep(PERIOD)
            now = time.monotonic()
            self._lags.append(max(0.0, now - self._last - PERIOD))
            self._last = now
            count += 1
            try:
                self._tick()
                if count % _PER_SECOND == 0:
                    self._second()
            except Exception:
                # A fault in what it drives must not stop the clock that expiry runs by.
                _logger.exception("a pulse failed")
