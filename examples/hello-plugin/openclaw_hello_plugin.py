"""How many files wait in a spool directory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openclaw_exporter.plugin import QueueDepth, hookimpl


@dataclass(frozen=True)
class Options:
    """The table `[plugins.hello]`.

    Attributes:
        directory: The spool directory.
        topic: The topic that its files belong to.
    """

    directory: Path = Path("/var/spool/hello")
    topic: str = "hello"


@dataclass
class Spool:
    """Counts the files. A directory that is not there raises: the depth is unknown then, not zero."""

    options: Options
    name = "spool"

    def collect(self) -> Iterator[QueueDepth]:
        """Yield the depth."""
        yield QueueDepth(self.options.topic, sum(1 for _ in self.options.directory.iterdir()))


@hookimpl
def openclaw_collectors(options: Options) -> list[Spool]:
    """Return the collectors of this plugin."""
    return [Spool(options)]
