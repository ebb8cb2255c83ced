"""The collector: the GPUs of all vendors, and one answer to whether there are any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_exporter.plugin import Capacity, Observation, Tag
from openclaw_exporter_gpu.found import Found, GpuUnknownError
from openclaw_exporter_gpu.presence import Signs

if TYPE_CHECKING:
    from openclaw_exporter_gpu.cards import Cards
    from openclaw_exporter_gpu.nvidia import Nvidia
    from openclaw_exporter_gpu.options import Options


class Gpus:
    """Every GPU of this machine.

    Args:
        options: What to say beside the measurements.
        root: Where `/dev`, `/proc` and `/sys` begin.
    """

    name = "gpus"
    isolation = "process"
    deadline = 10.0  # without its persistence daemon, NVIDIA's driver wakes each GPU for the first question

    def __init__(self, options: Options, root: Path = Path("/")) -> None:
        self._options = options
        self._root = root
        self._signs = Signs(root, integrated=options.integrated)
        self._vendors: tuple[Nvidia, Cards] | None = None

    def absent(self) -> list[Observation] | None:
        """Return what to say where nothing hints at a GPU, so that no process has to look; else None."""
        try:
            return None if self._signs.seen() else self._presence(0)
        except (OSError, ValueError):
            return None

    def collect(self) -> list[Observation | Exception]:
        """Return presence and every series that the devices support, and an error for each silent one.

        Raises:
            GpuUnknownError: Nothing is known, and there may be a GPU.
        """
        found = Found()
        for vendor in self._asked():
            try:
                part = vendor.read()
            except GpuUnknownError as error:
                found.problems.append(error)
                continue
            found.count += part.count
            found.observations += part.observations
            found.problems += part.problems
            found.faults += part.faults
        if found.problems and not found.observations:
            raise found.problems[0]
        presence = [] if found.problems else self._presence(found.count)
        return [*presence, *found.observations, *found.problems, *found.faults]

    def close(self) -> None:
        """Give NVIDIA's library back."""
        if self._vendors is not None:
            self._vendors[0].close()

    def _asked(self) -> tuple[Nvidia, Cards]:
        if self._vendors is None:
            # The agent itself needs neither: it asks `absent`.
            from openclaw_exporter_gpu.cards import Cards  # noqa: PLC0415
            from openclaw_exporter_gpu.nvidia import Nvidia  # noqa: PLC0415

            self._vendors = Nvidia(self._root), Cards(self._root, integrated=self._options.integrated)
        return self._vendors

    def _presence(self, count: int) -> list[Observation]:
        presence: list[Observation] = []
        if self._options.tag:
            presence.append(Tag("gpu", "true" if count else "false"))
        if self._options.capacity:
            presence.append(Capacity("gpus", count))
        return presence
