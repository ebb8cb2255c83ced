"""The receiver's configuration: the table `[receiver]` and the tables in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from openclaw_exporter.wire.tokens import Algorithm

_Port = Annotated[int, Meta(ge=0, le=65535)]
_Interval = Annotated[int, Meta(ge=1, le=3600)]
_Deadline = Annotated[float, Meta(gt=0, le=300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The receiver's certificate and whose client certificates it takes: the table `[receiver.tls]`.

    All files are read again when they change.

    Attributes:
        ca: PEM file with the certificates of the authorities that sign client certificates.
        certificate: PEM file with the receiver's certificate and those between it and its authority.
        key: PEM file with the certificate's private key, not encrypted.
        trust_domain: SPIFFE trust domain of the URI SANs in client certificates. Either this or `dns_suffix`.
        dns_suffix: DNS domain of the DNS SANs in client certificates, in a deployment without URI SANs.
        deny_list: File with one node_id or certificate thumbprint (SHA-256, as `x5t#S256` or as OpenSSL
            writes it) a line, `#` before a comment: they are answered 403, however good their credentials.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    trust_domain: str | None = None
    dns_suffix: str | None = None
    deny_list: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Proxies in front that end TLS and forward the client's certificate: the table `[receiver.proxy]`.

    They connect with mutual TLS and a certificate of their own. `Client-Cert` and `Client-Cert-Chain`
    (RFC 9440) count in their requests; in everybody else's they have no effect.

    Attributes:
        names: SANs of the proxies' certificates, each a whole URI (`spiffe://…`) or DNS name. None: nobody
            forwards.
        addresses: Networks that the proxies connect from, such as `10.1.0.0/24`; empty: from anywhere.
        remembered: How many forwarded certificates are remembered with their verified tokens, by each worker;
            about 0.7 KiB each. If there are more nodes, each heartbeat of the others verifies two signatures.
    """

    names: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    addresses: tuple[str, ...] = ()
    remembered: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """Somebody whose tokens are accepted: one item of `[[receiver.tokens.issuers]]`.

    Attributes:
        issuer: The tokens' `iss`.
        audience: The tokens' `aud`: what this receiver is called.
        profile: `minted` by the nodes from a service account's key, or `external`: brought by the platform.
        max_life: The longest life of a token in seconds. Where they are minted at most 600, and that without
            it; where they are external at most 3600, and that without it.
        jwks: The issuer's own key set, a file or an https URL, so that no other issuer's key vouches for it.
            Without it `receiver.tokens.jwks` counts.
        subjects: In the external profile, the `sub` that a node may have; `{node_id}` stands for its id.
    """

    issuer: Annotated[str, Meta(min_length=1)]
    audience: Annotated[str, Meta(min_length=1)]
    profile: Literal["minted", "external"] = "minted"
    max_life: Annotated[int, Meta(ge=1, le=3600)] | None = None
    jwks: str = ""
    subjects: tuple[Annotated[str, Meta(min_length=1)], ...] = ("{node_id}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Which tokens are accepted: the table `[receiver.tokens]`.

    Attributes:
        jwks: The key set, a file or an https URL. A file is read again when it changes.
        algorithms: The allowed signature algorithms; at least one must be named.
        issuers: Whose tokens are accepted.
        leeway: How far clocks may differ, in seconds.
        refresh: Seconds between two fetches of a key set from a URL; an unknown key is looked for sooner.
        signatures: Payload signatures (RFC 9421), made with the token's key: `off` does not look at them,
            `verify` refuses one that is not valid, `require` a heartbeat without one as well.
    """

    jwks: str = ""
    algorithms: tuple[Algorithm, ...] = ()
    issuers: tuple[IssuerSettings, ...] = ()
    leeway: Annotated[int, Meta(ge=0, le=300)] = 30
    refresh: Annotated[float, Meta(ge=30, le=86_400)] = 300.0
    signatures: Literal["off", "verify", "require"] = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the registry is kept: the table `[receiver.store]`.

    All but `url` and `max_waiting` are for Redis, and may stand in its URL as well: `redis://host?replicas=2`.

    Attributes:
        url: `sqlite:///relative/path` or `sqlite:////absolute/path`: in one file of this receiver's. Or in a
            Redis, Redis Cluster or Valkey that any number of receivers share: `redis://user@host:6379/0`, of
            a cluster some nodes (`redis://one:6379,two:6379`), of Sentinels
            `redis+sentinel://one:26379,two:26379/service`, a socket `unix:///path`; `rediss` for TLS.
        max_waiting: Heartbeats that may wait to be stored; more are turned away with 503.
        password_file: File with the Redis user's password; read at every new connection. A URL holds none.
        sentinel_username: The ACL user at the Sentinels, where they have users.
        sentinel_password_file: File with the password for the Sentinels.
        ca: PEM file with the authorities that sign the Redis servers' certificates; without one the system's.
        certificate: PEM file with the client certificate that Redis is shown.
        key: PEM file with that certificate's private key, not encrypted.
        timeout: Seconds without any answer after which a Redis server counts as away.
        partitions: Over how many partitions the nodes are spread, and so over the servers of a cluster. All
            receivers say the same; it cannot be changed for a registry that is there.
        replicas: How many replicas must have a heartbeat before it is answered; 0: none. Without it one, as
            long as the server has one that has not failed, or is filling one.
        prefix: What all keys begin with; registries that share a Redis have one each.
    """

    url: str = "sqlite:///openclaw-registry.sqlite"
    max_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 8192
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    partitions: Annotated[int, Meta(ge=1, le=256)] = 16
    replicas: Annotated[int, Meta(ge=0, le=8)] | None = None
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")] = "openclaw"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverySettings:
    """What the receiver tells its readers: the table `[receiver.discovery]`.

    Attributes:
        host_suffixes: Domains of the nodes that `/openclaw/prometheus-sd` tells Prometheus to scrape; a node
            chooses its own host name, so without any domain none is told.
        subscribers: Readers of `/openclaw/events` at once; one more is answered 503.
        events_kept: Events that are kept for readers who are slow or come back; in Redis for an hour at most.
    """

    host_suffixes: tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...] = ()
    subscribers: Annotated[int, Meta(ge=1, le=10_000)] = 100
    events_kept: Annotated[int, Meta(ge=100, le=1_000_000)] = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """`/healthz`, `/readyz` and `/metrics`, plain HTTP without token: the table `[receiver.admin]`.

    It takes 64 connections at once, whatever `receiver.limits.connections` is; one more is answered 503.

    Attributes:
        enabled: Whether they are served.
        host: The address to listen on.
        port: The TCP port to listen on; 0 takes a free one.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: _Port = 9465


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What one client may cost: the table `[receiver.limits]`.

    Attributes:
        connections: Connections at once; one more is answered 503 and closed.
        rate: Heartbeats a second of one node; more are answered 429.
        burst: Heartbeats at once of one node.
        header_bytes: Request line and headers together.
        handshake_timeout: Seconds for the TLS handshake.
        header_timeout: Seconds for the request line and headers.
        body_timeout: Seconds for the body.
        keep_alive: Seconds that a connection may be idle; longer than the longest interval.
        loop_lag: How late the receiver's own loop may run, in seconds; where it is later twice in a row, a
            growing share of heartbeats is answered 503.
        readmissions: Of those that were turned away with 503, so many a second are asked to come back.
    """

    connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    rate: Annotated[float, Meta(gt=0, le=10_000)] = 1.0
    burst: Annotated[int, Meta(ge=1, le=100_000)] = 20
    header_bytes: Annotated[int, Meta(ge=8192, le=65_536)] = 16_384
    handshake_timeout: _Deadline = 10.0
    header_timeout: _Deadline = 10.0
    body_timeout: _Deadline = 10.0
    keep_alive: Annotated[float, Meta(gt=0, le=86_400)] = 180.0
    loop_lag: Annotated[float, Meta(gt=0, le=4)] = 2.0
    readmissions: Annotated[float, Meta(ge=1, le=100_000)] = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """The receiver of heartbeats and the registry of nodes: the table `[receiver]`.

    Attributes:
        host: The address to listen on.
        port: The TCP port to listen on; 0 takes a free one.
        min_interval: The shortest interval of a node in seconds; a shorter one is answered with this.
        max_interval: The longest interval of a node in seconds; a longer one is refused.
        default_interval: The interval in seconds of a node that does not say its own.
        retention: Seconds after which an expired or offline node is forgotten.
        target_rate: Heartbeats a second of all nodes together. The larger the fleet, the longer the interval
            that nodes are answered, never less than their own and at most `max_interval`; 0: it is theirs.
        workers: Processes that face clients, beside the one that then holds the registry. 0 or 1: one process
            does it all. More are of use where one core cannot do the TLS and the tokens.
        insecure_dev: Plain HTTP without certificates and tokens, to try things out: anybody publishes as any
            node and reads. `host` must be a loopback address; `tls` and `tokens` have no effect.
        tls: Certificates.
        proxy: Proxies in front.
        tokens: Tokens.
        limits: Limits.
        store: The registry's store.
        discovery: What readers are told.
        admin: The admin listener.

    Raises:
        ValueError: The intervals contradict each other.
    """

    host: str = "127.0.0.1"
    port: _Port = 8443
    min_interval: _Interval = 30
    max_interval: _Interval = 120
    default_interval: _Interval = 60
    retention: Annotated[float, Meta(gt=0)] = 86_400.0
    target_rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    workers: Annotated[int, Meta(ge=0, le=128)] = 1
    insecure_dev: bool = False
    tls: TlsSettings = field(default_factory=TlsSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
    admin: AdminSettings = field(default_factory=AdminSettings)

    def __post_init__(self) -> None:
        if not self.min_interval <= self.default_interval <= self.max_interval:
            message = (
                f"default_interval is {self.default_interval}, and must lie between "
                f"min_interval, {self.min_interval}, and max_interval, {self.max_interval}"
            )
            raise ValueError(message)
        if self.limits.keep_alive <= self.max_interval:
            message = "limits.keep_alive must be longer than max_interval, or every beat costs a handshake"
            raise ValueError(message)
