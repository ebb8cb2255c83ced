"""Typed tables: everything right becomes the dataclass, everything wrong is reported at once."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from openclaw_exporter.errors import ConfigError, ConfigProblem
from openclaw_exporter.plugin.options import describe, nearest, read_table
from openclaw_exporter.plugin.words import type_text


@dataclass(frozen=True)
class Tls:
    """Credentials.

    Attributes:
        ca: The CA's certificates.
        key: The key, which
            stays secret.
    """

    ca: Path
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A table with every kind of key.

    Attributes:
        interval: Seconds between beats.
        mode: How it works: fast or slow.
        endpoint (str): Where it goes.
        tls: Its credentials.

    More text that documents nothing.
    """

    endpoint: str
    interval: Annotated[int, Meta(ge=30, le=120)] = 60
    timeout: Annotated[float, Meta(gt=0)] = 1.5
    mode: Literal["fast", "slow"] = "fast"
    token: str | None = None
    names: Annotated[tuple[str, ...], Meta(max_length=3)] = ()
    sizes: list[int] = field(default_factory=list)
    labels: frozenset[str] = frozenset()
    ports: dict[str, Annotated[int, Meta(ge=1, le=65_535)]] = field(default_factory=dict)
    keys: Mapping[Annotated[str, Meta(pattern="^[a-z]+$")], tuple[str, ...]] = field(default_factory=dict)
    tls: Tls | None = None
    issuers: tuple[Tls, ...] = ()
    level: int | Literal["auto"] = "auto"
    computed: int = field(init=False, default=7)

    def __post_init__(self) -> None:
        if self.mode == "slow" and self.interval < 60:
            raise ValueError("slow needs an interval of 60 or more")


def problems(table: dict[str, Any], **keywords: Any) -> dict[str, ConfigProblem]:
    """Return the problems of a table by their keys."""
    with pytest.raises(ConfigError) as caught:
        read_table(Settings, table, key="app", **keywords)
    return {problem.key: problem for problem in caught.value.problems}


def test_a_right_table_becomes_the_dataclass() -> None:
    table = {
        "endpoint": "https://x",
        "timeout": 2,
        "names": ["a", "b"],
        "sizes": [1],
        "labels": ["x", "x"],
        "ports": {"api": 8443},
        "keys": {"a": ["b"]},
        "tls": {"ca": "/etc/ca.pem"},
        "issuers": [{"ca": "a", "key": "b"}],
        "level": 3,
    }
    assert read_table(Settings, table, key="app") == Settings(
        endpoint="https://x",
        timeout=2.0,
        names=("a", "b"),
        sizes=[1],
        labels=frozenset({"x"}),
        ports={"api": 8443},
        keys={"a": ("b",)},
        tls=Tls(Path("/etc/ca.pem")),
        issuers=(Tls(Path("a"), Path("b")),),
        level=3,
    )


def test_all_problems_come_at_once_with_dotted_keys_and_the_source() -> None:
    table = {
        "intervall": 5,
        "interval": 5,
        "timeout": 0,
        "mode": "fst",
        "token": 5,
        "names": ["a", 2, True],
        "labels": "x",
        "ports": {"api": 0, "ui": "x"},
        "keys": {"A": ["x"], "b": "x"},
        "tls": {"key": "", "kay": "x"},
        "issuers": [{"ca": "a"}, {"ca": 1}],
        "level": "high",
        "computed": 8,
    }
    found = problems(table, source="agent.toml")
    assert {key: problem.allowed for key, problem in found.items()} == {
        "app.intervall": "",
        "app.computed": "",
        "app.endpoint": "a string",
        "app.interval": "an integer from 30 to 120",
        "app.timeout": "a number above 0",
        "app.mode": "one of 'fast', 'slow'",
        "app.token": "a string",
        "app.names[1]": "a string",
        "app.names[2]": "a string",
        "app.labels": "a list, each item a string",
        "app.ports.api": "an integer from 1 to 65535",
        "app.ports.ui": "an integer from 1 to 65535",
        "app.keys.A": "a string that matches ^[a-z]+$",
        "app.keys.b": "a list, each item a string",
        "app.tls.key": "a path",
        "app.tls.kay": "",
        "app.tls.ca": "a path",
        "app.issuers[1].ca": "a path",
        "app.level": "an integer or 'auto'",
    }
    assert found["app.endpoint"].message == "missing"
    assert found["app.interval"].message == "got 5"
    assert found["app.intervall"].nearest == "interval"
    assert found["app.tls.kay"].nearest == "key"
    assert found["app.token"].message == "got an integer (hidden)"
    assert found["app.names[2]"].message == "got true"
    assert {problem.source for problem in found.values()} == {"agent.toml"}


@pytest.mark.parametrize("value", [True, "60", 60.0, 60.5, None, [60], {"a": 60}, float("nan")])
def test_nothing_is_coerced_into_an_integer(value: Any) -> None:
    assert "app.interval" in problems({"endpoint": "x", "interval": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1"])
def test_no_number_is_nan_or_infinite(value: Any) -> None:
    assert "app.timeout" in problems({"endpoint": "x", "timeout": value})


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----",
        "eyJhbGciOiJFUzI1NiJ9.canary.x",
        "https://me:canary@files.example/ca.pem",
    ],
)
def test_a_secret_where_a_path_is_due_is_refused_and_not_shown(secret: str) -> None:
    (problem,) = problems({"endpoint": "x", "tls": {"ca": "a", "key": secret}}).values()
    assert (problem.key, problem.allowed) == ("app.tls.key", "a path")
    assert "canary" not in problem.message
    assert "***" in problem.message


