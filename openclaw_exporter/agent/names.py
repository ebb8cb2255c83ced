"""Which kind and unit each measurement's name has, over all collectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.observations import Measurement
from openclaw_exporter.telemetry.catalogue import CATALOGUE, Instrument, prometheus_name

if TYPE_CHECKING:
    from openclaw_exporter.plugin.observations import Observation

_CATALOGUE: Final = "the catalogue"


class MeasurementNames:
    """Holds kind and unit of every name: the catalogue's, and the first that a collector yielded of others.

    They hold for the agent's life, because an instrument of OpenTelemetry does. Two names that are one name
    in Prometheus count as the same, and only the first of them may be used.
    """

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[str, str, str]] = {}
        self._in_prometheus: dict[str, str] = {}
        for instrument in CATALOGUE.values():
            self._fix(instrument, _CATALOGUE)

    def conflict(self, observation: Observation, collector: tuple[str, str]) -> str | None:
        """Return why an observation cannot stand beside what is known, or None; remember its name."""
        if not isinstance(observation, Measurement):
            return None
        fixed = self._fixed.get(observation.name)
        if fixed is None:
            return self._admit(observation, "/".join(collector))
        kind, unit, owner = fixed
        if (kind, unit) == (observation.kind, observation.unit):
            return None
        return (
            f"{observation.name} is a {kind} in {unit!r} by {owner}, not a "
            f"{observation.kind} in {observation.unit!r}"
        )

    def _admit(self, measurement: Measurement, owner: str) -> str | None:
        instrument = Instrument(measurement.name, measurement.kind, measurement.unit, "")
        rival = self._in_prometheus.get(prometheus_name(instrument))
        if rival is not None:
            return (
                f"{measurement.name} has the same name in Prometheus as {rival}, by {self._fixed[rival][2]}"
            )
        self._fix(instrument, owner)
        return None

    def _fix(self, instrument: Instrument, owner: str) -> None:
        self._fixed[instrument.name] = (instrument.kind, instrument.unit, owner)
        self._in_prometheus[prometheus_name(instrument)] = instrument.name
