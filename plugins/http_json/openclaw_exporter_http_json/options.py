"""The options: which pages, and which of their fields mean what."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from openclaw_exporter.plugin import AttributeValue, Kind

Pointer: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(/([^~/]|~[01])*)*\Z",
        max_length=512,
        description="a JSON pointer such as /queues/0/depth, with ~1 for / and ~0 for ~ (RFC 6901)",
    ),
]
Topic: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z", description="1 to 64 characters of A-Z a-z 0-9 _ . : -")
]
Url: TypeAlias = Annotated[
    str, Meta(pattern=r"^https?://.", description="http://host:port/path or https://host:port/path")
]
Name: TypeAlias = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}\Z", description="1 to 63 characters of a-z 0-9 _ -")
]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One entry of `measurements`: a field of the page that becomes a metric of its own.

    Attributes:
        name: The metric's name, lower-case and dotted.
        pointer: Where its value stands in the page.
        unit: UCUM (`s`, `By`, `1`), one `{annotation}`, or empty for a state of 0 or 1.
        kind: `counter`, `gauge` or `updowncounter`.
        attributes: What tells this series from others of the same name.
    """

    name: str
    pointer: Pointer
    unit: str = ""
    kind: Kind = "gauge"
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One page, `[plugins.http_json.sources.NAME]`; the keys are those of `[plugins.http_json]` itself."""

    url: Url | None = field(default=None, repr=False)
    mapping: Literal["chimera"] | None = None
    capacity: Annotated[dict[str, Pointer], Meta(max_length=32)] = field(default_factory=dict)
    queue_depth: Annotated[dict[Topic, Pointer], Meta(max_length=32)] = field(default_factory=dict)
    oldest_age: dict[Topic, Pointer] = field(default_factory=dict)
    uptime: Pointer | None = None
    tags: Annotated[dict[str, Pointer], Meta(max_length=32)] = field(default_factory=dict)
    measurements: tuple[Measured, ...] = ()
    timestamp: Pointer | None = None
    max_age: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    topic: Topic = "all"
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0
    max_bytes: Annotated[int, Meta(ge=64, le=16_777_216)] = 262_144

    def __post_init__(self) -> None:
        """Check what one key cannot say. No text shows the URL, which may hold a credential.

        Raises:
            ValueError: Two keys contradict each other, or the URL is not usable.
        """
        if self.key is not None and self.certificate is None:
            raise ValueError("key needs certificate")
        if unknown := sorted(self.oldest_age.keys() - self.queue_depth.keys()):
            raise ValueError(f"oldest_age names {unknown[0]!r}, which queue_depth does not")
        if self.timestamp is not None and self.max_age is None:
            raise ValueError("timestamp needs max_age")
        if self.max_age is not None and self.timestamp is None and self.mapping is None:
            raise ValueError("max_age needs timestamp or a mapping that has one")
        if self.url is not None:
            self._check_url(self.url)
            pointers = (self.capacity, self.queue_depth, self.tags, self.measurements)
            if self.mapping is None and self.uptime is None and not any(pointers):
                raise ValueError("nothing is read: set mapping, or pointers such as queue_depth")

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number, or too high
            usable = False
        if not usable:
            raise ValueError("url has no usable host or port")
        if "@" in parts.netloc:
            raise ValueError("url holds a user or password: set token_file instead")
        if self.token_file and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise ValueError("token_file needs https, unless the host is this machine itself")

    @property
    def place(self) -> str:
        """The URL without its query, for error texts."""
        parts = urlsplit(self.url or "")
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


@dataclass(frozen=True, kw_only=True)
class Options(Source):
    """The table `[plugins.http_json]`. Several pages stand in tables `[plugins.http_json.sources.NAME]`.

    Attributes:
        url: The page. It is fetched with GET; redirects are followed on the same scheme, host and port only.
        mapping: `chimera` reads the usual field names of a Chimera node's page: `workers`, `capacity`,
            `available_slots` (or `workers_free`, `available_capacity`), `queue_depth` (a table by topic, or
            one number), `load`, `status`, `uptime_seconds`, `tags`, `agent_id`, `timestamp`.
            A pointer given beside it wins over it.
        capacity: Resources and the pointers of their amounts: `workers = "/pool/size"`.
        queue_depth: Topics and the pointers of their depths: `worker = "/queues/tasks/depth"`.
        oldest_age: Topics of `queue_depth` and the pointers of their oldest message's age in seconds.
        uptime: The pointer of the uptime in seconds.
        tags: Tags and the pointers of their texts.
        measurements: A list of tables for other metrics, each with `name`, `pointer`, `unit`, `kind` and
            `attributes`.
        timestamp: The pointer of the time when the page was made: RFC 3339 text or Unix seconds.
        max_age: Seconds after which a page is stale, so that everything on it is unknown.
        topic: The topic of a mapping's `queue_depth` that is one number.
        token_file: A file that holds a bearer token; read again for each request.
        ca: A file with the CA certificates that an https server is checked against, instead of the system's.
        certificate: A file with the client certificate (and its chain) in PEM.
        key: A file with the client certificate's key; without it, `certificate` holds the key too.
        timeout: Seconds for connecting, and for the whole answer after that.
        max_bytes: The largest body that is read.
        sources: Further pages by name, each with the keys above.
    """

    sources: Annotated[dict[Name, Source], Meta(max_length=32)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every page has a URL.

        Raises:
            ValueError: One has none, or its keys contradict each other.
        """
        super().__post_init__()
        if missing := [name for name, source in self.sources.items() if source.url is None]:
            raise ValueError(f"sources.{missing[0]} has no url")
        if self.url is not None and "page" in self.sources:
            raise ValueError("sources.page is the name of the page in url: choose another")


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