def test_a_table_where_a_scalar_is_due_and_the_reverse() -> None:
    found = problems({"endpoint": {"password": "hunter2"}, "tls": "x", "ports": [1], "issuers": {}})
    assert found["app.endpoint"].message == "got a table of 1"
    assert found["app.tls"].allowed == "a table"
    assert set(found) == {"app.endpoint", "app.tls", "app.ports", "app.issuers"}


def test_the_size_of_a_list_is_checked() -> None:
    found = problems({"endpoint": "x", "names": ["a", "b", "c", "d"]})
    assert found["app.names"].message == "got a list of 4"
    assert found["app.names"].allowed == "a list of up to 3 items, each item a string"


def test_what_post_init_raises_is_a_problem_of_the_table() -> None:
    found = problems({"endpoint": "x", "mode": "slow", "interval": 30})
    assert found["app"].message == "slow needs an interval of 60 or more"


def test_a_config_error_from_post_init_keeps_its_problems() -> None:
    @dataclass(frozen=True)
    class Pair:
        low: int

        def __post_init__(self) -> None:
            raise ConfigError((ConfigProblem("app.low", "too low"),))

    with pytest.raises(ConfigError, match=r"app\.low: too low"):
        read_table(Pair, {"low": 1}, key="app")


def test_reserved_keys_are_passed_over_and_suggested() -> None:
    read = read_table(Settings, {"endpoint": "x", "enabled": 1}, key="app", reserved={"enabled"})
    assert read.endpoint == "x"
    assert problems({"endpoint": "x", "enable": 1}, reserved={"enabled"})["app.enable"].nearest == "enabled"


def test_the_root_has_plain_keys() -> None:
    with pytest.raises(ConfigError, match=r"^endpoint: missing; allowed: a string$"):
        read_table(Settings, {}, key="")


def test_a_secret_never_shows_up() -> None:
    table = {
        "endpoint": ["hunter2"],
        "token": ["hunter2"],
        "mode": "https://me:hunter2@host",
        "password": "hunter2",
    }
    with pytest.raises(ConfigError) as caught:
        read_table(Settings, table, key="app")
    assert len(caught.value.problems) == 4
    assert "hunter2" not in str(caught.value)


def test_a_class_that_is_no_dataclass_or_names_an_unknown_type_is_the_authors_mistake() -> None:
    with pytest.raises(TypeError, match="no dataclass"):
        read_table(dict, {}, key="app")

    @dataclass
    class Lost:
        x: NoSuchType = 1  # type: ignore[name-defined] # noqa: F821 - the point of the test

    with pytest.raises(TypeError, match="import its type at run time"):
        describe(Lost)


def test_describe_lists_the_keys_with_their_documentation() -> None:
    listed = {info.key: info for info in describe(Settings)}
    assert list(listed)[:4] == ["endpoint", "interval", "timeout", "mode"]
    assert listed["interval"].description == "Seconds between beats."
    assert listed["mode"].description == "How it works: fast or slow."
    assert listed["endpoint"].description == "Where it goes."
    assert listed["tls.key"].description == "The key, which stays secret."
    assert listed["tls.key"].type_text == "a path"
    assert (listed["endpoint"].required, listed["interval"].required) == (True, False)
    assert (listed["interval"].default, listed["sizes"].default) == (60, [])
    assert "computed" not in listed
    assert "tls" not in listed


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "true or false"),
        (int, "an integer"),
        (Annotated[int, Meta(ge=0)], "an integer, 0 or more"),
        (Annotated[int, Meta(le=9)], "an integer, 9 or less"),
        (Annotated[int, Meta(ge=1, le=9, multiple_of=2)], "an integer from 1 to 9, a multiple of 2"),
        (Annotated[float, Meta(gt=0, le=60)], "a number above 0 and up to 60"),
        (Annotated[float, Meta(ge=0, lt=1)], "a number from 0 and below 1"),
        (Annotated[float, Meta(gt=0, lt=1)], "a number above 0 and below 1"),
        (Annotated[float, Meta(lt=1)], "a number below 1"),
        (Annotated[str, Meta(min_length=1)], "a string that is not empty"),
        (Annotated[str, Meta(min_length=2)], "a string of 2 or more characters"),
        (Annotated[str, Meta(min_length=1, max_length=64)], "a string of 1 to 64 characters"),
        (Annotated[str, Meta(min_length=2, max_length=2)], "a string of 2 characters"),
        (Annotated[str, Meta(pattern="^a")], "a string that matches ^a"),
        (Annotated[Annotated[str, Meta(pattern="^a")], Meta(description="a host name")], "a host name"),
        (Literal["only"], "'only'"),
        (Colour, "one of 'red', 'blue'"),
        (str | None, "a string"),
        (str | tuple[str, ...], "a string or a list, each item a string"),
        (dict[str, int], "a table, each value an integer"),
        (list, "a list"),
        (Any, "anything"),
        (Tls, "a table"),
        (bytes, "a bytes"),
    ],
)
def test_types_are_said_in_words(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_nearest_is_silent_where_nothing_is_near() -> None:
    assert nearest("intervall", ["interval", "timeout"]) == "interval"
    assert nearest("INTERVAL", ["interval"]) == "interval"
    assert nearest("xyz", ["interval"]) is None


toml = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.one_of(st.sampled_from(list(Settings.__dataclass_fields__)), st.text(max_size=5))


@given(st.dictionaries(keys, toml, max_size=8))
def test_any_table_is_read_or_refused_with_problems(table: dict[str, Any]) -> None:
    found: tuple[ConfigProblem, ...] = ()
    try:
        read = read_table(Settings, table, key="app")
    except ConfigError as error:
        found = error.problems
    else:
        assert type(read.interval) is int
    assert found or isinstance(table["endpoint"], str)
    assert all(problem.key.startswith("app") for problem in found)
