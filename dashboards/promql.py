"""The vocabulary of queries. Metrics are asked for by their names in the catalogue: a typo fails the build.

What several receivers or nodes tell of one shared thing is reduced with `max by` first, and summed then.
"""

from __future__ import annotations

from typing import Final

from openclaw_exporter.telemetry.catalogue import CATALOGUE, prometheus_name

JOB: Final = 'job=~"$job"'
AGENTS: Final = f'{JOB}, deployment_environment_name=~"$environment", cloud_region=~"$region"'
"""What agents say of themselves, in the chosen environments and regions."""
NODE: Final = f'{AGENTS}, service_instance_id=~"$node"'
"""The same of the chosen nodes."""
REGISTRY: Final = f'{JOB}, openclaw_node_environment=~"$environment", openclaw_node_region=~"$region"'
"""What receivers say of nodes in the chosen environments and regions."""
REGIONS: Final = f'{JOB}, openclaw_node_region=~"$region"'
"""The same of what is not told by environment."""

INTERVAL: Final = "$__rate_interval"
RANGE: Final = "$__range"


def name_of(metric: str) -> str:
    """Return a metric's name in Prometheus.

    Raises:
        KeyError: The catalogue has no such metric.
    """
    return prometheus_name(CATALOGUE[metric])


def select(metric: str, scope: str, *matchers: str) -> str:
    """Return a selector of the metric's series.

    Args:
        metric: Its name in the catalogue.
        scope: Matchers on what the dashboard's variables say.
        matchers: Further ones.
    """
    return f"{name_of(metric)}{{{', '.join((scope, *matchers))}}}"


def rate(metric: str, scope: str, *matchers: str) -> str:
    """Return a counter's rate."""
    return f"rate({select(metric, scope, *matchers)}[{INTERVAL}])"


def increase(metric: str, scope: str, *matchers: str, over: str = INTERVAL) -> str:
    """Return by how much a counter grew."""
    return f"increase({select(metric, scope, *matchers)}[{over}])"


def sum_by(labels: str, expression: str) -> str:
    """Sum up over all labels but these; without any, to one series."""
    return f"sum by ({labels}) ({expression})" if labels else f"sum({expression})"


def max_by(labels: str, expression: str) -> str:
    """Take the greatest over all labels but these; without any, of all series."""
    return f"max by ({labels}) ({expression})" if labels else f"max({expression})"


def total(metric: str, scope: str, *matchers: str, by: str = "") -> str:
    """Sum up a metric's series."""
    return sum_by(by, select(metric, scope, *matchers))


def greatest(metric: str, scope: str, *matchers: str, by: str = "") -> str:
    """Take the greatest of a metric's series."""
    return max_by(by, select(metric, scope, *matchers))


def shared(metric: str, scope: str, *matchers: str, by: str = "") -> str:
    """Sum up what every receiver of one registry tells alike: each series counts once.

    Args:
        metric: An updowncounter or gauge of the receiver.
        scope: Matchers on what the dashboard's variables say.
        matchers: Further ones.
        by: Labels that are kept.
    """
    own = (label(attribute) for attribute in CATALOGUE[metric].attributes)
    return sum_by(by, max_by(", ".join(("job", *own)), select(metric, scope, *matchers)))


def quantile(share: float, metric: str, scope: str, *matchers: str, by: str = "") -> str:
    """Return a quantile of a histogram, over all series but for the labels that are kept."""
    buckets = f"{name_of(metric)}_bucket{{{', '.join((scope, *matchers))}}}"
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({buckets}[{INTERVAL}])))"


def buckets(metric: str, scope: str, *matchers: str) -> str:
    """Return how much came into each bucket of a histogram, for a heat map."""
    selector = f"{name_of(metric)}_bucket{{{', '.join((scope, *matchers))}}}"
    return f"sum by (le) (increase({selector}[{INTERVAL}]))"


def label(attribute: str) -> str:
    """Return an attribute's name as a label."""
    return attribute.replace(".", "_")


def either(*expressions: str) -> str:
    """Return the series of the first expression, and those of the next that the ones before do not have."""
    return " or ".join(expressions)
