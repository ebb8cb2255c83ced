"""The error tree. Every error that this project raises on purpose descends from `OpenClawError`.

    OpenClawError
    ├── UserError               a person can mend it: the text names the place and the remedy
    │   ├── ConfigError         one or more wrong keys, all reported at once
    │   ├── CredentialError     a certificate, key, CA, token or key set that cannot be used
    │   └── StateError          the state directory or the store cannot be used
    ├── WireError               what came over the wire breaks the contract; carries its HTTP status
    │   ├── MalformedBodyError  400: not JSON, or not strict JSON
    │   ├── FieldsError         422: a field breaks its rule
    │   ├── TokenError          401: the token is missing, expired, not valid or bound elsewhere
    │   └── IdentityError       403: certificate, subject and node_id do not belong together
    ├── PluginError             one plugin cannot be loaded or run; the others go on
    └── StoreUnavailableError   503: the registry's store, or a key set, cannot be reached now

The command line prints a `UserError` as text and exits with 2; it never shows a traceback for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable


class OpenClawError(Exception):
    """The root of the tree."""


class UserError(OpenClawError):
    """A mistake that a person can mend. The text names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One wrong key of a configuration.

    Attributes:
        key: The dotted key, such as `openclaw.interval`.
        message: What is wrong, with the value.
        allowed: What would be right, in words; empty where the message says it all.
        nearest: The nearest right key, where the key itself is unknown.
        source: Where the value came from: a file's name, an environment variable or a flag.
    """

    key: str
    message: str
    allowed: str = ""
    nearest: str | None = None
    source: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        parts = [f"{self.source}: " if self.source else "", f"{self.key}: {self.message}"]
        if self.allowed:
            parts.append(f"; allowed: {self.allowed}")
        if self.nearest:
            parts.append(f"; did you mean {self.nearest!r}?")
        return "".join(parts)


class ConfigError(UserError):
    """One or more wrong keys of a configuration, all reported at once."""

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class CredentialError(UserError):
    """A certificate, key, CA, token or key set that cannot be used; the text names the file.

    Args:
        message: What is wrong, with the file, and the remedy.
        key: The dotted key of the configuration that names the file; empty where none does.
        source: Where the key's value came from: a file's name, an environment variable or a flag.
    """

    def __init__(self, message: str, *, key: str = "", source: str = "") -> None:
        self.message = message
        self.key = key
        super().__init__(": ".join(part for part in (source, key, message) if part))

    def located(self, source_of: Callable[[str], str]) -> CredentialError:
        """Return the same error with where its key's value came from, by what tells that of a dotted key."""
        if not self.key:
            return self
        return CredentialError(self.message, key=self.key, source=source_of(self.key))


class UnreadableError(CredentialError):
    """A file that cannot be read now, whatever is in it: its rights, or no descriptor or memory is left."""


class StateError(UserError):
    """The state directory or the store cannot be used; the text names the path."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that breaks its rule, as the `errors` member of a 422 answer lists it.

    Attributes:
        field: The field, header or parameter.
        message: Its rule. Never what came.
    """

    field: str
    message: str


class WireError(OpenClawError):
    """What came over the wire breaks the contract.

    Attributes:
        status: The HTTP status that answers it.
        slug: A short stable name of the case: the end of the problem's `type` and the metrics' `error.type`.
    """

    status: ClassVar[int] = 400

    def __init__(self, slug: str, detail: str) -> None:
        self.slug = slug
        self.detail = detail
        super().__init__(detail)


class MalformedBodyError(WireError):
    """400: the body is not JSON, or not strict JSON."""


class FieldsError(WireError):
    """422: one or more fields break their rule."""

    status: ClassVar[int] = 422

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        self.problems = problems
        listed = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        super().__init__("invalid-fields", listed)


class TokenError(WireError):
    """401: the token is missing, expired, not valid, or not bound to this certificate."""

    status: ClassVar[int] = 401


class IdentityError(WireError):
    """403: token and certificate are valid, but subject, SAN and node_id do not belong together."""

    status: ClassVar[int] = 403


class PluginError(OpenClawError):
    """One plugin cannot be loaded or run; the text names the plugin and the cause."""


class StoreUnavailableError(OpenClawError):
    """The registry's store, or the key set that a token needs, cannot be reached now; answered 503."""
