"""Rules for dashboards: those of grafana/dashboard-linter and some of our own, on trees of a real parser.

The parser is Prometheus' own: `/api/v1/parse_query` of Prometheus 3 returns the tree of a query as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dashboards.asking import Asked, all_asked, asked_by, panels_of
from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Tree: TypeAlias = "dict[str, Any]"
Parser: TypeAlias = "Callable[[str], Tree]"

_RATED: Final = {"rate", "irate", "increase", "resets", "changes"}
# Lengths that no query uses, so that they can be told in the tree.
_RATE_INTERVAL: Final = 257_000
_RANGE: Final = 11_231_000
_DURATIONS: Final = {
    "$__rate_interval": f"{_RATE_INTERVAL}ms",
    "$__range": f"{_RANGE}ms",
    "$__interval": "17s",
}
_COUNTERS: Final = {
    prometheus_name(instrument) for instrument in CATALOGUE.values() if instrument.kind == "counter"
}
_HISTOGRAMS: Final = {
    prometheus_name(instrument) for instrument in CATALOGUE.values() if instrument.kind == "histogram"
}
_NOT_OURS: Final = {"target_info"}
"""Metrics that no instrument makes."""


def parsed(expression: str, parse: Parser) -> Tree:
    """Return the tree of a query with Grafana's variables; those in matchers stay as they are."""
    for variable, duration in _DURATIONS.items():
        expression = expression.replace(variable, duration)
    return parse(expression)


def nodes(tree: Any, above: tuple[Tree, ...] = ()) -> Iterator[tuple[Tree, tuple[Tree, ...]]]:
    """Yield every node of a tree with the nodes above it, the nearest last."""
    if isinstance(tree, dict):
        inner = above
        if "type" in tree:
            yield tree, above
            inner = (*above, tree)
        for value in tree.values():
            yield from nodes(value, inner)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value, above)


def selectors(tree: Tree) -> Iterator[tuple[Tree, tuple[Tree, ...]]]:
    """Yield every selector of series; one within a range stands for itself once."""
    for node, above in nodes(tree):
        if node["type"] in {"vectorSelector", "matrixSelector"}:
            yield node, above


def metrics_of(tree: Tree) -> set[str]:
    """Return the names of all metrics that a query reads."""
    return {node["name"] for node, _ in selectors(tree) if node["name"]}


def base_name(metric: str) -> str:
    """Return a histogram's name for one of its series, and any other name as it is."""
    for part in ("_bucket", "_sum", "_count"):
        if metric.removesuffix(part) in _HISTOGRAMS:
            return metric.removesuffix(part)
    return metric


def lint(document: Mapping[str, Any], parse: Parser) -> list[str]:
    """Return what is wrong with a dashboard, each with the rule and the place."""
    found = [*_form(document), *_variables(document)]
    for panel in panels_of(document):
        found += _panel(panel)
        for asked in asked_by(panel):
            found += _query(asked, document, parse)
    titles = {panel["title"] for panel in panels_of(document)}
    for asked in all_asked(document):
        if asked.where not in titles:
            found += _query(asked, document, parse)
    return found


def _form(document: Mapping[str, Any]) -> Iterator[str]:
    if document["id"] is not None:
        yield "dashboard: its id is not null"
    if not document["uid"].startswith("openclaw-"):
        yield "dashboard: its uid is no stable name"
    if document["editable"]:
        yield "uneditable-dashboard: editable"
    if "__inputs" in document or "__requires" in document:
        yield "dashboard: __inputs cannot be provisioned"
    ids = [panel["id"] for panel in document["panels"]]
    if len(ids) != len(set(ids)):
        yield "dashboard: two panels have one id"


def _variables(document: Mapping[str, Any]) -> Iterator[str]:
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        yield "template-datasource-rule: there is no variable `datasource`"
    if variables.get("job", {}).get("allValue") != ".+" or not variables["job"]["multi"]:
        yield "template-job-rule: `job` is not multiple, with `.+` for all"
    for name, variable in variables.items():
        if variable["type"] != "query":
            continue
        if variable["datasource"]["uid"] != "${datasource}":
            yield f"template-datasource-rule: `{name}` asks another data source"
        if variable["refresh"] != 2:  # noqa: PLR2004 - on time-range change, in Grafana's model
            yield f"template-on-time-change-reload-rule: `{name}`"
        if variable["includeAll"] and variable.get("allValue") not in {".+", ".*"}:
            yield f"template-instance-rule: `{name}` has no value for all"
        if not variable.get("label"):
            yield f"variable `{name}` has no label"


def _panel(panel: Mapping[str, Any]) -> Iterator[str]:
    title = panel.get("title") or f"panel {panel['id']}"
    if not panel.get("title") or not panel.get("description"):
        yield f"panel-title-description-rule: {title}"
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield f"panel-units-rule: {title}"
    if not panel.get("targets"):
        yield f"panel-no-targets-rule: {title}"
    if panel["datasource"]["uid"] != "${datasource}":
        yield f"panel-datasource-rule: {title}"
    for target in panel["targets"]:
        if target["datasource"]["uid"] != "${datasource}":
            yield f"panel-datasource-rule: a query of {title}"


def _query(asked: Asked, document: Mapping[str, Any], parse: Parser) -> Iterator[str]:
    names = {variable["name"] for variable in document["templating"]["list"]}
    recorded = asked.expression.count("environment:")
    for node, above in selectors(parsed(asked.expression, parse)):
        matchers = {(matcher["name"], matcher["value"]) for matcher in node["matchers"]}
        where = f"{asked.where}: {node['name']}"
        if ("job", "$job") not in matchers:
            yield f"target-job-rule: {where}"
        if "node" in names and ("service_instance_id", "$node") not in matchers:
            yield f"target-instance-rule: {where}"
        function = next((one["func"]["name"] for one in reversed(above) if one["type"] == "call"), "")
        name = node["name"]
        counts = name in _COUNTERS or base_name(name) != name
        if counts and function not in _RATED:
            yield f"target-counter-agg-rule: {where} is a counter, and is not rated"
        if name in _COUNTERS and function == "rate" and node.get("range") != _RATE_INTERVAL:
            yield f"target-rate-interval-rule: {where}"
        fixed = node.get("range") not in {None, _RATE_INTERVAL, _RANGE}
        if function == "increase" and fixed and not recorded and not _says_window(asked.where):
            yield f"target-rate-interval-rule: {where} has a window that its title does not tell"


def _says_window(title: str) -> bool:
    return any(words in title for words in ("1 h", "last hour", "30 d"))
