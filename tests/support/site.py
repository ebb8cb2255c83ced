"""A whole site: nodes behind a proxy, receivers behind it, and a reader who follows everything."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from openclaw_exporter.client import Registry
from support.command import ReceiverCommand
from support.swarm import Swarm, Watch, every_event
from support.tls_proxies import TRUSTED
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from openclaw_exporter.client import Node, NodeEvent
    from support.pki import Pki
    from support.tls_proxies import TlsProxy

_EVENTS = "openclaw_registry_node_"


class Site:
    """Receivers, a proxy, a swarm and a watch. A context manager.

    Args:
        directory: For all files.
        pki: All certificates come from here.
        front: The kind of proxy.
        store: The lines of the receivers' table `[receiver.store]`; empty: a file of its own.
        receivers: How many.
        nodes: How many nodes publish.
        interval: Seconds between two heartbeats of a node.
    """

    def __init__(
        self,
        directory: Path,
        pki: Pki,
        front: type[TlsProxy],
        *,
        store: str = "",
        receivers: int = 1,
        nodes: int = 40,
        interval: int = 10,
    ) -> None:
        self._pki = pki
        self._reader = pki.reader()
        proxy = (
            f"min_interval = {interval}\n[receiver.proxy]\nnames = {list(TRUSTED.names)}\n"
            f"addresses = {list(TRUSTED.addresses)}\n"
        )
        self.receivers = []
        for number in range(receivers):
            place = directory / f"receiver-{number}"
            place.mkdir()
            receiver = ReceiverCommand(place, pki, extra=proxy, store=store)
            # Where a heartbeat is missing in the end, they tell who had it.
            receiver.environment["OPENCLAW_LOG_LEVEL"] = "debug"
            self.receivers.append(receiver)
        ports = [receiver.port for receiver in self.receivers]
        self.proxy = front(directory / "proxy", pki, *ports)
        self.swarm = Swarm(pki, self.proxy.url, directory / "nodes", count=nodes, interval=interval)
        self._counted: dict[str, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for receiver in self.receivers:
                receiver.start()
                stack.callback(receiver.stop)
            for receiver in self.receivers:
                receiver.ready()
            stack.enter_context(self.proxy)
            # Through the proxy, from whichever receiver it leads to.
            self.watch = Watch(stack.enter_context(self.registry()))
            self.watch.start()
            stack.enter_context(self.swarm)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def registry(self, receiver: ReceiverCommand | None = None) -> Registry:
        """Return a reader of one receiver, or of whichever the proxy leads to."""
        url = self.proxy.url if receiver is None else receiver.url
        files = self._reader
        return Registry(url, ca=self._pki.ca, certificate=files.certificate, key=files.key, timeout=30)

    def kill_receiver(self, number: int) -> None:
        """Kill one receiver and start it again; what it has counted is remembered."""
        receiver = self.receivers[number]
        for name, value in _events(receiver).items():
            self._counted[name] = self._counted.get(name, 0) + value
        receiver.kill()
        receiver.start()
        receiver.ready()

    def counted(self, event: str) -> float:
        """Return how many events of a kind all receivers have counted, those that were killed too."""
        name = f"{_EVENTS}{event}_total"
        return self._counted.get(name, 0) + sum(_events(one).get(name, 0) for one in self.receivers)

    def nodes(self, receiver: ReceiverCommand) -> dict[str, Node]:
        """Return every node that a receiver shows."""
        with self.registry(receiver) as registry:
            return {node.node_id: node for node in registry.nodes()}

    def log(self, receiver: ReceiverCommand, known: Sequence[NodeEvent]) -> list[NodeEvent]:
        """Return the events that the watch has seen, as one receiver tells them."""
        run, _, _ = known[0].last_event_id.rpartition("-")
        told: list[NodeEvent] = []
        with self.registry(receiver) as registry:
            events = every_event(registry, f"{run}-0")
            for event in events:
                told.append(event)
                if event.last_event_id == known[-1].last_event_id:
                    break
            events.close()
        return told

    def refreshed(self, since: float) -> None:
        """Wait until every node that is not silent was answered 2xx since then."""
        wait_until(
            lambda: self.swarm.all_accepted(since),
            timeout=120,
            what="a heartbeat of every node that runs",
        )


def _events(receiver: ReceiverCommand) -> dict[str, float]:
    """Return what a receiver has counted, by the metric's name."""
    found: dict[str, float] = {}
    for sample, value in receiver.metrics().items():
        name = sample.partition("{")[0]
        if name.startswith(_EVENTS):
            found[name] = found.get(name, 0) + value
    return found
