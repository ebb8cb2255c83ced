"""What a check says: one finding, with how much it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Severity: TypeAlias = Literal["passed", "note", "warning", "failure"]

CHECKS: Final[Mapping[str, str]] = {
    "load": "the plugin is found by its entry point, imports, and returns collectors",
    "options": "every option has a description",
    "import": "what importing the plugin's module takes (a note)",
    "deadline": "every collection ends within its deadline",
    "observations": "collections succeed, and every observation passes the host's guard",
    "repeatability": "two collections yield the same metrics, of the same type; no counter goes down",
    "names": "names and units keep the rules, beyond what the guard refuses",
    "series": "the number of different series does not grow from collection to collection",
    "memory": "memory does not grow from collection to collection",
    "threads": "threads do not grow from collection to collection",
    "descriptors": "file descriptors do not grow from collection to collection",
    "source": "with its source gone the collector says unknown, never zero, and comes back by itself",
    "privacy": "no text looks like personal data or a secret",
    "close": "close() ends in time, raises nothing, and leaves nothing behind",
}
"""Every check by its name, with what it holds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One outcome of one check.

    Attributes:
        check: The check's name, one of `CHECKS`.
        severity: `failure` breaks a rule; `warning` wants a person's judgement; `note` is a figure;
            `passed` says what was held.
        text: One line, without secrets.
    """

    check: str
    severity: Severity
    text: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.severity} ({self.check}): {self.text}"


Findings: TypeAlias = tuple[Finding, ...]


def failures(findings: Iterable[Finding]) -> Findings:
    """Return those that break a rule."""
    return tuple(finding for finding in findings if finding.severity == "failure")


def or_passed(check: str, found: Iterable[Finding], text: str) -> Findings:
    """Return what was found, or one finding that says that all is well; notes alone are well."""
    listed = tuple(found)
    if any(finding.severity in ("warning", "failure") for finding in listed):
        return listed
    return (Finding(check, "passed", text), *listed)
