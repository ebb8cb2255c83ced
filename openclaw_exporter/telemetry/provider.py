"""Sets OpenTelemetry up: one meter, read by Prometheus scrapes, by OTLP pushes, or by both."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from openclaw_exporter import __version__
from openclaw_exporter.telemetry.exposition import Exposition
from openclaw_exporter.telemetry.instruments import use_registrar
from openclaw_exporter.telemetry.listening import listen
from openclaw_exporter.telemetry.metrics_server import MetricsServer
from openclaw_exporter.telemetry.observed import ObservedInstruments
from openclaw_exporter.telemetry.resource import resource_of
from openclaw_exporter.telemetry.tally import tallies_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    from openclaw_exporter.telemetry.settings import TelemetrySettings

ServiceName = Literal["openclaw-exporter", "openclaw-receiver"]
_SCOPE: Final = "openclaw_exporter"


class Telemetry:
    """One running set-up of OpenTelemetry. Several may live in one process: nothing global is touched.

    Attributes:
        meter: Where the instruments are made; see `telemetry.instruments.Instruments`.
        prometheus_port: The TCP port that serves `/metrics`, None where none does.
    """

    def __init__(
        self,
        provider: MeterProvider,
        readers: tuple[MetricReader, ...],
        exposition: Exposition,
        server: MetricsServer | None,
        about: Resource,
    ) -> None:
        self._provider = provider
        self._readers = readers
        self._exposition = exposition
        self._server = server
        self._ended = False
        self.meter: Meter = provider.get_meter(_SCOPE, __version__)
        self._observed = ObservedInstruments(about, InstrumentationScope(_SCOPE, __version__))
        if not isinstance(self.meter, NoOpMeter):  # as it is where OTEL_SDK_DISABLED says so
            use_registrar(self.meter, self._observed)
        tallies = tallies_of(self.meter)
        exposition.read_from(self._observed, tallies)
        for reader in readers:
            if reader is not exposition.reader:
                tallies.feed(reader)
                self._observed.feed(reader)
        self.prometheus_port = server.port if server else None

    @classmethod
    def start(
        cls,
        settings: TelemetrySettings,
        *,
        service: ServiceName,
        node_id: str,
        resource: Mapping[str, str] | None = None,
        listening: socket.socket | None = None,
    ) -> Telemetry:
        """Start the exporters that the settings enable.

        Args:
            settings: The table `[telemetry]`.
            service: `service.name`.
            node_id: `service.instance.id`.
            resource: Further resource attributes from the configuration; they win over
                `OTEL_RESOURCE_ATTRIBUTES`, and `settings.resource_attributes` wins over them.
            listening: What `listen` has opened already; nobody is answered there before `serve`.

        Raises:
            UserError: The Prometheus port is taken, or OTLP or a resource detector is set up wrongly.
        """
        about = resource_of(
            service,
            node_id,
            {**(resource or {}), **settings.resource_attributes},
            settings.resource_detectors,
        )
        exposition = Exposition(about.attributes)
        readers: tuple[MetricReader, ...] = (exposition.reader,)
        opened = listening or listen(settings.prometheus)
        server = MetricsServer(exposition.text, opened) if opened else None
        try:
            if settings.otlp.pushes:
                from openclaw_exporter.telemetry.otlp import otlp_reader  # noqa: PLC0415 - only when used

                readers = (*readers, otlp_reader(settings.otlp))
            provider = MeterProvider(
                metric_readers=readers,
                resource=about,
                exemplar_filter=AlwaysOffExemplarFilter(),
                shutdown_on_exit=False,
            )
        except BaseException:
            if server:
                server.close()
            raise
        telemetry = cls(provider, readers, exposition, server, about)
        if listening is None:
            telemetry.serve()
        return telemetry

    def serve(self) -> None:
        """Answer scrapes from now on; to be called where `start` was given a socket."""
        if self._server:
            self._server.start()

    def exposition(self) -> bytes:
        """Return all metrics now in Prometheus' text format, whether or not they are served."""
        return self._exposition.text()

    def export(self) -> None:
        """Push all metrics by OTLP now, in the calling thread; where OTLP is off, do nothing."""
        for reader in self._readers:
            if reader is not self._exposition.reader:
                reader.collect()

    def shutdown(self, timeout: float = 3.0) -> None:
        """Export once more where OTLP is enabled, stop all threads and free the port.

        Args:
            timeout: Seconds that this may take at most; a collector that does not answer gets no more.
        """
        if self._ended:
            return
        self._ended = True
        deadline = time.monotonic() + timeout
        if self._server:
            self._server.close()
        # The SDK keeps to a reader's timeout more or less; a thread that is given up keeps to the whole.
        ending = threading.Thread(
            target=self._end_readers, args=(deadline,), name="telemetry-end", daemon=True
        )
        ending.start()
        ending.join(max(0.0, deadline - time.monotonic()))

    def _end_readers(self, deadline: float) -> None:
        # An export that is being tried again is given up half-way, so that it logs and closes in time.
        for reader in self._readers:
            reader.shutdown(timeout_millis=max(1.0, (deadline - time.monotonic()) * 1000 * 0.8))
