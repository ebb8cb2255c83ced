"""The vocabulary of panels: how each kind looks, once. Every panel has a description and a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana_foundation_sdk.cog.builder import Builder

DATASOURCE: Final = looks.DataSourceRef(type_val="prometheus", uid="${datasource}")

Steps: TypeAlias = tuple[tuple[float | None, str], ...]
"""From which value on which colour; the first has no value."""

PLAIN: Final[Steps] = ((None, "text"),)
ANY_IS_BAD: Final[Steps] = ((None, "green"), (1, "red"))
ANY_IS_WORTH_A_LOOK: Final[Steps] = ((None, "green"), (1, "yellow"))
DAYS: Final = 86_400

STATE_COLOURS: Final[Mapping[str, str]] = {
    "up": "green",
    "late": "yellow",
    "suspect": "orange",
    "expired": "red",
    "draining": "blue",
    "offline": "#808080",
}
"""A node's states look the same on every dashboard."""


Panel: TypeAlias = (
    bargauge.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
)
"""A panel under construction."""

P = TypeVar("P")


_NODE_URL: Final = (
    "/d/openclaw-node?var-node=${__field.labels.service_instance_id}"
    "&${datasource:queryparam}&${job:queryparam}&${__url_time_range}"
)


def query(expression: str, legend: str = "", *, instant: bool = False, as_table: bool = False) -> Query:
    """Return one query of a panel.

    Args:
        expression: PromQL.
        legend: What each series is called, with its labels in `{{ }}`.
        instant: Ask for the value now only.
        as_table: Return labels as columns.
    """
    made = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").datasource(DATASOURCE)
    made = made.editor_mode(queries.QueryEditorMode.CODE)
    if as_table:
        made = made.format(queries.PromQueryFormat.TABLE)
    return made.instant() if instant else made.range()


Query: TypeAlias = prometheus.Dataquery


