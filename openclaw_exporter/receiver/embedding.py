"""A receiver in a thread of its own, for programs that do something else besides: demos and tests."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import uvloop

from openclaw_exporter.receiver.server import serve

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, Self

    from openclaw_exporter.receiver.server import Addresses
    from openclaw_exporter.receiver.settings import ReceiverSettings
    from openclaw_exporter.telemetry.provider import Telemetry


def run(settings: ReceiverSettings, *, telemetry: Telemetry | None = None, **arguments: Any) -> None:
    """Run a receiver in this thread until SIGTERM or SIGINT; see `serve`."""
    _run(serve(settings, telemetry=telemetry, **arguments))


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


class Receiver:
    """A receiver that runs in a thread of its own between `start` and `stop`. A context manager.

    Args:
        settings: The configuration.
        telemetry: Where metrics go; it is not shut down here.
    """

    def __init__(self, settings: ReceiverSettings, *, telemetry: Telemetry | None = None) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._addresses: Addresses | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def addresses(self) -> Addresses:
        """Where it listens, once started."""
        if self._addresses is None:
            message = "the receiver has not been started"
            raise RuntimeError(message)
        return self._addresses

    def start(self) -> Addresses:
        """Start, and return where it listens.

        Raises:
            UserError: It cannot start; see `serve`.
        """
        self._thread = threading.Thread(target=self._main, name="openclaw-receiver", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self.addresses

    def stop(self) -> None:
        """Stop gracefully and wait for it.

        Raises:
            BaseException: What the receiver failed with, if it did.
        """
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None
        if self._error is not None:
            raise self._error

    def _main(self) -> None:
        try:
            _run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked for it
            self._error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await serve(self._settings, telemetry=self._telemetry, ready=self._note, stop=self._stop)

    def _note(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._started.set()
