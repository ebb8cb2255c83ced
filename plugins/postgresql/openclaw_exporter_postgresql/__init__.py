"""How many tasks wait in tables of PostgreSQL: one query of the operator's own for each topic.

Each query runs in a read-only transaction of its own with a statement timeout, so that a slow or wrong one
costs its own topic and nothing else. One that would write is refused by the server; even so, give the user
no more than SELECT on what it reads.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_postgresql.figures import QueryError
from openclaw_exporter_postgresql.options import Options
from openclaw_exporter_postgresql.queries import Queries

__all__ = ["Options", "Queries", "QueryError", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Queries]:
    """Return the collector, where queries are configured."""
    return [Queries(options)] if options.queries or options.capacity else []
