"""A status page in JSON: JSON pointers (RFC 6901) map its fields onto observations.

Types are strict: the string "5" is an error of that field. A field that is null or missing is unknown and is
left out; a page that is away, stale or no JSON makes everything unknown. No error text holds a value of it.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_http_json.options import Measured, Options, Source
from openclaw_exporter_http_json.page import Page
from openclaw_exporter_http_json.reading import FieldError

__all__ = ["FieldError", "Measured", "Options", "Page", "Source", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Page]:
    """Return a collector for each page, so that one that is away costs only itself."""
    pages = [Page("page", options)] if options.url is not None else []
    return pages + [Page(name, source) for name, source in options.sources.items()]