def number(
    title: str,
    expression: str,
    *,
    description: str,
    unit: str,
    steps: Steps = PLAIN,
    instant: bool = False,
    decimals: int | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
) -> stat.Panel:
    """Return a big number; red means that somebody should look now.

    Args:
        title: What it is, in a few words.
        expression: PromQL that yields one series.
        description: What it says and when to worry.
        unit: Grafana's unit id.
        steps: Colours.
        instant: Show no line of how it came to be.
        decimals: Digits after the point.
        words: What is shown instead of certain values, with its colour.
    """
    panel = _dressed(stat.Panel(), title, description, unit, (query(expression, title, instant=instant),))
    panel = (
        panel.thresholds(_thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .graph_mode(looks.BigValueGraphMode.NONE if instant else looks.BigValueGraphMode.AREA)
        .color_mode(looks.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    return panel.mappings(_mappings(words)) if words else panel


def graph(
    title: str,
    *asked: Query,
    description: str,
    unit: str,
    stacked: bool = False,
    bars: bool = False,
    steps: Steps | None = None,
    least: float | None = 0,
    most: float | None = None,
    colours: Mapping[str, str] | None = None,
    dashed: str = "",
) -> timeseries.Panel:
    """Return lines over time.

    Args:
        title: What it is.
        asked: The queries.
        description: What it says and when to worry.
        unit: Grafana's unit id.
        stacked: Draw areas upon each other.
        bars: Draw bars, for what is counted.
        steps: Draw a line at each of these values.
        least: Where the axis begins.
        most: Where the axis ends.
        colours: Series by name that have a colour of their own.
        dashed: A regular expression of the series that are limits and not measurements.
    """
    legend = common.VizLegendOptions().display_mode(looks.LegendDisplayMode.LIST).show_legend(True)
    panel = (
        _dressed(timeseries.Panel(), title, description, unit, asked)
        .legend(legend.placement(looks.LegendPlacement.BOTTOM))
        .tooltip(
            common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
        )
        .draw_style(looks.GraphDrawStyle.BARS if bars else looks.GraphDrawStyle.LINE)
        .fill_opacity(70 if bars else 35 if stacked else 8)
        .line_width(1)
        .show_points(looks.VisibilityMode.NEVER)
        .stacking(
            common.StackingConfig().mode(looks.StackingMode.NORMAL if stacked else looks.StackingMode.NONE)
        )
    )
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if steps is not None:
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [_fixed(colour)])
    if dashed:
        line = {"fill": "dash", "dash": [8, 8]}
        looks_of_limits = [("custom.lineStyle", line), ("custom.fillOpacity", 0), ("custom.stacking", _APART)]
        panel = panel.override_by_regexp(dashed, [model.DynamicConfigValue(*of) for of in looks_of_limits])
    return panel


_APART: Final = {"mode": "none", "group": "limit"}


def heat_map(title: str, expression: str, *, description: str, unit: str) -> heatmap.Panel:
    """Return how a histogram's values spread over time; `unit` is that of its buckets."""
    asked = query(expression, "{{le}}").format(queries.PromQueryFormat.HEATMAP)
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (
        _dressed(heatmap.Panel(), title, description, unit, (asked,))
        .calculate(False)
        .color(colours.exponent(0.5))
        .cell_gap(1)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .tooltip(heatmap.HeatmapTooltip().mode(looks.TooltipDisplayMode.SINGLE).y_histogram(True))
    )


def timeline(
    title: str, expression: str, legend: str, *, description: str, words: Mapping[str, tuple[str, str]]
) -> statetimeline.Panel:
    """Return one coloured strip for each series; `words` say what its values mean, with their colours."""
    return (
        _dressed(statetimeline.Panel(), title, description, "none", (query(expression, legend),))
        .mappings(_mappings(words))
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(80)
        .legend(common.VizLegendOptions().show_legend(False))
    )


def ranking(
    title: str,
    expression: str,
    legend: str,
    *,
    description: str,
    unit: str,
    steps: Steps = PLAIN,
    to_node: bool = False,
) -> bargauge.Panel:
    """Return a bar for each series as it is now, the longest first where the query sorts.

    Args:
        title: What it is.
        expression: PromQL.
        legend: What each series is called.
        description: What it says and when to worry.
        unit: Grafana's unit id.
        steps: Colours.
        to_node: A click on a bar leads to the dashboard of its node; the series have `service_instance_id`.
    """
    panel = (
        _dressed(bargauge.Panel(), title, description, unit, (query(expression, legend, instant=True),))
        .orientation(looks.VizOrientation.HORIZONTAL)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .show_unfilled(False)
        .min(0)
        .thresholds(_thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if not to_node:
        return panel
    link = dashboard.DashboardLink("Open the node").type(model.DashboardLinkType.LINK).url(_NODE_URL)
    return panel.data_links([link])


def listing(title: str, expression: str, columns: Mapping[str, str], *, description: str) -> table.Panel:
    """Return labels as a table.

    Args:
        title: What it is.
        expression: PromQL; a row for each series.
        columns: Which labels are shown, in order, with their headings.
        description: What it says.
    """
    order = {name: place for place, name in enumerate(columns)}
    return _dressed(
        table.Panel(), title, description, "string", (query(expression, instant=True, as_table=True),)
    ).with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True, "Value": True},
                "includeByName": dict.fromkeys(columns, True),
                "indexByName": order,
                "renameByName": dict(columns),
            },
        )
    )


def _dressed(panel: P, title: str, description: str, unit: str, asked: tuple[Query, ...]) -> P:
    dressed: Any = panel
    dressed = dressed.title(title).description(description).unit(unit).datasource(DATASOURCE)
    for letter, one in zip("ABCDEFGH", asked, strict=False):
        dressed = dressed.with_target(one.ref_id(letter))
    made: P = dressed
    return made


def _thresholds(steps: Steps) -> Builder[model.ThresholdsConfig]:
    made = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def _mappings(words: Mapping[str, tuple[str, str]] | None) -> list[Any]:
    results = {
        value: model.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate((words or {}).items())
    }
    return [model.ValueMap(options=results)]


def _fixed(colour: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})
