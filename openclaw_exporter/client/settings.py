"""The publisher's configuration: the table `[openclaw]` and the tables within it.

An annotation says what one key allows; `check` says what keys must be together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Meta

from openclaw_exporter.errors import ConfigProblem
from openclaw_exporter.wire.fields import UUID
from openclaw_exporter.wire.loopback import is_loopback_url

PATH: Final = "/openclaw/availability"
"""The path of the publish call (the contract, `POST /openclaw/availability`)."""

MAX_BUFFER_BYTES: Final = 8 * 1024 * 1024
MIN_BUFFER_BYTES: Final = 256 * 1024

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Mutual TLS: the table `[openclaw.tls]`. All files are read again when they change.

    Attributes:
        ca: PEM file of the authorities that may sign the receiver's certificate. Needed.
        certificate: PEM file of this node's certificate, with its chain if it has one. Needed.
        key: PEM file of the certificate's private key, not encrypted. Without it the key is looked for in
            the certificate's file.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """The bearer token: the table `[openclaw.token]`. All files are read again when they change.

    Attributes:
        profile: `minted`: the publisher signs short-lived tokens itself, with a service account's key.
            `external`: something else keeps a fresh token in a file (a Kubernetes projected token, a SPIRE
            JWT-SVID).
        key: PEM file of the signing key. Needed for `minted`.
        kid: The signing key's id in the receiver's key set. Needed for `minted`.
        algorithm: How to sign; by the kind of key where it is not set.
        issuer: `iss` of minted tokens. Needed for `minted`.
        audience: `aud` of minted tokens: exactly what the receiver expects. Needed for `minted`.
        lifetime: Life of a minted token in seconds; it is renewed at 80 % of it.
        file: File that holds the token. Needed for `external`.
        sign_requests: Whether each request is signed with the same key (RFC 9421). For `minted` only.
    """

    profile: Literal["minted", "external"] = "minted"
    key: Path | None = None
    kid: str = ""
    algorithm: Algorithm | None = None
    issuer: str = ""
    audience: str = ""
    lifetime: Annotated[int, Meta(ge=30, le=600)] = 600
    file: Path | None = None
    sign_requests: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferSettings:
    """Heartbeats that wait for a receiver that is away: the table `[openclaw.buffer]`.

    Attributes:
        max_heartbeats: How many heartbeats are kept; the oldest is dropped first, and counted.
        max_bytes: How many bytes the buffer's file may have, at most 8 MiB; the oldest is dropped first.
    """

    max_heartbeats: Annotated[int, Meta(ge=1, le=100_000)] = 1_440
    max_bytes: Annotated[int, Meta(ge=MIN_BUFFER_BYTES, le=MAX_BUFFER_BYTES)] = MAX_BUFFER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Publishing heartbeats: the table `[openclaw]`.

    Attributes:
        enabled: The feature flag: false publishes nothing.
        endpoint: The receiver's base URL, `https://host:port`. Needed where `enabled` is true. The path
            `/openclaw/availability` is appended unless the URL ends in it.
        interval: Seconds between two heartbeats. The receiver may answer another one, which is adopted within
            the two bounds below.
        min_interval: The shortest interval in seconds that is allowed here or adopted from the receiver.
        max_interval: The longest interval in seconds that is allowed here or adopted from the receiver.
        rollout_percent: The share of nodes that publish, 0 to 100, chosen by a stable hash of node_id.
        connect_timeout: Seconds to connect, TLS handshake included.
        timeout: Seconds to wait for the answer. One attempt takes at most this and `connect_timeout`
            together.
        node_id: This node's UUID. Without it, the one that the certificate names; without that, one that is
            made once and kept in `state_dir`.
        hostname: The host name in the heartbeat; the machine's own where it is not set.
        version: The version in the heartbeat where the node does not report one.
        state_dir: Directory for identity, epoch and buffer, of this node alone. Where it cannot be written,
            publishing goes on without it, with a warning.
        proxy: URL of an HTTP proxy to reach the receiver through (`http://host:port`). The proxy variables of
            the environment have no effect.
        insecure_dev: Plain HTTP without certificate and token, to try things out with a receiver that runs on
            this machine with the same key: `endpoint` is `http://` and a loopback address; `tls` and `token`
            have no effect.
        tls: Mutual TLS.
        token: The bearer token.
        buffer: Heartbeats that wait for a receiver that is away.
    """

    enabled: bool = True
    endpoint: str = ""
    interval: Annotated[int, Meta(ge=1, le=86_400)] = 60
    min_interval: Annotated[int, Meta(ge=1, le=86_400)] = 30
    max_interval: Annotated[int, Meta(ge=1, le=86_400)] = 120
    rollout_percent: Annotated[float, Meta(ge=0, le=100)] = 100.0
    connect_timeout: Annotated[float, Meta(gt=0, le=60)] = 5.0
    timeout: Annotated[float, Meta(gt=0, le=60)] = 10.0
    node_id: Annotated[str, Meta(pattern=f"^({UUID})?$", description="a UUID in lower case")] = ""
    hostname: str = ""
    version: str = ""
    state_dir: Path | None = Path("/var/lib/openclaw-exporter")
    proxy: str = ""
    insecure_dev: bool = False
    tls: TlsSettings = field(default_factory=TlsSettings)
    token: TokenSettings = field(default_factory=TokenSettings)
    buffer: BufferSettings = field(default_factory=BufferSettings)


