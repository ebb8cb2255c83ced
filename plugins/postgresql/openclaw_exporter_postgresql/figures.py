"""From the rows of a query to its one figure, or to why there is none."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from openclaw_exporter.plugin import Capacity, QueueDepth

Rows: TypeAlias = list[tuple[Any, ...]]


class QueryError(Exception):
    """One query gives no figure; the text says why, without a row's value."""


def depth_of(topic: str, rows: Rows) -> QueueDepth:
    """Return a topic's depth, and the oldest task's age where there is a second column.

    Raises:
        QueryError: The rows tell none.
    """
    row = _row(rows, columns=(1, 2))
    depth = _number(row[0], "the first column")
    if depth != int(depth):
        raise QueryError("the first column is no whole number: count messages with count(*)")
    if len(row) == 1 or row[1] is None:
        return QueueDepth(topic, int(depth))
    age = row[1].total_seconds() if isinstance(row[1], timedelta) else row[1]
    return QueueDepth(topic, int(depth), max(0.0, float(_number(age, "the second column", least=None))))


def capacity_of(resource: str, rows: Rows) -> Capacity:
    """Return a resource's amount.

    Raises:
        QueryError: The rows tell none.
    """
    (value,) = _row(rows, columns=(1,))
    amount = _number(value, "the column")
    return Capacity(resource, int(amount) if amount == int(amount) else float(amount))


def _row(rows: Rows, *, columns: tuple[int, ...]) -> tuple[Any, ...]:
    if len(rows) != 1:
        number = "no row" if not rows else "more than one row"
        raise QueryError(f"the query returned {number}; it has to return one, as count(*) does")
    if len(rows[0]) not in columns:
        wanted = " or ".join(map(str, columns))
        raise QueryError(f"the query returned {len(rows[0])} columns; it has to return {wanted}")
    return rows[0]


def _number(value: object, what: str, *, least: int | None = 0) -> int | float | Decimal:
    """Check a number. Error texts name its type only, because it may be anything that a row holds."""
    if value is None:
        raise QueryError(f"{what} is NULL: use coalesce(…, 0) where that means zero")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise QueryError(f"{what} is a {type(value).__name__}, not a number")
    if not math.isfinite(value):
        raise QueryError(f"{what} is not finite")
    if least is not None and value < least:
        raise QueryError(f"{what} is negative")
    return value
