"""From `[receiver.store]` to a Redis and how it is spoken to, or to what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import msgspec

from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.receiver.settings import StoreSettings
from openclaw_exporter.receiver.store.redis.address import Parts, Target, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY: Final = "receiver.store"
FORMS: Final = "redis://[user@]host[:port][,host…][/database], redis+sentinel://host[:port][,host…]/service"
"""How the URL of a Redis is written."""
_OPTIONS: Final = (
    "password_file",
    "sentinel_username",
    "sentinel_password_file",
    "ca",
    "certificate",
    "key",
    "timeout",
    "partitions",
    "replicas",
    "prefix",
)
"""The keys that may stand in a URL, behind its question mark."""


def target_of(store: StoreSettings) -> Target:
    """Return the Redis that a store's settings name.

    Raises:
        ConfigError: They name none, or contradict each other; no text repeats what may be a password.
    """
    try:
        parts = parse(store.url)
    except ValueError as error:
        secret = "password" in str(error)
        allowed = f"the password in the file {_KEY}.password_file" if secret else FORMS
        raise ConfigError((ConfigProblem(f"{_KEY}.url", str(error), allowed),)) from None
    merged = _merged(store, parts.options)
    problems = tuple(_problems(merged, parts))
    if problems:
        raise ConfigError(problems)
    return Target(
        hosts=parts.hosts,
        service=parts.service,
        database=parts.database,
        username=parts.username,
        tls=parts.tls,
        **{name: getattr(merged, name) for name in _OPTIONS},
    )


def _merged(store: StoreSettings, options: dict[str, str]) -> StoreSettings:
    """Return the settings with what the URL says instead."""
    unknown = sorted(options.keys() - {*_OPTIONS})
    if unknown:
        message = f"has an unknown option {unknown[0]!r}"
        raise ConfigError((ConfigProblem(f"{_KEY}.url", message, ", ".join(_OPTIONS)),))
    try:
        return msgspec.convert(
            {**asdict(store), **options}, StoreSettings, strict=False, dec_hook=lambda cls, value: cls(value)
        )
    except msgspec.ValidationError as error:
        text = str(error).replace("`$.", f"`{_KEY}.")
        raise ConfigError((ConfigProblem(f"{_KEY}.url", f"has an option that is wrong: {text}"),)) from None


def _problems(store: StoreSettings, parts: Parts) -> Iterator[ConfigProblem]:
    for name in ("ca", "certificate", "key"):
        if getattr(store, name) is not None and not parts.tls:
            yield ConfigProblem(f"{_KEY}.{name}", "is set, and the URL is not one with TLS", "rediss://…")
    if (store.certificate is None) != (store.key is None):
        missing = "certificate" if store.certificate is None else "key"
        yield ConfigProblem(f"{_KEY}.{missing}", "is not set", "certificate and key, or neither")
    for name in ("sentinel_username", "sentinel_password_file"):
        if getattr(store, name) is not None and parts.service is None:
            yield ConfigProblem(
                f"{_KEY}.{name}", "is set, and the URL names no Sentinels", "redis+sentinel://…"
            )