def check(settings: ClientSettings, *, key: str = "openclaw") -> tuple[ConfigProblem, ...]:
    """Return what is wrong between keys; nothing where publishing is switched off.

    Args:
        settings: Settings whose single keys are right.
        key: The dotted key of the table, for the texts.
    """
    if not settings.enabled:
        return ()
    return tuple(
        ConfigProblem(f"{key}.{name}", message, allowed)
        for name, message, allowed in (
            *(_open_problems(settings) if settings.insecure_dev else _endpoint_problems(settings.endpoint)),
            *_proxy_problems(settings.proxy),
            *_interval_problems(settings),
            *([] if settings.insecure_dev else _file_problems(settings)),
        )
    )


def publish_url(endpoint: str) -> str:
    """Return the URL to post to.

    Example:
        >>> publish_url("https://receiver:8443/")
        'https://receiver:8443/openclaw/availability'
    """
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


_Problem = tuple[str, str, str]


def _url_fault(url: str, scheme: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme != scheme or not parts.hostname or port == 0 or not url.isascii():
        return f"is no {scheme} URL"
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password, which has no place here"
    if parts.query or parts.fragment:
        return "has a query or fragment"
    return None


def _endpoint_problems(endpoint: str) -> list[_Problem]:
    allowed = "https://host:port"
    if not endpoint:
        return [("endpoint", "is needed while openclaw.enabled is true", allowed)]
    fault = _url_fault(endpoint, "https")
    return [("endpoint", fault, allowed)] if fault else []


def _open_problems(settings: ClientSettings) -> list[_Problem]:
    """Return what would let a heartbeat without credentials leave this machine."""
    problems = []
    fault = _url_fault(settings.endpoint, "http")
    if fault or not is_loopback_url(settings.endpoint):
        message = fault or "is another machine, where openclaw.insecure_dev sends nothing"
        problems.append(("endpoint", message, "http://127.0.0.1:port while openclaw.insecure_dev is true"))
    if settings.proxy:
        problems.append(("proxy", "cannot be used while openclaw.insecure_dev is true", ""))
    return problems


def _proxy_problems(proxy: str) -> list[_Problem]:
    fault = _url_fault(proxy, "http") if proxy else None
    return [("proxy", fault, "http://host:port")] if fault else []


def _interval_problems(settings: ClientSettings) -> list[_Problem]:
    low, high = settings.min_interval, settings.max_interval
    if low > high:
        return [("min_interval", f"{low} is above max_interval, which is {high}", "")]
    if not low <= settings.interval <= high:
        return [("interval", f"{settings.interval} is out of bounds", f"{low} to {high} seconds")]
    return []


def _file_problems(settings: ClientSettings) -> list[_Problem]:
    tls, token = settings.tls, settings.token
    needed: list[tuple[str, object, str]] = [
        ("tls.ca", tls.ca, "the path of a PEM file"),
        ("tls.certificate", tls.certificate, "the path of a PEM file"),
    ]
    if token.profile == "external":
        needed.append(("token.file", token.file, "the path of the file that holds the token"))
    else:
        needed += [
            ("token.key", token.key, "the path of a PEM file"),
            ("token.kid", token.kid, "the key's id in the receiver's key set"),
            ("token.issuer", token.issuer, "the issuer that the receiver knows"),
            ("token.audience", token.audience, "the audience that the receiver expects"),
        ]
    reason = f"is needed with the token profile {token.profile!r}"
    signs = token.sign_requests and token.profile == "external"
    unable = [
        ("token.sign_requests", "needs the token's key, which is not this node's", "false, or minted tokens")
    ]
    return (unable if signs else []) + [
        (name, reason if name.startswith("token.") else "is needed for mutual TLS", allowed)
        for name, value, allowed in needed
        if not value
    ]
