"""Asks a Prometheus what a dashboard would ask it: the dashboards' tests and `look` use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING: Final[Mapping[str, str]] = {
    "job": ".+",
    "environment": ".*",
    "region": ".*",
    "node": ".+",
    "__rate_interval": "1m",
    "__interval": "15s",
    "__range": "5m",
}
"""The variables when everything is chosen."""

_DIRECT: Final = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a dashboard.

    Attributes:
        where: The panel's title, or the annotation's name.
        expression: PromQL with Grafana's variables.
        legend: What each series is called.
        instant: Whether only the value now is asked for.
    """

    where: str
    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer: its labels, and (Unix time, value) of each point."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    def named(self, legend: str) -> str:
        """Return what Grafana calls it."""
        if legend in {"", "__auto"}:
            return ", ".join(f'{key}="{value}"' for key, value in sorted(self.labels.items())) or "Value"
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: self.labels.get(found[1], ""), legend).strip()


class QueryError(Exception):
    """Prometheus refused a query; the text is its own."""


def panels_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every panel but headings, also those within collapsed rows."""
    for panel in document["panels"]:
        yield from panel.get("panels") or ()
        if panel["type"] != "row":
            yield panel


def asked_by(panel: Mapping[str, Any]) -> Iterator[Asked]:
    """Yield a panel's queries."""
    for target in panel["targets"]:
        instant = bool(target.get("instant"))
        yield Asked(panel["title"], target["expr"], target.get("legendFormat", ""), instant)


def all_asked(document: Mapping[str, Any]) -> Iterator[Asked]:
    """Yield every query of a dashboard: of its panels and its annotations."""
    for panel in panels_of(document):
        yield from asked_by(panel)
    for annotation in document["annotations"]["list"]:
        yield Asked(f"annotation {annotation['name']}", annotation["expr"])


def expanded(expression: str, variables: Mapping[str, str] = EVERYTHING) -> str:
    """Put values in the place of Grafana's variables.

    Raises:
        KeyError: A variable has no value.
    """
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables[found[1]], expression)


class Prometheus:
    """The query API of a Prometheus.

    Args:
        url: Its base URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def instant(self, expression: str) -> list[Series]:
        """Return the value now.

        Raises:
            QueryError: It is no valid query, or it fails.
        """
        return [
            Series(one["metric"], (_point(one["value"]),)) for one in self._ask("query", query=expression)
        ]

    def over(self, expression: str, *, start: float, end: float, step: float) -> list[Series]:
        """Return values over time; times are Unix seconds.

        Raises:
            QueryError: It is no valid query, or it fails.
        """
        answer = self._ask("query_range", query=expression, start=start, end=end, step=step)
        return [Series(one["metric"], tuple(map(_point, one["values"]))) for one in answer]

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of another call of the API."""
        return self._open(path, parameters)

    def _ask(self, call: str, **parameters: Any) -> list[Any]:
        data = self._open(call, parameters)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[Any] = data["result"]
        return result

    def _open(self, call: str, parameters: Mapping[str, Any]) -> Any:
        url = f"{self._url}/api/v1/{call}?{urlencode(parameters)}"
        try:
            with _DIRECT.open(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            said = json.load(error)
            raise QueryError(f"{said.get('error', error)}\n{parameters}") from None


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
