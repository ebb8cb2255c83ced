from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.agent.settings import CollectionSettings, NodeSettings, PressureSettings
from openclaw_exporter.client.settings import ClientSettings
from openclaw_exporter.config import all_keys, examine, load, table_keys
from openclaw_exporter.config.environment import read_text
from openclaw_exporter.config.keys import keys_of, toml_text
from openclaw_exporter.errors import ConfigError, UserError
from openclaw_exporter.plugin.words import is_list, is_settings, is_table, members, unwrap
from openclaw_exporter.receiver.settings import ReceiverSettings
from openclaw_exporter.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from pathlib import Path

    from openclaw_exporter.config import Key

OFF = {"OPENCLAW_ENABLED": "false"}
KEYS = list(all_keys())

AGENT = """
[openclaw]
endpoint = "https://receiver:8443"
interval = 45
[openclaw.tls]
ca = "/etc/openclaw/ca.pem"
certificate = "/etc/openclaw/node.pem"
[openclaw.token]
key = "/etc/openclaw/token.key"
kid = "k1"
issuer = "chimera"
audience = "openclaw-receiver"
[plugins.chimera]
workers = 24
"""
RECEIVER = """
[receiver]
port = 9000
[receiver.tls]
ca = "ca.pem"
certificate = "receiver.pem"
key = "receiver.key"
trust_domain = "test.openclaw"
[receiver.tokens]
jwks = "jwks.json"
algorithms = ["ES256"]
issuers = [{issuer = "chimera", audience = "openclaw-receiver"}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "openclaw.toml"


def problems_of(file: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> list[str]:
    file.write_text(text)
    found = examine(
        file, environ or {}, {key.replace("__", "."): value for key, value in flags.items()}
    ).problems
    return sorted(str(problem).replace(str(file), "FILE") for problem in found)


def test_a_file_gives_each_room_its_settings(file: Path) -> None:
    file.write_text(AGENT)
    config = load(file, {})
    client = config.get(ClientSettings)
    assert (client.endpoint, client.interval, client.token.kid) == ("https://receiver:8443", 45, "k1")
    assert config.get(CollectionSettings) == CollectionSettings()
    assert config.get(TelemetrySettings) == TelemetrySettings()
    assert config.plugins == {"chimera": {"workers": 24}}
    assert config.source == str(file)
    assert config.log.level == "info"


def test_only_the_tables_of_the_programs_that_the_file_names_are_read(file: Path) -> None:
    file.write_text(RECEIVER)
    config = load(file, {})
    assert config.get(ReceiverSettings).port == 9000
    assert config.find(ClientSettings) is None
    with pytest.raises(KeyError):
        config.get(ClientSettings)
    file.write_text(AGENT + RECEIVER)
    both = load(file, {})
    assert both.get(ClientSettings).interval == 45
    assert both.get(ReceiverSettings).port == 9000


def test_the_agent_passes_over_a_receivers_mistakes(file: Path) -> None:
    file.write_text(AGENT + "[receiver]\nport = 'x'\n")
    assert load(file, {}, services=["agent"]).get(ClientSettings).interval == 45
    with pytest.raises(ConfigError):
        load(file, {})


def test_the_environment_wins_over_the_file_and_flags_win_over_both(file: Path) -> None:
    file.write_text(RECEIVER)
    environ = {"OPENCLAW_RECEIVER_PORT": "9001", "OPENCLAW_RECEIVER_TOKENS_ALGORITHMS": "EdDSA, ES256"}
    settings = load(file, environ).get(ReceiverSettings)
    assert settings.port == 9001
    assert settings.tokens.algorithms == ("EdDSA", "ES256")
    assert load(file, environ, {"receiver.port": 9002}).get(ReceiverSettings).port == 9002


def test_the_environment_alone_is_enough() -> None:
    config = load(None, {**OFF, "OPENCLAW_INTERVAL": "90", "OPENCLAW_NODE_TAGS": "gpu:true,swarm:blue"})
    assert config.get(ClientSettings).interval == 90
    assert config.get(NodeSettings).tags == ("gpu:true", "swarm:blue")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(None, {**OFF, "OPENCLAW_INTERVAL": ""}).get(ClientSettings).interval == 60


def test_tables_in_variables_are_json_or_inline_toml() -> None:
    for text in ('{"worker": {"soft": 1, "hard": 9}}', "{worker = {soft = 1, hard = 9}}"):
        settings = load(None, {**OFF, "OPENCLAW_PRESSURE_TOPICS": text}).get(PressureSettings)
        assert settings.topics["worker"].hard == 9


MISSING_TOKEN = [
    (
        "FILE: openclaw.token.audience: is needed with the token profile 'minted'; allowed: the audience "
        "that the receiver expects"
    ),
    (
        "FILE: openclaw.token.issuer: is needed with the token profile 'minted'; allowed: the issuer "
        "that the receiver knows"
    ),
    "FILE: openclaw.token.key: is needed with the token profile 'minted'; allowed: the path of a PEM file",
    (
        "FILE: openclaw.token.kid: is needed with the token profile 'minted'; allowed: the key's id in the "
        "receiver's key set"
    ),
]

WRONG: dict[str, tuple[str, list[str]]] = {
    "every kind of mistake in one file": (
        """
        [opnclaw]
        endpoint = "x"
        [openclaw]
        enabled = "yes"
        intervall = 60
        rollout_percent = 101
        [openclaw.tls]
        certificat = "x"
        [collection]
        interval = "10"
        deadline = nan
        [pressure]
        when_unknown = "drop"
        [log]
        level = "loud"
        """,
        [
            "FILE: collection.deadline: got nan; allowed: a number from 0.1 to 86400",
            "FILE: collection.interval: got '10' (a string); allowed: a number from 0.1 to 86400",
            "FILE: log.level: got 'loud'; allowed: one of 'debug', 'info', 'warning', 'error'",
            "FILE: openclaw.enabled: got 'yes' (a string); allowed: true or false",
            "FILE: openclaw.intervall: unknown key; did you mean 'interval'?",
            "FILE: openclaw.rollout_percent: got 101; allowed: a number from 0 to 100",
            "FILE: openclaw.tls.certificat: unknown key; did you mean 'certificate'?",
            "FILE: opnclaw: unknown table; did you mean 'openclaw'?",
            "FILE: pressure.when_unknown: got 'drop'; allowed: one of 'keep', 'withhold'",
        ],
    ),
    "nothing at all": (
        "",
        [
            "FILE: openclaw.endpoint: is needed while openclaw.enabled is true; allowed: https://host:port",
            "FILE: openclaw.tls.ca: is needed for mutual TLS; allowed: the path of a PEM file",
            "FILE: openclaw.tls.certificate: is needed for mutual TLS; allowed: the path of a PEM file",
            *MISSING_TOKEN,
        ],
    ),
    "what one key says, and what keys say together": (
        """
        [openclaw]
        endpoint = "http://receiver"
        interval = 20
        timeout = 0
        [openclaw.tls]
        certificat = "node.pem"
        """,
        [
            "FILE: openclaw.endpoint: is no https URL; allowed: https://host:port",
            "FILE: openclaw.interval: 20 is out of bounds; allowed: 30 to 120 seconds",
            "FILE: openclaw.timeout: got 0; allowed: a number above 0 and up to 60",
            "FILE: openclaw.tls.ca: is needed for mutual TLS; allowed: the path of a PEM file",
            "FILE: openclaw.tls.certificat: unknown key; did you mean 'certificate'?",
            *MISSING_TOKEN,
        ],
    ),
    "values in the place of tables": (
        "openclaw = 5\nplugins = 3\nreceiver = 1\n",
        [
            "FILE: openclaw: got 5; allowed: a table",
            "FILE: plugins: not a table; allowed: [plugins.NAME] tables",
            "FILE: receiver: got 1; allowed: a table",
        ],
    ),
    "a value in the place of a plugin's table": (
        "plugins.gpu = true\nopenclaw.enabled = false\n",
        ["FILE: plugins.gpu: not a table; allowed: a table [plugins.gpu]"],
    ),
    "an unsafe receiver": (
        """
        [receiver]
        min_interval = 30
        [receiver.tokens]
        algorithms = ["HS256"]
        issuers = [{isuer = "x", audience = "y"}]
        """,
        [
            (
                "FILE: receiver.tls.ca: is not set; allowed: a PEM file with the authorities that sign "
                "client certificates: without one anybody could publish"
            ),
            "FILE: receiver.tls.certificate: is not set; allowed: a PEM file with the receiver's certificate",
            "FILE: receiver.tls.key: is not set; allowed: a PEM file with the certificate's private key",
            (
                "FILE: receiver.tokens.algorithms[0]: got 'HS256'; "
                "allowed: one of 'ES256', 'EdDSA', 'RS256', 'PS256'"
            ),
            "FILE: receiver.tokens.issuers[0].issuer: missing; allowed: a string that is not empty",
            "FILE: receiver.tokens.issuers[0].isuer: unknown key; did you mean 'issuer'?",
        ],
    ),
    "a collector that is no URL": (
        """
        openclaw.enabled = false
        [telemetry.otlp]
        enabled = true
        endpoint = "collector:4318"
        """,
        ["FILE: telemetry.otlp.endpoint: is no URL; allowed: one such as http://127.0.0.1:4318"],
    ),
    "a wrong item of a list that must not be empty": (
        """
        [receiver.tls]
        ca = "ca.pem"
        certificate = "receiver.pem"
        key = "receiver.key"
        trust_domain = "test.openclaw"
        [receiver.tokens]
        jwks = "jwks.json"
        algorithms = ["HS256"]
        issuers = [{issuer = "x", audience = "y"}]
        """,
        [
            (
                "FILE: receiver.tokens.algorithms[0]: got 'HS256'; "
                "allowed: one of 'ES256', 'EdDSA', 'RS256', 'PS256'"
            )
        ],
    ),
    "a key set at a port that there is not": (
        """
        [receiver.tls]
        ca = "ca.pem"
        certificate = "receiver.pem"
        key = "receiver.key"
        trust_domain = "test.openclaw"
        [receiver.tokens]
        jwks = "https://keys:99999/jwks.json"
        algorithms = ["ES256"]
        issuers = [{issuer = "x", audience = "y"}]
        """,
        [("FILE: receiver.tokens.jwks: is no URL; allowed: a JWKS file, or an https URL (http on loopback)")],
    ),
    "keys that contradict each other": (
        """
        [openclaw]
        enabled = false
        [collection]
        interval = 1
        [pressure.topics.worker]
        soft = 9
        hard = 3
        """,
        [
            "FILE: collection: the deadline, 5 s, is longer than the interval",
            "FILE: pressure.topics.worker: hard, 3, must be above soft, 9",
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_all_problems_of_a_file_are_reported_at_once(file: Path, name: str) -> None:
    text, expected = WRONG[name]
    found = problems_of(file, text)
    missing = [line for line in expected if line not in found]
    assert missing == []
    # The receiver's list of what it cannot do without may grow; every other list is complete.
    assert name == "an unsafe receiver" or found == sorted(expected)


def test_problems_of_variables_and_flags_name_them(file: Path) -> None:
    environ = {
        "OPENCLAW_RECEIVER_PORT": "99999",
        "OPENCLAW_RECEIVER_RETENTION": "a day",
        "OPENCLAW_RECEIVER_ADMIN_ENABLED": "maybe",
        "OPENCLAW_RECEIVER_TOKENS_ISSUERS": "[1",
    }
    found = problems_of(file, RECEIVER, environ, receiver__host=7)
    assert found == [
        "OPENCLAW_RECEIVER_ADMIN_ENABLED: receiver.admin.enabled: got 'maybe'; allowed: true or false",
        "OPENCLAW_RECEIVER_PORT: receiver.port: got 99999; allowed: an integer from 0 to 65535",
        "OPENCLAW_RECEIVER_RETENTION: receiver.retention: got 'a day'; allowed: a number above 0",
        (
            "OPENCLAW_RECEIVER_TOKENS_ISSUERS: receiver.tokens.issuers: got '[1'; allowed: a list, "
            "each item a table"
        ),
        "command line: receiver.host: got 7; allowed: a string",
    ]


def test_an_unknown_variable_is_a_warning_with_the_nearest_one() -> None:
    config = load(None, {**OFF, "OPENCLAW_INTERVALL": "3", "OPENCLAW_FLEET_COLOUR": "blue", "HOME": "/"})
    assert config.warnings == (
        "the environment variable OPENCLAW_FLEET_COLOUR sets no key of the configuration and is ignored",
        (
            "the environment variable OPENCLAW_INTERVALL sets no key of the configuration and is ignored; "
            "did you mean OPENCLAW_INTERVAL?"
        ),
    )


def test_variables_of_another_program_are_passed_over(file: Path) -> None:
    file.write_text(RECEIVER)
    environ = {"OPENCLAW_ENDPOINT": "nonsense", "OPENCLAW_PLUGINS_SYSTEM_INTERVAL": "x"}
    config = load(file, environ, services=["receiver"])
    assert config.warnings == ()
    assert load(None, {**OFF, "OPENCLAW_RECEIVER_PORT": "x"}, services=["agent"]).warnings == ()


def test_plugins_keys_have_variables_of_their_plugins_types() -> None:
    environ = {
        **OFF,
        "OPENCLAW_PLUGINS_CHIMERA_WORKERS": "8",
        "OPENCLAW_PLUGINS_CHIMERA_INTERVAL": "2.5",
        "OPENCLAW_PLUGINS_CHIMERA_GROUPS": "a,b",
        "OPENCLAW_PLUGINS_CHIMERA_QUEUES": '{"worker": ["task_queue"]}',
        "OPENCLAW_PLUGINS_CHIMERA_WORKRES": "3",
    }
    pytest.importorskip("openclaw_exporter_chimera")
    config = load(None, environ)
    assert config.plugins == {
        "chimera": {"workers": 8, "interval": 2.5, "groups": ["a", "b"], "queues": {"worker": ["task_queue"]}}
    }
    assert [warning.rpartition(" ")[2] for warning in config.warnings] == [
        "OPENCLAW_PLUGINS_CHIMERA_WORKERS?"
    ]


def test_a_wrong_value_that_may_be_a_secret_is_not_shown(file: Path) -> None:
    text = """
    [openclaw]
    endpoint = "https://me:hunter2@receiver"
    proxy = 5
    [openclaw.token]
    key = ["hunter2"]
    """
    assert not any("hunter2" in line for line in problems_of(file, text))


def test_toml_errors_name_file_line_and_column(file: Path) -> None:
    cases = {
        b"[openclaw]\ninterval 60\n": f"{file}:2:10: not TOML: Expected '=' after a key in a key/value pair",
        b"[openclaw": f"{file}:1:10: not TOML: Expected ']' at the end of a table declaration",
        b"[openclaw]\na = \xff\n": f"{file}:2: not UTF-8, as TOML has to be",
    }
    for content, expected in cases.items():
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            load(file, {})
        assert str(caught.value).startswith(expected)


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    with pytest.raises(UserError, match=r"openclaw.toml: no such file; name the configuration"):
        load(file, {})
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load(file.parent, {})


def test_loading_changes_nothing_that_it_was_given(file: Path) -> None:
    file.write_text(RECEIVER)
    overrides: dict[str, object] = {"receiver.port": 1}
    load(file, {"OPENCLAW_RECEIVER_HOST": "::1"}, overrides)
    assert overrides == {"receiver.port": 1}
    assert load(file, {}).get(ReceiverSettings).host == "127.0.0.1"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_key_is_described(key: Key) -> None:
    assert key.description.endswith(".")
    assert key.allowed


def test_each_key_has_a_variable_of_its_own() -> None:
    variables = [key.variable for key in KEYS]
    assert len(variables) == len(set(variables))
    assert {"OPENCLAW_ENABLED", "OPENCLAW_ENDPOINT", "OPENCLAW_INTERVAL"} < set(variables)


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a key's type, as TOML has them; bounds do not matter here."""
    options = [_of_one(unwrap(member)[0]) for member in members(annotation) if member is not type(None)]
    return st.one_of(options)


