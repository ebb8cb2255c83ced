"""The publisher of the present settings, and how it gives way to that of others."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from openclaw_exporter.client import Publisher, in_rollout
from openclaw_exporter.errors import CredentialError, StateError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Meter

    from openclaw_exporter.client import ClientSettings, Report

_LOGGER: Final = logging.getLogger(__name__)
_STOP_TIMEOUT: Final = 3.0
_PATIENCE: Final = 20.0
_PAUSE: Final = 0.25


class Publishing:
    """Holds the one publisher of this node.

    Args:
        settings: The table `[openclaw]`.
        node_id: This node's id, the same for the process's life.
        source: Returns what the node says now.
        on_turn: Called by the publisher's loop at every turn.

    Raises:
        UserError: The settings cannot be used.
    """

    def __init__(
        self,
        settings: ClientSettings,
        node_id: str,
        source: Callable[[], Report],
        on_turn: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._node_id = node_id
        self._source = source
        self._meter: Meter | None = None
        self._on_turn = on_turn
        self._ended = False
        self.publisher = self._make(settings)

    def start(self) -> None:
        """Publish; the first heartbeat at once."""
        self.publisher.start()

    def measure(self, meter: Meter) -> None:
        """Let the publisher's metrics go to this meter; they were kept back until now."""
        self._meter = meter
        self.publisher.measure(meter)

    def stop(self, *, draining: bool, timeout: float) -> None:
        """End in time, with a last heartbeat that says so where `draining`."""
        self._ended = True
        self.publisher.stop(draining=draining, timeout=timeout)

    def change(self, settings: ClientSettings, source_of: Callable[[str], str]) -> None:
        """Go over to other settings; back to the present ones where they cannot be used.

        The first heartbeat with the new settings goes out at once. A node that publishes no more says that
        it leaves.

        Args:
            settings: The new ones.
            source_of: Returns where the value of a dotted key came from, for the log.

        Raises:
            UserError: Neither can be used now.
        """
        leaves = not (settings.enabled and in_rollout(self._node_id, settings.rollout_percent))
        self.publisher.stop(draining=leaves, timeout=_STOP_TIMEOUT)
        try:
            self.publisher = self._take_over(settings)
        except UserError as error:
            told = error.located(source_of) if isinstance(error, CredentialError) else error
            _LOGGER.error("[openclaw] stays as it was: %s", told)  # noqa: TRY400 - the user's mistake, not ours
            self.publisher = self._take_over(self._settings)
        else:
            self._settings = settings
        if self._ended:
            self.publisher.stop(draining=False, timeout=_STOP_TIMEOUT)
        else:
            self.publisher.start()

    def _take_over(self, settings: ClientSettings) -> Publisher:
        """Make a publisher, waiting until the one before has left the state directory."""
        same = settings.state_dir == self._settings.state_dir
        until = time.monotonic() + (_PATIENCE if same else 0.0)
        while True:
            try:
                return self._make(settings)
            except StateError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)

    def _make(self, settings: ClientSettings) -> Publisher:
        if settings.node_id not in ("", self._node_id):
            raise UserError(
                f"openclaw.node_id is {self._node_id} while the agent runs: restart it to change that"
            )
        publisher = Publisher(
            replace(settings, node_id=self._node_id),
            self._source,
            meter=self._meter,
            measured=self._meter is not None,
        )
        publisher.on_turn(self._on_turn)
        return publisher
