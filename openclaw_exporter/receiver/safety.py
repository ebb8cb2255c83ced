"""What a configuration must have before a receiver starts with it; all that is unsafe is named."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.receiver.store.redis.address import is_redis
from openclaw_exporter.receiver.store.redis.target import FORMS, target_of
from openclaw_exporter.wire.certificates import IdentityRule
from openclaw_exporter.wire.loopback import is_loopback, is_loopback_url
from openclaw_exporter.wire.tokens import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openclaw_exporter.receiver.settings import (
        ReceiverSettings,
        StoreSettings,
        TlsSettings,
        TokenSettings,
    )

SQLITE: Final = "sqlite:///"
MAX_LIFE: Final[Mapping[str, int]] = {"minted": 600, "external": 3600}
"""By profile, the longest life of a token, seconds; an issuer may be given less."""

# RFC 3986 in ASCII; or the host name of a DNS SAN, in which no asterisk has a meaning.
_is_san = re.compile(
    r"[a-z][a-z0-9+.-]*://[\x21-\x7e]{1,512}|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
).fullmatch
_has_user = re.compile(r"[^:/?#]+://[^/?#]*@").match


def require_safe(settings: ReceiverSettings) -> None:
    """Check what the receiver cannot do without.

    Raises:
        ConfigError: Something is missing or unsafe; all of it is named.
    """
    identity = _loopback(settings.host) if settings.insecure_dev else _identity(settings)
    problems = (*identity, *_store(settings.store))
    if problems:
        raise ConfigError(problems)


def store_path(url: str) -> Path:
    """Return the file of a store's URL.

    Raises:
        ConfigError: It is no `sqlite:///` URL.
    """
    problems = tuple(_file(url))
    if problems:
        raise ConfigError(problems)
    return Path(url.removeprefix(SQLITE))


def _store(store: StoreSettings) -> Iterator[ConfigProblem]:
    if not is_redis(store.url):
        yield from _file(store.url)
        return
    try:
        target_of(store)
    except ConfigError as error:
        yield from error.problems
    if importlib.util.find_spec("hiredis") is None:
        message = "is a Redis, and Python's hiredis is not installed"
        yield ConfigProblem("receiver.store.url", message, "pip install 'openclaw-exporter[redis]'")


def _file(url: str) -> Iterator[ConfigProblem]:
    if not url.startswith(SQLITE) or url == SQLITE:
        yield ConfigProblem(
            "receiver.store.url", f"is {url!r}", f"{SQLITE}file, {SQLITE}/absolute/file, {FORMS}"
        )


def _identity(settings: ReceiverSettings) -> Iterator[ConfigProblem]:
    yield from _tls(settings.tls)
    yield from _proxy(settings)
    yield from _tokens(settings.tokens)


def _loopback(host: str) -> Iterator[ConfigProblem]:
    if not is_loopback(host):
        message = f"is {host!r}, where others could connect to a receiver with receiver.insecure_dev"
        yield ConfigProblem("receiver.host", message, "127.0.0.1, ::1 or localhost")


def _tls(tls: TlsSettings) -> Iterator[ConfigProblem]:
    for name, what in (
        ("ca", "the authorities that sign client certificates: without one anybody could publish"),
        ("certificate", "the receiver's certificate"),
        ("key", "the certificate's private key"),
    ):
        if getattr(tls, name) is None:
            yield ConfigProblem(f"receiver.tls.{name}", "is not set", f"a PEM file with {what}")
    try:
        IdentityRule(tls.trust_domain, tls.dns_suffix)
    except ConfigError as error:
        for problem in error.problems:
            yield ConfigProblem(f"receiver.tls.{problem.key}", problem.message, problem.allowed)


def _proxy(settings: ReceiverSettings) -> Iterator[ConfigProblem]:
    names, addresses = settings.proxy.names, settings.proxy.addresses
    if addresses and not names:
        message = (
            "is empty beside receiver.proxy.addresses: whoever has the address could speak for every node"
        )
        yield ConfigProblem("receiver.proxy.names", message, "the SANs of the proxies' certificates")
    for index, address in enumerate(addresses):
        try:
            ipaddress.ip_network(address)
        except ValueError:
            yield ConfigProblem(
                f"receiver.proxy.addresses[{index}]", f"is {address!r}", "such as 10.1.0.0/24"
            )
    try:
        rule = IdentityRule(settings.tls.trust_domain, settings.tls.dns_suffix)
    except ConfigError:
        return
    for index, name in enumerate(names):
        key = f"receiver.proxy.names[{index}]"
        if rule.is_node_or_reader(name):
            message = f"is {name!r}, a node or reader, which could then speak for all others"
            yield ConfigProblem(key, message, "a certificate of the proxy's own; see `pki proxy`")
        elif not _is_san(name):
            yield ConfigProblem(key, f"is {name!r}", "a whole URI such as spiffe://…, or a DNS name")


def _tokens(tokens: TokenSettings) -> Iterator[ConfigProblem]:
    if not tokens.algorithms or not set(tokens.algorithms) <= set(ALGORITHMS):
        listed = ", ".join(ALGORITHMS)
        message = f"is {list(tokens.algorithms)!r}"
        yield ConfigProblem("receiver.tokens.algorithms", message, f"one or more of {listed}")
    if not tokens.issuers:
        allowed = "one [[receiver.tokens.issuers]] with issuer and audience for each issuer"
        yield ConfigProblem("receiver.tokens.issuers", "is empty", allowed)
    names = [issuer.issuer for issuer in tokens.issuers]
    for index, issuer in enumerate(tokens.issuers):
        key = f"receiver.tokens.issuers[{index}]"
        if names.count(issuer.issuer) > 1:
            yield ConfigProblem(f"{key}.issuer", f"{issuer.issuer!r} is there twice", "each issuer once")
        if not issuer.issuer:
            yield ConfigProblem(f"{key}.issuer", "is empty", "the tokens' iss")
        if not issuer.audience:
            yield ConfigProblem(f"{key}.audience", "is empty", "the tokens' aud")
        most = MAX_LIFE[issuer.profile]
        if issuer.max_life is not None and issuer.max_life > most:
            allowed = f"at most {most} where {issuer.profile}"
            yield ConfigProblem(f"{key}.max_life", f"is {issuer.max_life}", allowed)
        if issuer.profile == "external" and tokens.signatures == "require":
            message = (
                'is external beside signatures = "require": its key is the platform\'s, no node can sign'
            )
            yield ConfigProblem(f"{key}.profile", message, 'minted, or signatures = "verify"')
        yield from _jwks(f"{key}.jwks" if issuer.jwks else "receiver.tokens.jwks", issuer.jwks or tokens.jwks)


def _jwks(key: str, location: str) -> Iterator[ConfigProblem]:
    allowed = "a JWKS file, or an https URL (http on loopback)"
    if not location:
        yield ConfigProblem(key, "is not set", allowed)
    elif _has_user(location):
        # The URL is named in the log, and so would they be.
        yield ConfigProblem(key, "holds a user name or password, which has no place here", allowed)
    elif is_url(location) and not _host(location):
        yield ConfigProblem(key, "is no URL", allowed)
    elif location.startswith("http://") and not is_loopback_url(location):
        yield ConfigProblem(key, "is plain http, which anybody on the way can change", allowed)


def _host(url: str) -> str | None:
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return None
    return parts.hostname if port != 0 else None


def is_url(location: str) -> bool:
    """Whether a key set's location is a URL and not a file."""
    return location.startswith(("https://", "http://"))
