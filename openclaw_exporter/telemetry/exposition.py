"""The Prometheus side: what is there to be scraped."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openclaw_exporter.telemetry.text_format import TextFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openclaw_exporter.telemetry.observed import ObservedInstruments
    from openclaw_exporter.telemetry.tally import Tallies


class Exposition:
    """The metrics of one meter provider in Prometheus' text format.

    Args:
        resource: The attributes of what the metrics are about.

    Attributes:
        reader: The reader to be registered with the meter provider.
    """

    def __init__(self, resource: Mapping[str, object]) -> None:
        self._format = TextFormat(resource)
        self._observed: ObservedInstruments | None = None
        self._tallies: Tallies | None = None
        self.reader = InMemoryMetricReader()
        self._lock = threading.Lock()

    def read_from(self, observed: ObservedInstruments, tallies: Tallies) -> None:
        """Read what the SDK does not collect too, straight from where it is."""
        self._observed, self._tallies = observed, tallies

    def text(self) -> bytes:
        """Return all metrics now; one caller at a time, for two would share out what the reader collects."""
        page = self._format.page()
        with self._lock:
            collected = self.reader.get_metrics_data()
        for resource in collected.resource_metrics if collected else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    page.add_metric(metric)
        for metric in self._tallies.read() if self._tallies else ():
            page.add_metric(metric)
        for instrument, series in self._observed.read() if self._observed else ():
            page.add(instrument.kind, instrument.name, instrument.unit, instrument.description, series)
        return page.text()
