"""Creates the catalogue's instruments through opentelemetry-api; the SDK is nobody's business here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from opentelemetry.metrics import Observation

from openclaw_exporter.telemetry.catalogue import CATALOGUE
from openclaw_exporter.telemetry.instrument import AttributeValue

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, UpDownCounter, _Gauge

    from openclaw_exporter.telemetry.catalogue import Instrument, Kind
    from openclaw_exporter.telemetry.tally import Tally

Series: TypeAlias = tuple[float, Mapping[str, AttributeValue]]
Source: TypeAlias = Callable[[], Iterable[Series]]


class _Sources:
    """What one observable yields; the meter's callback holds it, and the meter goes when its user does."""

    __slots__ = ("__weakref__", "all")

    def __init__(self) -> None:
        self.all: list[Source] = []


# A meter keeps the callback of an observable's first registration only. The sources of each are found again
# here, so that a second publisher or a reloaded part over the same meter is heard, and a closed one is not.
_SOURCES: Final[WeakKeyDictionary[Meter, WeakValueDictionary[str, _Sources]]] = WeakKeyDictionary()
_LOCK: Final = threading.Lock()


class Registrar(Protocol):
    """Who exports what is observed over a meter, where not the meter itself does."""

    def register(
        self,
        kind: Kind,
        name: str,
        unit: str,
        description: str,
        sources: Callable[[], Iterable[Source]],
    ) -> None:
        """Export what all sources yield at each collection."""


# Held by whoever set the meter up: what is registered knows the meter, which would otherwise never go.
_REGISTRARS: Final[WeakKeyDictionary[Meter, ref[Registrar]]] = WeakKeyDictionary()


def use_registrar(meter: Meter, registrar: Registrar) -> None:
    """Let a registrar, held elsewhere, take what is observed over the meter from now on."""
    _REGISTRARS[meter] = ref(registrar)


def registrar_of(meter: Meter) -> Registrar | None:
    """Return the registrar of a meter; None where the meter sees to it itself."""
    found = _REGISTRARS.get(meter)
    return found() if found is not None else None


class Instruments:
    """The catalogue's instruments over one meter.

    Several may share a meter: counters and histograms are the same ones, and each one's observed series are
    exported until it is closed.

    Args:
        meter: From opentelemetry-api; a no-op meter will do.

    Example:
        >>> from opentelemetry.metrics import NoOpMeter
        >>> instruments = Instruments(NoOpMeter("doc"))
        >>> instruments.counter("openclaw.publish.success_total").add(1)
        >>> instruments.observe("openclaw.node.uptime", lambda: [(12.5, {})])
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._own: list[tuple[_Sources, Source]] = []

    def counter(self, name: str) -> Counter:
        """Return the counter; its series exist from now on, at 0.

        Raises:
            KeyError: The catalogue has no counter of that name.
        """
        definition = _definition(name, "counter")
        counter = self._meter.create_counter(name, unit=definition.unit, description=definition.description)
        for attributes in definition.zeros:
            counter.add(0, dict(attributes))
        return counter

    def up_down(self, name: str) -> UpDownCounter:
        """Return the updowncounter.

        Raises:
            KeyError: The catalogue has no updowncounter of that name.
        """
        definition = _definition(name, "updowncounter")
        return self._meter.create_up_down_counter(
            name, unit=definition.unit, description=definition.description
        )

    def gauge(self, name: str) -> _Gauge:
        """Return the gauge that keeps the value it was last set to.

        Raises:
            KeyError: The catalogue has no gauge of that name.
        """
        definition = _definition(name, "gauge")
        return self._meter.create_gauge(name, unit=definition.unit, description=definition.description)

    def histogram(self, name: str) -> Histogram:
        """Return the histogram, with the catalogue's bounds.

        Raises:
            KeyError: The catalogue has no histogram of that name.
        """
        definition = _definition(name, "histogram")
        return self._meter.create_histogram(
            name,
            unit=definition.unit,
            description=definition.description,
            explicit_bucket_boundaries_advisory=definition.bounds,
        )

    def tally(self, name: str) -> Tally:
        """Return the histogram as a `Tally`, for paths where the SDK's own costs too much.

        Raises:
            KeyError: The catalogue has no histogram of that name.
        """
        # The SDK comes in only where it is used: the client is embedded with the API alone.
        from openclaw_exporter.telemetry.tally import tallies_of  # noqa: PLC0415

        return tallies_of(self._meter).get(_definition(name, "histogram"))

    def observe(self, name: str, source: Source) -> None:
        """Export what the source yields at each collection; a series that it stops yielding disappears.

        Args:
            name: A counter (totals so far), updowncounter or gauge of the catalogue.
            source: Returns (value, attributes) for each series. It must be quick and must not block: all
                exports wait for it.

        Raises:
            KeyError: The catalogue has no such instrument, or it is a histogram.
        """
        definition = _definition(name, "counter", "updowncounter", "gauge")
        with _LOCK:
            known = _SOURCES.setdefault(self._meter, WeakValueDictionary())
            sources = known.get(name)
            fresh = sources is None
            if sources is None:
                sources = known[name] = _Sources()
            sources.all.append(source)
        self._own.append((sources, source))
        if fresh:
            observe_with(
                self._meter,
                definition.kind,
                name,
                definition.unit,
                definition.description,
                lambda: sources.all,
            )

    def close(self) -> None:
        """Stop exporting what was observed through this object. Counters and histograms stay."""
        with _LOCK:
            for sources, source in self._own:
                sources.all.remove(source)
        self._own.clear()


def observe_with(
    meter: Meter,
    kind: Kind,
    name: str,
    unit: str,
    description: str,
    sources: Callable[[], Iterable[Source]],
) -> None:
    """Register an observable instrument that yields what all sources yield at that moment.

    Args:
        meter: Where to register it.
        kind: `counter`, `updowncounter` or `gauge`.
        name: Of the instrument.
        unit: UCUM.
        description: One sentence.
        sources: Returns them, at each collection anew.
    """
    registrar = registrar_of(meter)
    if registrar is not None:
        registrar.register(kind, name, unit, description, sources)
        return

    def callback(_options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, attributes) for source in tuple(sources()) for value, attributes in source()
        ]

    create = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }[kind]
    create(name, callbacks=[callback], unit=unit, description=description)


def _definition(name: str, *kinds: Kind) -> Instrument:
    definition = CATALOGUE.get(name)
    if definition is None:
        message = f"the catalogue has no instrument {name!r}; add it to openclaw_exporter/telemetry first"
        raise KeyError(message)
    if definition.kind not in kinds:
        message = f"{name!r} is a {definition.kind} in the catalogue, not a {' or '.join(kinds)}"
        raise KeyError(message)
    return definition
