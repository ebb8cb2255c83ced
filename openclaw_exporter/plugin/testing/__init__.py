"""The conformance kit: what a plugin's author tests with, and what `openclaw-exporter plugins check` runs.

As a pytest plugin it is loaded only where somebody asks for it, in a conftest.py at the root of the tests:

    pytest_plugins = ["openclaw_exporter.plugin.testing"]

Then there are the fixtures `run_collector`, `collected` and `load_plugin`. The assertions and the checks need
no pytest. (PYTEST_DONT_REWRITE: there is no assert statement here, and a conftest.py may import this first.)
"""

from __future__ import annotations

from openclaw_exporter.plugin.testing.collected import (
    Collected,
    assert_all_observations_covered,
    assert_conforms,
    assert_observation,
    assert_unknown,
)
from openclaw_exporter.plugin.testing.conformance import check_collector
from openclaw_exporter.plugin.testing.findings import CHECKS, Finding, Findings, Severity, failures
from openclaw_exporter.plugin.testing.leaks import check_leaks
from openclaw_exporter.plugin.testing.plugins import Report, check_plugin
from openclaw_exporter.plugin.testing.privacy import check_privacy
from openclaw_exporter.plugin.testing.series import (
    check_deadline,
    check_names,
    check_observations,
    check_repeatability,
    check_series,
)
from openclaw_exporter.plugin.testing.source import BreakSource, check_gone, check_source
from openclaw_exporter.plugin.testing.weight import Weight, check_import, import_weight

__all__ = [
    "CHECKS",
    "BreakSource",
    "Collected",
    "Finding",
    "Findings",
    "Report",
    "Severity",
    "Weight",
    "assert_all_observations_covered",
    "assert_conforms",
    "assert_observation",
    "assert_unknown",
    "check_collector",
    "check_deadline",
    "check_gone",
    "check_import",
    "check_leaks",
    "check_names",
    "check_observations",
    "check_plugin",
    "check_privacy",
    "check_repeatability",
    "check_series",
    "check_source",
    "failures",
    "import_weight",
]

pytest_plugins = ("openclaw_exporter.plugin.testing.fixtures",)
