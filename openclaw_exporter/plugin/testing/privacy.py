"""Text that could be personal data, or a secret, in what a collector says."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
from typing import TYPE_CHECKING, Final

from openclaw_exporter.plugin.observations import Capacity, Measurement, Observation, QueueDepth, Tag
from openclaw_exporter.plugin.redaction import is_secret_key, redact
from openclaw_exporter.plugin.testing.findings import Finding, Findings, Severity, or_passed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAIL: Final = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_HOME: Final = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\Users\\)(?P<user>[^/\\\s:]+)|/root(?:/|$)")
_ADDRESS: Final = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"
    r"|(?<![\w:])[0-9A-Fa-f]*(?::[0-9A-Fa-f]*){3,}(?![\w:])"  # three colons: `a::b` may well be a queue
)
_WORD: Final = re.compile(r"[\w.-]+")
_PERSONAL_KEYS: Final = re.compile(
    r"(?:^|\.)(?:enduser|user|owner|person|customer)(?:\.|_)?(?:id|name|email|full_name|hash)?$|^client\.address$"
)
_SERVICE_ACCOUNTS: Final = frozenset(
    {"root", "nobody", "daemon", "www-data", "postgres", "redis", "rabbitmq"}
)
_LEAST_LOGIN: Final = 3


def check_privacy(observations: Iterable[Observation]) -> Findings:
    """Look for e-mail addresses, home directories, login names, IP addresses and secrets.

    The values of an observation's topics, tags and attributes travel to every dashboard and into the
    registry. A secret is a failure; the rest are warnings, because a person has to judge them.
    """
    found: dict[str, Finding] = {}
    count = 0
    for place, key, text in _texts(observations):
        count += 1
        for severity, what in _suspicions(key, text):
            line = f"{place} {what}"
            found.setdefault(line, Finding("privacy", severity, line))
    return or_passed("privacy", found.values(), f"{count} texts looked at")


def _texts(observations: Iterable[Observation]) -> Iterator[tuple[str, str, str]]:
    """Yield place, key and text of everything that an author or a source has worded."""
    for observation in observations:
        match observation:
            case Capacity():
                yield "a resource", "", observation.resource
            case QueueDepth():
                yield "a topic", "", observation.topic
            case Tag():
                yield f"the tag {observation.key}", observation.key, observation.value
            case Measurement():
                for key, value in observation.attributes.items():
                    yield f"the attribute {key} of {observation.name}", key, str(value)


def _suspicions(key: str, text: str) -> Iterator[tuple[Severity, str]]:
    if redact(text) != text or (key and is_secret_key(key.replace(".", "_"))):
        yield "failure", "looks like a secret"
        return
    if _PERSONAL_KEYS.search(key):
        yield "warning", "is about a person by its name"
    if _MAIL.search(text):
        yield "warning", "holds what looks like an e-mail address"
    if _HOME.search(text):
        yield "warning", "holds what looks like a home directory"
    if any(_is_address(found) for found in _ADDRESS.findall(text)):
        yield "warning", "holds an IP address"
    if _logins() & set(_WORD.findall(text)):
        yield "warning", "holds the login name of whoever runs this check"


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified and not address.is_loopback


def _logins() -> set[str]:
    """Return the login names of this user; names of services are no persons."""
    names = {os.environ.get("USER", ""), os.environ.get("LOGNAME", "")}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    return {name for name in names - _SERVICE_ACCOUNTS if len(name) >= _LEAST_LOGIN}