def _of_one(base: Any) -> st.SearchStrategy[Any]:
    if base in SCALARS:
        return SCALARS[base]
    if get_origin(base) is Literal:
        return st.sampled_from(get_args(base))
    if is_list(base):
        return st.lists(values_of(get_args(base)[0]), max_size=3)
    if is_settings(base):
        fields = {key.path[0]: values_of(key.type) for key in keys_of(base, ()) if key.required}
        return st.fixed_dictionaries(fields)
    if is_table(base):
        return st.dictionaries(TEXT, values_of(get_args(base)[1]), max_size=3)
    return TEXT


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
TYPED = st.sampled_from(list(table_keys())).flatmap(lambda key: st.tuples(st.just(key), values_of(key.type)))


def as_variable(value: object, *, toml: bool) -> str:
    """The text that a person would put into the variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return toml_text(value) if toml else json.dumps(value)
    return str(value)


@given(TYPED, st.booleans())
def test_a_value_survives_the_environment(typed: tuple[Key, Any], toml: bool) -> None:  # noqa: FBT001 - drawn
    key, value = typed
    assert read_text(as_variable(value, toml=toml), key.type) == value


@given(st.lists(st.text("abcxyz:_-", min_size=1), min_size=1))
def test_a_list_may_be_separated_by_commas(items: list[str]) -> None:
    assert read_text(", ".join(items), tuple[str, ...]) == items


@given(
    st.recursive(
        st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
    )
)
def test_what_is_written_as_toml_is_read_back(value: object) -> None:
    assert read_text(toml_text(value), object) == value


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("1.5", int),
        ("one", int),
        ("٣", int),
        ("x", float),
        ("yes", bool),
        ("[1", list),
        ("{a=1}x", dict[str, int]),
    ],
)
def test_text_of_another_type_is_refused(text: str, annotation: Any) -> None:
    if annotation is list:
        annotation = tuple[str, ...]
    with pytest.raises(ValueError, match=r"fits none"):
        read_text(text, annotation)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10", 10),
        ("true", True),
        ("plain text", "plain text"),
        ("'quoted'", "quoted"),
        ("1\nb = 2", "1\nb = 2"),
    ],
)
def test_text_of_an_undeclared_type_is_toml_where_it_can_be(text: str, expected: object) -> None:
    assert read_text(text, object) == expected
