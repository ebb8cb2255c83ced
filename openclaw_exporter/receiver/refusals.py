"""What the receiver refuses beside what wire/ refuses, and the problem documents that answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclaw_exporter.errors import FieldProblem, WireError
from openclaw_exporter.wire.problems import Problem, problem, problem_for

if TYPE_CHECKING:
    from collections.abc import Iterable


class RefusedError(WireError):
    """A case of the contract's problem table, raised where it is found.

    Args:
        slug: The case; one of `wire.problems.CASES`.
        detail: What is wrong with this request. Never copied from it.
        errors: The fields, headers or parameters that are wrong.
        epoch: The highest epoch heard, in a conflict.
        retry_after: Seconds after which to come back.
        allow: The methods that the path does allow.
    """

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        errors: Iterable[FieldProblem] | None = None,
        epoch: int | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(slug, detail)
        self.retry_after = retry_after
        self.allow = allow
        self._errors = None if errors is None else tuple(errors)
        self._epoch = epoch

    @property
    def problem(self) -> Problem:
        """The document that answers it."""
        return problem(self.slug, self.detail or None, errors=self._errors, epoch=self._epoch)


class SheddingError(RefusedError):
    """503: there is no room for another heartbeat now.

    Args:
        detail: What there is too much of.
        retry_after: Seconds after which to come back.
    """

    def __init__(
        self, detail: str = "the receiver has more heartbeats than it can store", *, retry_after: int = 5
    ) -> None:
        super().__init__("shedding", detail, retry_after=retry_after)


def document(error: WireError) -> Problem:
    """Return the problem document that answers an error."""
    return error.problem if isinstance(error, RefusedError) else problem_for(error)


def query_refusal(parameter: str, message: str) -> RefusedError:
    """Return the refusal of a query parameter."""
    return RefusedError("invalid-query", errors=(FieldProblem(parameter, message),))
