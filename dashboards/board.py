"""The frame of every dashboard: variables, links, annotations, rows of panels on the grid of 24 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.models import dashboard as model

from dashboards.panels import DATASOURCE
from dashboards.promql import JOB, name_of, select

if TYPE_CHECKING:
    from dashboards.panels import Panel

TAG: Final = "openclaw"
_WIDTH: Final = 24

_SEEN: Final = "|".join(
    map(
        name_of,
        ("openclaw.publish.success_total", "openclaw.node.slots.withheld", "openclaw.registry.node.count"),
    )
)
"""One of these comes from everything of ours: a publisher, an agent, a receiver."""


class Board:
    """One dashboard under construction.

    Args:
        uid: Stable: links, bookmarks and provisioning find the dashboard by it.
        title: Its name.
        description: What it is for.
        since: How far it looks back at first, in Grafana's words (`now-6h`).
    """

    def __init__(self, uid: str, title: str, description: str, *, since: str = "now-6h") -> None:
        self._places = 0
        self._y = 0
        links = dashboard.DashboardLink("OpenClaw").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
        self._made = (
            dashboard.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([TAG])
            .readonly()
            .time(since, "now")
            .refresh("30s")
            .timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .link(
                links.keep_time(True).include_vars(True).as_dropdown(False).tooltip("Keeps what is selected")
            )
            .variables(
                [_datasource(), _variable("job", "Job", f'label_values({{__name__=~"{_SEEN}"}}, job)')]
            )
        )

    def places_of_agents(self) -> Self:
        """Let environment and region be chosen, as agents tell them."""
        return self._places_from(
            "openclaw.node.slots.withheld", "deployment_environment_name", "cloud_region"
        )

    def places_of_nodes(self) -> Self:
        """Let environment and region be chosen, as the registry tells them of nodes."""
        metric = "openclaw.registry.node.count"
        return self._places_from(metric, "openclaw_node_environment", "openclaw_node_region")

    def nodes(self, *, several: bool) -> Self:
        """Let nodes be chosen by host name; their ids go into the queries.

        Args:
            several: Whether more than one, and all, can be chosen.
        """
        scope = f'{JOB}, deployment_environment_name=~"$environment", cloud_region=~"$region"'
        selector = f"{name_of('openclaw.node.slots.withheld')}{{{scope}}}"
        asked = (
            f"query_result(max by (host_name, service_instance_id) (last_over_time({selector}[$__range])))"
        )
        variable = _variable("node", "Node", asked, several=several)
        # Prometheus writes labels in alphabetical order.
        names = '/host_name="(?<text>[^"]+)".*service_instance_id="(?<value>[^"]+)"/'
        self._made = self._made.with_variable(variable.regex(names))
        return self

    def annotate(self, name: str, expression: str, title: str, colour: str) -> Self:
        """Mark moments on every graph: those at which the expression has a value.

        Args:
            name: What is shown beside the switch.
            expression: PromQL.
            title: Of each mark, with labels in `{{ }}`.
            colour: Of the marks.
        """
        asked = prometheus.Dataquery().expr(expression).ref_id("Anno").range().legend_format(title)
        self._made = self._made.annotation(
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(colour)
            .expr(expression)
            .step("60s")
            .title_format(title)
            .target(asked)
        )
        return self

    def mark_receiver_restarts(self) -> Self:
        """Mark where a receiver's count of what it recorded began anew."""
        recorded = select("openclaw.registry.heartbeat.received", JOB, 'openclaw_result="recorded"')
        return self.annotate(
            "Receiver restarts",
            f"resets({recorded}[2m]) > 0",
            "receiver {{service_instance_id}} restarted",
            "blue",
        )

    def section(self, title: str) -> Self:
        """Begin a part of the dashboard with a heading."""
        heading = dashboard.Row(title).id(self._next()).grid_pos(model.GridPos(h=1, w=_WIDTH, x=0, y=self._y))
        self._y += 1
        self._made = self._made.with_row(heading)
        return self

    def row(self, height: int, *panels: tuple[int, Panel] | Panel) -> Self:
        """Put panels side by side.

        Args:
            height: Of all, in the grid's units of 38 pixels.
            panels: Each with its width in columns, or without, to have an equal share.
        """
        share = _WIDTH // len(panels)
        placed = [panel if isinstance(panel, tuple) else (share, panel) for panel in panels]
        if sum(width for width, _ in placed) != _WIDTH:
            message = f"the panels of a row fill {sum(width for width, _ in placed)} of {_WIDTH} columns"
            raise ValueError(message)
        x = 0
        for width, panel in placed:
            place = model.GridPos(h=height, w=width, x=x, y=self._y)
            self._made = self._made.with_panel(panel.id(self._next()).grid_pos(place))
            x += width
        self._y += height
        return self

    def build(self) -> model.Dashboard:
        """Return the dashboard."""
        return self._made.build()

    def _next(self) -> int:
        self._places += 1
        return self._places

    def _places_from(self, metric: str, environment: str, region: str) -> Self:
        # `.*` and not `.+`: a node without an environment or a region is one of all, too.
        asked = f"label_values({name_of(metric)}{{{JOB}}}, {environment})"
        self._made = self._made.with_variable(_variable("environment", "Environment", asked, all_value=".*"))
        asked = f'label_values({name_of(metric)}{{{JOB}, {environment}=~"$environment"}}, {region})'
        self._made = self._made.with_variable(_variable("region", "Region", asked, all_value=".*"))
        return self


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variable(
    name: str, label: str, asked: str, *, several: bool = True, all_value: str = ".+"
) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": asked, "refId": f"variable-{name}"})
        .definition(asked)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(several)
        .include_all(several)
    )
    if not several:
        return made
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return made.all_value(all_value).current(everything)
