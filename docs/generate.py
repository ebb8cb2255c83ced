"""Writes the pages of the documentation that are made of the code: `make docs`.

tests/test_docs.py compares them with a fresh build, so that a key or a metric cannot go undocumented.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_exporter.config.keys import Key, keys_of
from openclaw_exporter.config.tables import table_keys
from openclaw_exporter.plugin.host import HostKeys, load_plugins
from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).parent
BUNDLED = ("chimera", "gpu", "http_json", "postgresql", "rabbitmq", "system", "textfile")

_CONFIGURATION = """# Configuration

One TOML file; environment variables over it; flags over those. An unknown key is an error that names the
nearest right one. `openclaw-exporter check-config FILE` reports all errors at once, for
the agent or the receiver, as the file's tables say. This page is generated from the settings classes
(`make docs`).

Variables hold text of the key's type: `true` or `false`, a number, a list as `a,b` or JSON, a table as JSON
or TOML.
"""

_METRICS = """# Metrics

Every instrument of the agent and the receiver, generated from `openclaw_exporter/telemetry/catalogue.py`
(`make docs`). The same series names come out of a scrape of `/metrics` and of OTLP. A plugin's other
measurements keep the names it gives them.
"""


def configuration() -> str:
    """Return docs/configuration.md."""
    parts = [_CONFIGURATION]
    parts += _tables(table_keys())
    parts.append("## Every plugin\n\nThe host's own keys in a table `[plugins.NAME]`:\n")
    parts.append(_rows(keys_of(HostKeys, ("plugins", "NAME"))))
    plugins = load_plugins({}, only=BUNDLED).plugins
    for plugin in sorted(plugins, key=lambda found: found.name):
        if plugin.options_type is not None:
            parts.append(f"## `[plugins.{plugin.name}]`\n")
            parts.append(_rows(keys_of(plugin.options_type, ("plugins", plugin.name))))
    return "\n".join(parts)


def metrics() -> str:
    """Return docs/metrics.md."""
    parts = [_METRICS]
    for service in ("agent", "receiver"):
        parts.append(f"## The {service}\n")
        parts.append("| OpenTelemetry | Prometheus | kind, unit | attributes | what |\n|---|---|---|---|---|")
        for instrument in CATALOGUE.values():
            if instrument.service == service:
                attributes = ", ".join(f"`{name}`" for name in instrument.attributes)
                unit = f" `{instrument.unit}`" if instrument.unit else ""
                parts.append(
                    f"| `{instrument.name}` | `{prometheus_name(instrument)}` | {instrument.kind}{unit} "
                    f"| {attributes} | {_cell(instrument.description)} |"
                )
        parts.append("")
    return "\n".join(parts)


PAGES = {"configuration.md": configuration, "metrics.md": metrics}


def _tables(keys: Iterable[Key]) -> list[str]:
    tables: defaultdict[str, list[Key]] = defaultdict(list)
    for key in keys:
        tables[".".join(key.path[:-1])].append(key)
    return [part for table, rows in tables.items() for part in (f"## `[{table}]`\n", _rows(rows))]


def _rows(keys: Iterable[Key]) -> str:
    lines = ["| key | allowed | default | variable | what |", "|---|---|---|---|---|"]
    for key in keys:
        default = "needed" if key.required else f"`{_cell(key.default)}`" if key.default else ""
        cells = (
            f"`{key.path[-1]}`",
            _cell(key.allowed),
            default,
            f"`{key.variable}`",
            _cell(key.description),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
