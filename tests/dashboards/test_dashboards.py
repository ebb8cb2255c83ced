"""The dashboards' files: as a fresh build makes them, and by the rules."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dashboards.asking import asked_by, expanded, panels_of
from dashboards.build import SCHEMA_VERSION, documents, text
from dashboards.lint import lint

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[2] / "dashboards"
NAMES = ["exporter", "fleet", "gpu", "node", "receiver"]
EACH = pytest.mark.parametrize("name", NAMES)

Document = dict[str, Any]


def committed(name: str) -> Document:
    document: Document = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def test_the_five_are_there() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES == sorted(documents())


@EACH
def test_the_file_equals_a_fresh_build(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == text(documents()[name]), "run `make dashboards`"


@EACH
def test_no_rule_of_the_linter_is_broken(name: str, parse: Callable[[str], Document]) -> None:
    assert lint(committed(name), parse) == []


@EACH
def test_it_has_the_form_that_imports_everywhere(name: str) -> None:
    document = committed(name)
    assert document["schemaVersion"] == SCHEMA_VERSION == 42
    assert document["id"] is None
    assert document["uid"] == f"openclaw-{name}"
    assert "panels" in document
    assert "elements" not in document, "that is the form of v2"


@EACH
def test_links_keep_the_selection(name: str) -> None:
    (link,) = committed(name)["links"]
    assert link["type"] == "dashboards"
    assert link["tags"] == ["openclaw"]
    assert set(link["tags"]) <= set(committed(name)["tags"])
    assert link["keepTime"]
    assert link["includeVars"]


@EACH
def test_variables_mean_the_same_everywhere(name: str) -> None:
    variables = {variable["name"]: variable for variable in committed(name)["templating"]["list"]}
    assert list(variables)[:2] == ["datasource", "job"]
    assert set(variables) <= {"datasource", "job", "environment", "region", "node"}
    asked = json.dumps(committed(name)["panels"])
    unused = [name for name in variables if f"${name}" not in asked and f"${{{name}}}" not in asked]
    assert not unused


@EACH
def test_panels_fill_the_grid_without_a_hole(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in committed(name)["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert len(taken) == 24 * height


@EACH
def test_the_answer_at_three_in_the_morning_is_on_the_first_screen(name: str) -> None:
    """A laptop shows about 20 rows of the grid: eight numbers, and the first graphs."""
    panels = committed(name)["panels"]
    first = [panel for panel in panels if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in first} == {"stat"}
    assert len(first) == 8
    assert any(
        panel["type"] != "stat" for panel in panels if panel["gridPos"]["y"] + panel["gridPos"]["h"] <= 20
    )


@EACH
def test_annotations_tell_restarts(name: str) -> None:
    titles = [annotation["name"] for annotation in committed(name)["annotations"]["list"]]
    assert titles
    if name in {"fleet", "receiver"}:
        assert {"Expiries", "Receiver restarts"} == set(titles)
    if name in {"node", "exporter"}:
        assert "Exporter restarts" in titles


@EACH
def test_a_description_says_more_than_the_title(name: str) -> None:
    for panel in panels_of(committed(name)):
        assert len(panel["description"]) > len(panel["title"])
        assert panel["description"].endswith((".", "…")), panel["title"]


@EACH
def test_thresholds_rise(name: str) -> None:
    for panel in panels_of(committed(name)):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        values = [step["value"] for step in steps]
        assert all(earlier is None or earlier < later for earlier, later in pairwise(values)), panel["title"]


def test_the_nodes_variable_shows_host_names_and_asks_by_node_id() -> None:
    """Grafana matches the regular expression on each sample as text; so does this."""
    variable = next(v for v in committed("node")["templating"]["list"] if v["name"] == "node")
    pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
    sample = (
        '{host_name="chimera-01",service_instance_id="7c6f2dc6-c38c-44d9-8cbb-b37f1723388e"} 0 1795599578000'
    )
    found = pattern.search(sample)
    assert found is not None
    assert found.groupdict() == {"text": "chimera-01", "value": "7c6f2dc6-c38c-44d9-8cbb-b37f1723388e"}


def test_a_shared_thing_is_counted_once() -> None:
    """What every receiver tells of one registry stands within `max by` before it is summed up."""
    for name in NAMES:
        for panel in panels_of(committed(name)):
            for asked in asked_by(panel):
                for shared in (
                    "openclaw_registry_node_count",
                    "openclaw_registry_capacity",
                    "openclaw_registry_queue_depth",
                ):
                    for found in re.finditer(rf"{shared}\{{", asked.expression):
                        before = asked.expression[: found.start()]
                        assert re.search(r"max by \([^)]*\) \($", before), f"{name}: {asked.where}"


def test_unknown_variables_are_refused() -> None:
    with pytest.raises(KeyError):
        expanded("up{job=~'$nonsense'}")


def broken(change: Callable[[Document], None]) -> Document:
    document = committed("node")
    change(document)
    return document


def first_graph(document: Document) -> Document:
    return next(panel for panel in panels_of(document) if panel["type"] == "timeseries")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda d: d.update(id=7), "its id"),
        (lambda d: d.update(editable=True), "uneditable-dashboard"),
        (lambda d: d.update(uid="abc"), "its uid"),
        (lambda d: d.update(__inputs=[]), "__inputs"),
        (lambda d: d["panels"][1].update(id=1), "two panels have one id"),
        (lambda d: d["templating"]["list"].pop(0), "template-datasource-rule"),
        (lambda d: d["templating"]["list"][1].update(allValue=""), "template-job-rule"),
        (lambda d: d["templating"]["list"][2].update(refresh=1), "template-on-time-change-reload-rule"),
        (lambda d: d["templating"]["list"][2].update(label=""), "no label"),
        (lambda d: d["templating"]["list"][2].update(allValue=None), "template-instance-rule"),
        (lambda d: d["templating"]["list"][2]["datasource"].update(uid="x"), "asks another data source"),
        (lambda d: first_graph(d).update(description=""), "panel-title-description-rule"),
        (lambda d: first_graph(d)["fieldConfig"]["defaults"].pop("unit"), "panel-units-rule"),
        (lambda d: first_graph(d).update(targets=[]), "panel-no-targets-rule"),
        (lambda d: first_graph(d)["datasource"].update(uid="x"), "panel-datasource-rule"),
        (lambda d: first_graph(d)["targets"][0]["datasource"].update(uid="x"), "a query of"),
        (lambda d: first_graph(d)["targets"][0].update(expr="openclaw_buffer_usage"), "target-job-rule"),
        (
            lambda d: first_graph(d)["targets"][0].update(expr='openclaw_buffer_usage{job=~"$job"}'),
            "target-instance-rule",
        ),
        (
            lambda d: first_graph(d)["targets"][0].update(expr='openclaw_publish_success_total{job=~"$job"}'),
            "target-counter-agg-rule",
        ),
        (
            lambda d: first_graph(d)["targets"][0].update(
                expr='rate(openclaw_publish_success_total{job=~"$job"}[5m])'
            ),
            "target-rate-interval-rule",
        ),
        (
            lambda d: first_graph(d)["targets"][0].update(
                expr='increase(openclaw_publish_success_total{job=~"$job"}[5m])'
            ),
            "its title does not tell",
        ),
    ],
)
def test_each_rule_finds_what_breaks_it(
    change: Callable[[Document], None], rule: str, parse: Callable[[str], Document]
) -> None:
    assert any(rule in fault for fault in lint(broken(change), parse))


def test_a_query_that_is_no_promql_is_an_error(parse: Callable[[str], Document]) -> None:
    document = broken(lambda d: first_graph(d)["targets"][0].update(expr="sum by (job rate(x[5m])"))
    with pytest.raises(AssertionError, match="parse error"):
        lint(document, parse)
