"""Files that any script drops into a directory, written under another name first and then renamed.

`NAME.jsonl` holds one observation a line, in JSON:

    {"capacity": "workers", "amount": 8}
    {"queue": "tasks", "depth": 5, "oldest_age": 12.5}
    {"uptime": 3600}
    {"tag": "region", "value": "eu"}
    {"measurement": "backup.size", "value": 4096, "unit": "By", "attributes": {"backup.name": "db"}}
    {"max_age": 90000}

`NAME.prom` holds measurements in the Prometheus text format, by the convention of node_exporter's textfile
collector. A unit at a name's end becomes the unit, so that the name comes out again as it was written:
`backup_last_run_timestamp_seconds` is `backup.last_run_timestamp` in `s`.

A file stands for as long as it is younger than `max_age`, its own where it has one (`{"max_age": 90000}`, or
`# max_age 90000` in a `.prom` file). A file with anything wrong in it costs itself alone, and is named.
"""

from __future__ import annotations

from openclaw_exporter.plugin import hookimpl
from openclaw_exporter_textfile.errors import FileError
from openclaw_exporter_textfile.files import Files
from openclaw_exporter_textfile.options import Options

__all__ = ["FileError", "Files", "Options", "openclaw_collectors"]


@hookimpl
def openclaw_collectors(options: Options) -> list[Files]:
    """Return the one collector, where there is a directory to look into."""
    return [] if options.directory is None else [Files(options.directory, options)]
