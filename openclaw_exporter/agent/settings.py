"""The agent's own tables, `[node]`, `[collection]` and `[pressure]`, and all that configures an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.telemetry.settings import TelemetrySettings
from openclaw_exporter.wire.fields import (
    HOST_NAME,
    MAX_ENTRIES,
    MAX_HOSTNAME,
    MAX_INTEGER,
    MAX_TAG_BYTES,
    MAX_VERSION,
    TOPIC,
)

_PRINTABLE: Final = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]"

TagText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TAG_BYTES,
        pattern=rf"^{_PRINTABLE}+\Z",
        description=f"printable text of 1 to {MAX_TAG_BYTES} bytes, such as 'pool:gpu'",
    ),
]
PlaceName = Annotated[
    str,
    Meta(max_length=100, pattern=rf"^{_PRINTABLE}*\Z", description="up to 100 printable characters"),
]
Seconds = Annotated[float, Meta(ge=0.1, le=86_400)]
Messages = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What this node is: the table `[node]`.

    Attributes:
        hostname: The host name in heartbeats and metrics; where it is not set that of `[openclaw]`, else the
            machine's own.
        version: The version of the service that this node runs, in heartbeats.
        region: Where the node is: the tag `region:…` and the resource attribute `cloud.region`.
        environment: What it serves, such as `prod`: the tag `env:…` and the resource attribute
            `deployment.environment.name`.
        tags: Further tags, `key:value` by convention. They come before those of collectors, and become
            resource attributes `openclaw.tag.<key>`.
        workers: How many workers the node has, where no collector tells.
    """

    hostname: Annotated[
        str, Meta(max_length=MAX_HOSTNAME, pattern=rf"^(?:{HOST_NAME})?\Z", description="a host name")
    ] = ""
    version: Annotated[
        str,
        Meta(
            max_length=MAX_VERSION,
            pattern=rf"^{_PRINTABLE}*\Z",
            description=f"up to {MAX_VERSION} printable characters",
        ),
    ] = ""
    region: PlaceName = ""
    environment: PlaceName = ""
    tags: Annotated[tuple[TagText, ...], Meta(max_length=MAX_ENTRIES)] = ()
    workers: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | None = None

    def __post_init__(self) -> None:
        """Check what characters cannot tell: the length in bytes, and the number of all tags together."""
        for tag in self.all_tags:
            if len(tag.encode()) > MAX_TAG_BYTES:
                raise ValueError(f"the tag {tag[:40]!r}… takes more than {MAX_TAG_BYTES} bytes in UTF-8")
        if len(self.all_tags) > MAX_ENTRIES:
            raise ValueError(
                f"region, environment and tags make {len(self.all_tags)} tags; {MAX_ENTRIES} are allowed"
            )

    @property
    def all_tags(self) -> tuple[str, ...]:
        """The configured tags as the heartbeat carries them, each once."""
        region = (f"region:{self.region}",) if self.region else ()
        environment = (f"env:{self.environment}",) if self.environment else ()
        return tuple(dict.fromkeys((*region, *environment, *self.tags)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Collectors in processes of their own: the table `[collection.process]`.

    Attributes:
        memory_limit: Bytes of memory that one may allocate.
        cpu_limit: CPU seconds that one may use from one collection to the next.
        start_deadline: Seconds that it may take to start and to load its plugin.
        grace: Seconds between the request to end and the kill.
        long_grace: The same in seconds for one that must not be killed (a GPU driver may freeze): it is left
            behind after that, and no other takes its place until it ends.
        backoff_limit: The longest time in seconds before one that keeps failing is started again.
    """

    memory_limit: Annotated[int, Meta(ge=32 * 1024 * 1024)] = 512 * 1024 * 1024
    cpu_limit: Annotated[int, Meta(ge=1, le=3600)] = 10
    start_deadline: Annotated[float, Meta(ge=0.5, le=300)] = 15.0
    grace: Annotated[float, Meta(ge=0, le=60)] = 2.0
    long_grace: Annotated[float, Meta(ge=0, le=600)] = 60.0
    backoff_limit: Annotated[float, Meta(ge=1, le=3600)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """When collectors run: the table `[collection]`.

    Attributes:
        interval: Seconds from one collection to the next, where neither the plugin nor its table says.
        deadline: Seconds that one collection may take, where neither the plugin nor its table says.
        first_results: Seconds that the first heartbeat waits at most for the first results of collectors.
        process: Collectors in processes of their own.
    """

    interval: Seconds = 10.0
    deadline: Seconds = 5.0
    first_results: Annotated[float, Meta(ge=0, le=10)] = 0.3
    process: ProcessSettings = field(default_factory=ProcessSettings)

    def __post_init__(self) -> None:
        """Check what two keys say together."""
        if self.deadline > self.interval:
            raise ValueError(f"the deadline, {self.deadline:g} s, is longer than the interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """When a topic's depth takes slots off: a table `[pressure.topics.TOPIC]`.

    Attributes:
        soft: The depth in messages up to which nothing is withheld.
        hard: The depth in messages from which every slot is withheld.
    """

    soft: Messages
    hard: Messages

    def __post_init__(self) -> None:
        """Check what two keys say together."""
        if self.hard <= self.soft:
            raise ValueError(f"hard, {self.hard}, must be above soft, {self.soft}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureSettings:
    """How full queues reduce the available slots that this node reports: the table `[pressure]`.

    Attributes:
        topics: The thresholds of each topic. Between `soft` and `hard` the share of slots that stay falls in
            a straight line from all to none; of several topics the worst counts.
        when_unknown: What a topic with thresholds counts for while its depth is unknown: `keep` leaves the
            slots as they are, `withhold` takes all off.
    """

    topics: dict[Annotated[str, Meta(pattern=rf"^{TOPIC}\Z")], Threshold] = field(default_factory=dict)
    when_unknown: Literal["keep", "withhold"] = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """All that one agent is configured with.

    Attributes:
        node: The table `[node]`.
        collection: The table `[collection]`.
        pressure: The table `[pressure]`.
        client: The table `[openclaw]`.
        telemetry: The table `[telemetry]`.
        plugins: The tables `[plugins.NAME]` by name, raw.
        source: The file that they come from, for error texts.
        source_of: Returns where the value of a dotted key came from, for error texts too.
    """

    node: NodeSettings = field(default_factory=NodeSettings)
    collection: CollectionSettings = field(default_factory=CollectionSettings)
    pressure: PressureSettings = field(default_factory=PressureSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    plugins: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    source: str = ""
    source_of: Callable[[str], str] = field(default=lambda _key: "", compare=False, repr=False)

    @property
    def resource(self) -> dict[str, str]:
        """What the configuration says of the resource that all metrics are about, by attribute."""
        node = self.node
        tags = (tag.partition(":") for tag in node.tags)
        known = {
            "host.name": node.hostname or self.client.hostname,
            "deployment.environment.name": node.environment,
            "cloud.region": node.region,
            **{f"openclaw.tag.{key}": value or "true" for key, _, value in tags},
        }
        return {name: value for name, value in known.items() if value}
