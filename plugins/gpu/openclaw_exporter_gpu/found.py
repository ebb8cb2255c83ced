"""What the reading of one vendor's GPUs comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from openclaw_exporter.plugin import Observation


class GpuUnknownError(Exception):
    """Whether there is a GPU, or what it does, cannot be told now."""


class GpuFaultError(Exception):
    """A GPU reports a fault of its own, which is said once in the log."""


@dataclass(slots=True)
class Found:
    """The GPUs of one vendor.

    Attributes:
        count: How many there are.
        observations: Their series.
        problems: One for each GPU that did not answer; with one, the count is not sure.
        faults: What they report about themselves.
    """

    count: int = 0
    observations: list[Observation] = field(default_factory=list)
    problems: list[GpuUnknownError] = field(default_factory=list)
    faults: list[GpuFaultError] = field(default_factory=list)
