"""Writes the dashboards and rules that ship with the package, and what provisions them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import openclaw_exporter
from openclaw_exporter.cli.places import taken
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PACKAGE: Final = Path(openclaw_exporter.__file__).parent
_IN_WHEEL: Final = _PACKAGE / "shipped"
_IN_CHECKOUT: Final = _PACKAGE.parent / "dashboards"

_DASHBOARDS: Final = """# Makes Grafana load the dashboards from a folder.
# Written by `openclaw-exporter dashboards export`.
# Its place is the directory `dashboards` of Grafana's provisioning directory.
apiVersion: 1
providers:
  - name: openclaw
    folder: OpenClaw
    type: file
    # They are read-only: an edited copy belongs under another uid.
    allowUiUpdates: false
    updateIntervalSeconds: 60
    options:
      path: {path}
"""
_DATA_SOURCE: Final = """# A Prometheus for the dashboards; leave it away where Grafana knows one already.
# Its place is the directory `datasources` of Grafana's provisioning directory.
apiVersion: 1
datasources:
  - name: Prometheus
    type: prometheus
    access: proxy
    url: http://127.0.0.1:9090
    jsonData:
      # As often as Prometheus scrapes; $__rate_interval is at least four times this.
      timeInterval: 30s
      httpMethod: POST
"""


def write(directory: Path, *, grafana_path: str | None = None, force: bool = False) -> list[Path]:
    """Write everything into a directory, which is made where it is missing; return the files.

    Args:
        directory: Where to.
        grafana_path: The dashboards' folder as Grafana sees it; as this machine does where None.
        force: Replace files that exist.

    Raises:
        UserError: A file exists, or one cannot be written; the dashboards are not installed.
    """
    contents = dict(_contents(directory, grafana_path))
    there = taken(contents)
    if there and not force:
        raise UserError(f"{there[0]} is there already: give --force to replace what is there")
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return list(contents)


def _contents(directory: Path, grafana_path: str | None) -> Iterator[tuple[Path, str]]:
    grafana = directory / "grafana"
    for name, text in _shipped("*.json").items():
        yield grafana / "dashboards" / name, text
    # JSON is YAML: it quotes whatever the path holds.
    path = json.dumps(grafana_path or str((grafana / "dashboards").absolute()), ensure_ascii=False)
    yield grafana / "provisioning" / "dashboards" / "openclaw.yaml", _DASHBOARDS.format(path=path)
    yield grafana / "provisioning" / "datasources" / "openclaw.yaml", _DATA_SOURCE
    for name, text in _shipped("rules/*.yml").items():
        yield directory / "prometheus" / "rules" / name, text


def _shipped(pattern: str) -> Mapping[str, str]:
    """Return the shipped files of a pattern: the package's, or those of the checkout that it comes from.

    Raises:
        UserError: There are none.
    """
    folder = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern))}
    if not found:
        raise UserError(
            f"there is nothing like {folder / pattern}: this installation has no dashboards; reinstall "
            "openclaw-exporter from its wheel"
        )
    return found
