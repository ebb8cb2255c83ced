from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from openclaw_exporter.cli.app import app
from openclaw_exporter.cli.pki_files import PkiDirectory
from openclaw_exporter.config import all_keys, load
from openclaw_exporter.receiver.settings import ReceiverSettings

if TYPE_CHECKING:
    from support.pki import Pki

BROKEN = """
[openclaw]
enabled = false
intervall = 60
[plugins.system]
interval = "often"
groups = ["cpu", "wheels"]
per_cpus = true
[plugins.sytem]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def check(file: Path, *flags: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    result = CliRunner(env=environ or {}).invoke(app, ["check-config", str(file), *flags])
    return result.exit_code, result.stdout, result.stderr


def test_a_right_configuration_ends_with_0(tmp_path: Path) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    told = f"{made.receiver_configuration}: no errors; checked for receiver, because it has [receiver]\n"
    assert check(made.receiver_configuration) == (0, told, "")
    agent = made.issue_node().configuration
    assert agent is not None
    told = f"{agent}: no errors; checked for agent, because it has [openclaw]\n"
    assert check(agent)[:2] == (0, told)


def test_credential_files_that_cannot_be_used_are_warnings(tmp_path: Path) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    node = made.issue_node()
    assert node.configuration is not None
    node.key.write_bytes((tmp_path / "token.key").read_bytes())
    (tmp_path / "token.key").unlink()
    code, out, err = check(node.configuration)
    assert (code, out.startswith(f"{node.configuration}: no errors;")) == (0, True)
    place = f"warning: {node.configuration}: openclaw"
    assert f"{place}.tls.key: {node.key} is not the key of {node.certificate}; give" in err
    assert (
        f"{place}.token.key: {tmp_path / 'token.key'} cannot be read: No such file or directory; put" in err
    )

    (tmp_path / "jwks.json").write_text("[]")
    (tmp_path / "receiver.key").unlink()
    code, _, err = check(made.receiver_configuration)
    warnings = err.splitlines()
    assert (code, len(warnings)) == (0, 2)
    place = f"warning: {made.receiver_configuration}: receiver.tls.key"
    assert warnings[0].startswith(f"{place}: {tmp_path / 'receiver.key'} cannot be read: No such file")
    place = f"warning: {made.receiver_configuration}: receiver.tokens.jwks"
    assert warnings[1].startswith(f"{place}: {tmp_path / 'jwks.json'}: not a strict JSON object")

    (tmp_path / "denied").write_text("everybody\n")
    denied = {"OPENCLAW_RECEIVER_TLS_DENY_LIST": str(tmp_path / "denied")}
    code, _, err = check(made.receiver_configuration, environ=denied)
    assert (code, "denied: line 1 is neither a node_id nor" in err) == (0, True)


def test_every_credential_file_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    node = made.issue_node()
    assert node.configuration is not None
    files = {
        "tls.ca": made.ca,
        "tls.certificate": node.certificate,
        "tls.key": node.key,
        "token.key": tmp_path / "token.key",
    }
    for file in files.values():
        file.unlink()
    code, _, err = check(node.configuration, environ={"OPENCLAW_TLS_CA": str(made.ca)})
    assert code == 0
    sources = {"tls.ca": "OPENCLAW_TLS_CA"}
    assert [line.partition(" cannot be read")[0] for line in err.splitlines()] == [
        f"warning: {sources.get(name, node.configuration)}: openclaw.{name}: {file}"
        for name, file in files.items()
    ]


def test_a_certificate_that_has_expired_is_a_warning(tmp_path: Path, pki: Pki) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    node = made.issue_node()
    assert node.configuration is not None
    old = pki.node(str(uuid4()), lifetime=dt.timedelta(seconds=-60))
    node.certificate.write_bytes(old.certificate.read_bytes())
    node.key.write_bytes(old.key.read_bytes())
    code, _, err = check(node.configuration)
    (warning,) = err.splitlines()
    place = f"{node.configuration}: openclaw.tls.certificate: {node.certificate} has expired"
    assert (code, warning.startswith(f"warning: {place} (")) == (0, True)
    assert warning.endswith("; renew it")


def test_the_file_may_be_named_as_the_other_commands_name_it(tmp_path: Path) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    result = CliRunner().invoke(app, ["check-config", "--config", str(made.receiver_configuration)])
    told = f"{made.receiver_configuration}: no errors; "
    assert (result.exit_code, result.stdout.startswith(told)) == (0, True)
    environ = {"OPENCLAW_CONFIG": str(made.receiver_configuration)}
    result = CliRunner(env=environ).invoke(app, ["check-config"])
    assert (result.exit_code, result.stdout.startswith(told)) == (0, True)


def test_all_errors_are_told_at_once_those_of_plugins_too(file: Path) -> None:
    pytest.importorskip("openclaw_exporter_system")
    file.write_text(BROKEN)
    code, out, err = check(file)
    lines = [line for line in err.splitlines() if not line.startswith("warning")]
    assert (code, out.startswith(f"{file}: 5 errors; checked for agent, ")) == (2, True)
    assert lines[0] == f"{file}: openclaw.intervall: unknown key; did you mean 'interval'?"
    unknown = next(line for line in lines if "plugins.sytem" in line)
    assert "no such plugin is installed" in unknown
    assert unknown.endswith("did you mean 'system'?")
    assert any("plugins.system.interval: got 'often'" in line for line in lines)
    assert any("plugins.system.groups[1]: got 'wheels'" in line for line in lines)
    assert any("plugins.system.per_cpus: unknown key; did you mean 'per_cpu'?" in line for line in lines)


def test_scripts_get_every_error_as_json(file: Path) -> None:
    file.write_text("[openclaw]\nenabled = false\nintervall = 60\ntimeout = 99\n")
    code, out, _ = check(file, "--json", environ={"OPENCLAW_TIMEOUTT": "3"})
    report: dict[str, Any] = json.loads(out)
    assert (code, report["ok"], report["file"]) == (2, False, str(file))
    assert report["errors"] == [
        {
            "key": "openclaw.intervall",
            "message": "unknown key",
            "allowed": "",
            "nearest": "interval",
            "source": str(file),
        },
        {
            "key": "openclaw.timeout",
            "message": "got 99",
            "allowed": "a number above 0 and up to 60",
            "nearest": None,
            "source": str(file),
        },
    ]
    assert [warning for warning in report["warnings"] if "OPENCLAW_TIMEOUTT" in warning]


def test_scripts_get_json_for_a_file_that_is_not_toml_too(file: Path) -> None:
    file.write_text("[openclaw")
    code, out, _ = check(file, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (2, False)
    assert report["errors"][0]["message"].startswith(f"{file}:1:10: not TOML")


def test_the_environment_is_checked_as_well(file: Path) -> None:
    file.write_text("[openclaw]\nenabled = false\n")
    code, out, err = check(file, environ={"OPENCLAW_INTERVAL": "soon", "OPENCLAW_INTERVALL": "60"})
    assert (code, out) == (2, f"{file}: 1 error; checked for agent, because it has [openclaw]\n")
    assert "OPENCLAW_INTERVAL: openclaw.interval: got 'soon'; allowed: an integer from 1 to 86400" in err
    assert "warning: the environment variable OPENCLAW_INTERVALL sets no key" in err


def test_an_agents_variables_do_not_make_a_receivers_file_an_agents(tmp_path: Path) -> None:
    made = PkiDirectory.create(tmp_path, trust_domain="test.openclaw", hosts=("localhost",))
    file = made.receiver_configuration
    stray = {
        "OPENCLAW_TLS_CA": "/nowhere/ca.pem",
        "OPENCLAW_INTERVAL": "soon",
        "OPENCLAW_NODE_WORKERS": "-1",
        "OPENCLAW_PLUGINS_SYSTEM_INTERVAL": "often",
    }
    code, out, err = check(file, environ=stray)
    assert (code, err) == (0, "")
    assert out == f"{file}: no errors; checked for receiver, because it has [receiver]\n"
    # Its own variables count.
    code, out, err = check(file, environ={**stray, "OPENCLAW_RECEIVER_PORT": "high"})
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("OPENCLAW_RECEIVER_PORT: receiver.port: got 'high'")


def test_a_receivers_variables_do_not_make_an_agents_file_a_receivers(file: Path) -> None:
    file.write_text("[openclaw]\nenabled = false\n[node]\n")
    code, out, err = check(file, environ={"OPENCLAW_RECEIVER_PORT": "high"})
    assert (code, err) == (0, "")
    assert out == f"{file}: no errors; checked for agent, because it has [openclaw] and [node]\n"


def test_a_file_of_both_is_checked_for_both_unless_the_role_is_given(file: Path) -> None:
    file.write_text("[receiver]\nport = 'x'\n[openclaw]\nenabled = false\ninterval = 'y'\n")
    code, out, err = check(file)
    assert code == 2
    assert out.endswith("; checked for agent and receiver, because it has [openclaw] and [receiver]\n")
    assert "receiver.port: got 'x'" in err
    assert "openclaw.interval: got 'y'" in err
    for role, seen, passed_over in (("agent", "openclaw", "receiver"), ("receiver", "receiver", "openclaw")):
        code, out, err = check(file, "--role", role)
        assert (code, f"{seen}." in err, f"{passed_over}." in err) == (2, True, False)
        assert out.endswith(f"; checked for {role}, as --role says\n")


def test_a_file_that_says_nothing_of_its_role_is_not_guessed(file: Path) -> None:
    file.write_text("[log]\nlevel = 'loud'\n[reciever]\n")
    environ = {"OPENCLAW_ENDPOINT": "https://receiver:8443"}
    code, out, err = check(file, environ=environ)
    told = err.splitlines()
    assert (code, out, len(told)) == (2, f"{file}: 3 errors\n", 3)
    assert "did you mean 'receiver'?" in told[0]
    assert "log.level: got 'loud'" in told[1]
    assert "give --role agent or --role receiver" in told[2]
    file.write_text("[log]\nlevel = 'debug'\n")
    report = json.loads(check(file, "--json", environ=environ)[1])
    assert (report["ok"], report["roles"], len(report["errors"])) == (False, [], 1)
    off = {"OPENCLAW_ENABLED": "false"}
    report = json.loads(check(file, "--json", "--role", "agent", environ=off)[1])
    assert (report["ok"], report["roles"], report["reason"]) == (True, ["agent"], "as --role says")


def test_the_environment_alone_is_checked_for_a_role() -> None:
    runner = CliRunner(env={"OPENCLAW_CONFIG": None, "OPENCLAW_ENABLED": "false"})
    result = runner.invoke(app, ["check-config", "--role", "agent"])
    told = "the environment: no errors; checked for agent, as --role says\n"
    assert (result.exit_code, result.stdout) == (0, told)
    result = runner.invoke(app, ["check-config", "--role", "receiver"])
    assert (result.exit_code, "receiver.tls.ca: is not set" in result.stderr) == (2, True)


def test_a_file_has_to_be_named() -> None:
    result = CliRunner(env={"OPENCLAW_CONFIG": None}).invoke(app, ["check-config"])
    assert result.exit_code == 2
    assert "openclaw-exporter check-config FILE" in result.output


def test_every_key_can_be_listed() -> None:
    listed = json.loads(CliRunner().invoke(app, ["check-config", "--list-keys", "--json"]).output)
    assert [key["key"] for key in listed] == [key.name for key in all_keys()]
    interval = next(key for key in listed if key["key"] == "openclaw.interval")
    assert interval["variable"] == "OPENCLAW_INTERVAL"
    assert interval["default"] == "60"
    assert "plugins.NAME.series_budget" in CliRunner().invoke(app, ["check-config", "--list-keys"]).output


@pytest.mark.parametrize("name", ["agent", "receiver"])
def test_the_examples_are_right(name: str) -> None:
    pytest.importorskip("openclaw_exporter_chimera")
    file = Path(__file__).parents[2] / "examples" / "config" / f"{name}.toml"
    code, out, err = check(file)
    assert (code, out.startswith(f"{file}: no errors; checked for {name}, because it has [")) == (0, True)
    assert all(
        re.match(r"warning: \S+: [a-z._\[\]0-9]+: /etc/openclaw/.* cannot be read", line)
        for line in err.splitlines()
    )


def test_the_examples_variants_are_right(file: Path) -> None:
    text = (Path(__file__).parents[2] / "examples" / "config" / "receiver.toml").read_text()
    # What is commented out is indented by three.
    file.write_text(re.sub(r"^#   (?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    assert check(file)[0] == 0
    settings = load(file, {}).get(ReceiverSettings)
    assert (len(settings.tokens.issuers), len(settings.proxy.names)) == (2, 1)


def test_without_a_configuration_it_is_said_how_to_name_one() -> None:
    result = CliRunner(env={"OPENCLAW_CONFIG": ""}).invoke(app, ["agent"])
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "\nno configuration was named: give --config FILE, or set OPENCLAW_CONFIG\n"
    )
