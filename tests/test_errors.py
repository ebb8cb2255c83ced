from __future__ import annotations

from openclaw_exporter.errors import ConfigError, ConfigProblem, FieldProblem, FieldsError


def test_a_problem_names_place_value_allowed_and_nearest() -> None:
    problem = ConfigProblem(
        "openclaw.intervall", "unknown key", allowed="interval", nearest="interval", source="agent.toml"
    )
    text = "agent.toml: openclaw.intervall: unknown key; allowed: interval; did you mean 'interval'?"
    assert str(problem) == text


def test_a_config_error_lists_all_problems_a_line_each() -> None:
    error = ConfigError((ConfigProblem("a", "one"), ConfigProblem("b", "two")))
    assert str(error).splitlines() == ["a: one", "b: two"]


def test_a_fields_error_answers_422_and_names_each_field() -> None:
    error = FieldsError((FieldProblem("node_id", "missing"), FieldProblem("tags", "not an array")))
    assert error.status == 422
    assert "node_id: missing; tags: not an array" in str(error)
