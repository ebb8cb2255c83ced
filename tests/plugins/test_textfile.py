"""The textfile plugin on real directories that other processes write into."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.telemetry.catalogue import Instrument, prometheus_name
from openclaw_exporter_textfile import FileError, Files, Options

if TYPE_CHECKING:
    from pathlib import Path

TASKS = '{"queue": "tasks", "depth": 5}\n'


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The directory that scripts write into."""
    spool = tmp_path / "spool"
    spool.mkdir()
    return spool


def files(spool: Path, **table: Any) -> Files:
    options = read_table(Options, {"directory": str(spool), **table}, key="plugins.textfile")
    assert options.directory is not None
    return Files(options.directory, options)


def collected(spool: Path, **table: Any) -> tuple[list[Any], list[str]]:
    """Collect through the host's edge: what is known, and the errors of single files."""
    items = list(files(spool, **table).collect())
    errors = [item for item in items if isinstance(item, Exception)]
    assert all(isinstance(error, FileError) for error in errors)
    checked = Guard().check(item for item in items if not isinstance(item, Exception))
    assert checked.rejected == ()
    return list(checked.observations), [str(error) for error in errors]


def test_a_shell_script_drops_every_observation(spool: Path) -> None:
    script = """
set -eu
cat >"$1/.chimera.tmp" <<END
{"capacity": "workers", "amount": 8}
{"queue": "tasks", "depth": $((2 + 3)), "oldest_age": 12.5}
{"queue": "review", "depth": 0}
{"uptime": $((60 * 60))}

{"tag": "region", "value": "eu"}
{"measurement": "backup.size", "value": 4096, "unit": "By", "attributes": {"backup.name": "db"}}
{"measurement": "backup.runs", "value": 3, "unit": "{run}", "kind": "counter"}
END
mv "$1/.chimera.tmp" "$1/chimera.jsonl"
"""
    subprocess.run(("sh", "-c", script, "sh", str(spool)), check=True)
    assert collected(spool) == (
        [
            Capacity("workers", 8),
            QueueDepth("tasks", 5, 12.5),
            QueueDepth("review", 0),
            Uptime(3_600),
            Tag("region", "eu"),
            Measurement("backup.size", 4_096, "By", "gauge", {"backup.name": "db"}),
            Measurement("backup.runs", 3, "{run}", "counter"),
        ],
        [],
    )


PROMETHEUS = r"""
# HELP backup_last_run_timestamp_seconds When the last backup ended.
# TYPE backup_last_run_timestamp_seconds gauge
backup_last_run_timestamp_seconds{database="a\"b"} 1.7e+09
# TYPE backup_runs_total counter
backup_runs_total{result="ok"} 12
backup_runs_total{result="failed"} 1
# TYPE backup_errors counter
backup_errors 2
backup_size_bytes 4096
backup_untyped_total 9
# TYPE backup_done_ratio gauge
backup_done_ratio 0.5
# TYPE smartmon_up gauge
smartmon_up 1
"""


def test_prometheus_text_becomes_measurements_with_units(spool: Path) -> None:
    (spool / "backup.prom").write_text(PROMETHEUS)
    found, errors = collected(spool)
    assert errors == []
    assert found == [
        Measurement("backup.last_run_timestamp", 1.7e9, "s", "gauge", {"database": 'a"b'}),
        Measurement("backup.runs", 12, "{event}", "counter", {"result": "ok"}),
        Measurement("backup.runs", 1, "{event}", "counter", {"result": "failed"}),
        Measurement("backup.errors", 2, "{event}", "counter"),
        Measurement("backup.size", 4_096, "By", "gauge"),
        Measurement("backup.untyped", 9, "{event}", "counter"),
        Measurement("backup.done_ratio", 0.5, "1", "gauge"),
        Measurement("smartmon.up", 1, "", "gauge"),
    ]


def test_prometheus_shows_the_names_that_were_written(spool: Path) -> None:
    (spool / "backup.prom").write_text(PROMETHEUS)
    written = {
        line.split("{")[0].split()[0] for line in PROMETHEUS.splitlines() if line and line[0] not in "#{"
    }
    shown = {prometheus_name(Instrument(item.name, item.kind, item.unit, "")) for item in collected(spool)[0]}
    assert shown == written - {"backup_errors"} | {"backup_errors_total"}  # a counter's name ends so


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("app_x 1 1700000000000\n", "app_x has a timestamp; the file's own time counts"),
        ('# TYPE app_h histogram\napp_h_bucket{le="1"} 1\n', "app_h_bucket is a histogram"),
        ("app_x 1\nsecret words here\n", "line 2 is no Prometheus text"),
        ('app_x{a="1" 1\n', "line 1 is no Prometheus text"),
        ("single 1\n", "single has to begin with a word of its own"),
    ],
)
def test_prometheus_text_that_cannot_be_used_costs_its_file(spool: Path, text: str, why: str) -> None:
    (spool / "bad.prom").write_text(text)
    (spool / "good.jsonl").write_text(TASKS)
    found, (error,) = collected(spool)
    assert found == [QueueDepth("tasks", 5)]
    assert error.startswith("'bad.prom'")
    assert why in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"queue": "a", "depth": "secret"}', "line 2: Expected `int`, got `str` - at `$.depth`"),
        ('{"queue": "a", "depth": 1.5}', "line 2: Expected `int`, got `float`"),
        ('{"queue": "a", "depth": true}', "line 2: Expected `int`, got `bool`"),
        ('{"queue": "a"}', "line 2: Object missing required field `depth`"),
        ('{"queue": "a", "depth": 1, "age": 2}', "line 2: Object contains unknown field `age`"),
        ('{"queue": "a", "tag": "b"}', "line 2 has not exactly one of capacity, queue"),
        ('{"depth": 1}', "line 2 has not exactly one of capacity, queue"),
        ('{"measurement": "a.b", "value": 1, "kind": "histogram"}', "line 2: Invalid enum value"),
        ('{"measurement": "a.b", "value": 1, "attributes": {"a": [1]}}', "at `$.attributes[...]`"),
        ('{"max_age": 0}', "line 2: Expected `float` > 0"),
        ("[1]", "line 2: Expected `object`, got `array`"),
        ("{secret", "line 2: no JSON"),
        ('{"uptime": NaN}', "line 2: no JSON"),
    ],
)
def test_a_bad_line_costs_its_file_and_is_named_without_its_value(spool: Path, line: str, why: str) -> None:
    (spool / "bad.jsonl").write_text(f'{{"uptime": 1}}\n{line}\n')
    (spool / "good.jsonl").write_text(TASKS)
    found, (error,) = collected(spool)
    assert found == [QueueDepth("tasks", 5)]
    assert error.startswith("'bad.jsonl' ")
    assert why in error
    assert "secret" not in error


@pytest.mark.parametrize("content", ["", '{"queue": "tasks", "depth": 50', '{"queue": "tasks", "depth": 5}'])
def test_a_torn_file_is_refused(spool: Path, content: str) -> None:
    (spool / "a.jsonl").write_text(content)
    assert collected(spool) == (
        [],
        ["'a.jsonl' is torn: its last line has no end; write elsewhere, then rename"],
    )


def test_a_file_that_is_no_text_is_refused(spool: Path) -> None:
    (spool / "a.prom").write_bytes(b'app_x{a="\xff"} 1\n')
    assert collected(spool) == ([], ["'a.prom' is not UTF-8"])


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_stale_file_expires_and_a_new_one_takes_its_place(spool: Path) -> None:
    path = spool / "a.jsonl"
    path.write_text(TASKS)
    aged(path, 299)
    assert collected(spool)[0] == [QueueDepth("tasks", 5)]
    aged(path, 301)
    assert collected(spool) == ([], ["'a.jsonl' is 301 s old, beyond max_age = 300"])
    assert collected(spool, max_age=400)[0] == [QueueDepth("tasks", 5)]
    (spool / ".new").write_text(TASKS)
    (spool / ".new").rename(path)
    assert collected(spool) == ([QueueDepth("tasks", 5)], [])


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.jsonl", '{"max_age": 90000}\n{"uptime": 1}\n'), ("a.prom", "# max_age 90000\napp_x 1\n")],
)
def test_a_file_may_say_how_long_it_stands(spool: Path, name: str, text: str) -> None:
    path = spool / name
    path.write_text(text)
    aged(path, 80_000)
    found, errors = collected(spool)
    assert (len(found), errors) == (1, [])
    aged(path, 90_001)
    assert collected(spool) == ([], [f"'{name}' is 90001 s old, beyond max_age = 90000"])


def test_a_time_in_the_future_would_never_be_stale(spool: Path) -> None:
    path = spool / "a.jsonl"
    path.write_text(TASKS)
    aged(path, -30)
    assert collected(spool)[0] == [QueueDepth("tasks", 5)]
    aged(path, -3_600)
    assert collected(spool) == ([], ["'a.jsonl' has a time in the future, so it would never be stale"])


def test_links_pipes_sockets_and_folders_are_not_followed(spool: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text(TASKS)
    (spool / "link.jsonl").symlink_to(outside)
    os.link(outside, spool / "hard.jsonl")
    os.mkfifo(spool / "pipe.jsonl")
    (spool / "folder.jsonl").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(spool / "socket.jsonl"))
        found, errors = collected(spool)
    assert found == []
    assert errors == [
        "'folder.jsonl' is no regular file with one name",
        "'hard.jsonl' is no regular file with one name",
        "'link.jsonl' cannot be read: Too many levels of symbolic links",
        "'pipe.jsonl' is no regular file with one name",
        "'socket.jsonl' cannot be read: No such device or address",
    ]


def test_a_file_that_everybody_can_write_is_refused(spool: Path) -> None:
    (spool / "a.jsonl").write_text(TASKS)
    (spool / "a.jsonl").chmod(0o666)
    assert collected(spool) == ([], ["'a.jsonl' can be written by everybody"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_files_of_other_users_are_read_only_where_they_are_named(spool: Path) -> None:
    import pwd  # noqa: PLC0415 - only here

    (spool / "a.jsonl").write_text(TASKS)
    number = pwd.getpwnam("nobody").pw_uid
    os.chown(spool / "a.jsonl", number, -1)
    assert collected(spool) == ([], [f"'a.jsonl' belongs to user {number}, who is not in owners"])
    assert collected(spool, owners=["nobody"])[0] == [QueueDepth("tasks", 5)]
    os.chown(spool, number, -1)  # the directory's owner decides what stands in it anyway
    assert collected(spool)[0] == [QueueDepth("tasks", 5)]


def test_size_and_number_of_files_are_bounded(spool: Path) -> None:
    (spool / "big.jsonl").write_text("\n" * 2_000)
    for number in range(5):
        (spool / f"n{number}.jsonl").write_text(f'{{"queue": "q{number}", "depth": {number}}}\n')
    found, errors = collected(spool, max_bytes=1_000, max_files=4)
    assert found == [QueueDepth(f"q{number}", number) for number in range(3)]
    assert errors == [
        "'big.jsonl' is larger than max_bytes = 1000",
        "2 files beyond max_files = 4 are not read",
    ]


def test_two_files_with_one_series_the_second_is_named(spool: Path) -> None:
    (spool / "a.jsonl").write_text('{"queue": "tasks", "depth": 1}\n{"uptime": 5}\n')
    (spool / "b.jsonl").write_text(
        '{"queue": "tasks", "depth": 2}\n{"queue": "b", "depth": 3}\n{"uptime": 6}\n'
    )
    (spool / "c.prom").write_text("app_x 1\napp_x 2\n")
    found, errors = collected(spool)
    assert found == [QueueDepth("tasks", 1), Uptime(5), QueueDepth("b", 3), Measurement("app.x", 1, "")]
    assert errors == [
        "'b.jsonl' gives again queue 'tasks', which 'a.jsonl' gives, and 1 more",
        "'c.prom' gives again app.x, which 'c.prom' gives",
    ]


def test_other_files_are_left_alone(spool: Path) -> None:
    for name in ("a.jsonl.tmp", ".a.jsonl", "README", "a.json", "b.prom.1234"):
        (spool / name).write_text("nonsense")
    assert collected(spool) == ([], [])


def test_a_writer_that_renames_is_never_seen_half(spool: Path) -> None:
    """Another process replaces one file as fast as it can: each reading is whole."""
    script = """
i=0
while :; do i=$((i + 1)); { echo '{"queue": "a", "depth": 1}'; echo '{"queue": "b", "depth": 1}'; } \\
  >"$1/.a.tmp"; mv "$1/.a.tmp" "$1/a.jsonl"; done
"""
    writer = subprocess.Popen(("sh", "-c", script, "sh", str(spool)))
    try:
        reader, whole = files(spool), 0
        deadline = time.monotonic() + 120
        while whole < 200 and time.monotonic() < deadline:
            found = list(reader.collect())
            assert found in ([], [QueueDepth("a", 1), QueueDepth("b", 1)])
            whole += len(found) == 2
        assert whole == 200
    finally:
        writer.kill()
        writer.wait()


def test_a_directory_that_is_away_is_unknown_and_comes_back(tmp_path: Path) -> None:
    reader = files(tmp_path / "later")
    with pytest.raises(FileNotFoundError):
        list(reader.collect())
    (tmp_path / "later").mkdir()
    (tmp_path / "later/a.jsonl").write_text(TASKS)
    assert list(reader.collect()) == [QueueDepth("tasks", 5)]


def test_it_keeps_no_file_open(spool: Path) -> None:
    (spool / "a.jsonl").write_text(TASKS)
    (spool / "b.jsonl").write_text("torn")
    reader = files(spool)
    list(reader.collect())
    before = psutil.Process().num_fds()
    for _ in range(5):
        list(reader.collect())
    assert psutil.Process().num_fds() == before


def test_options_are_documented_and_wrong_ones_are_named(tmp_path: Path) -> None:
    assert [info.key for info in describe(Options) if not info.description] == []
    with pytest.raises(ConfigError, match="owners: 'no-such-user' is no user of this machine"):
        read_table(Options, {"owners": ["no-such-user"]}, key="plugins.textfile")
    assert load_plugins({}, only={"textfile"}).collectors == ()
    (loaded,) = load_plugins({"textfile": {"directory": str(tmp_path)}}, only={"textfile"}).collectors
    assert loaded.name == "files"


GRAMMAR = (
    "app_x",
    "{",
    "}",
    'a="b"',
    " 1",
    " NaN",
    "# TYPE app_x ",
    "counter",
    "\n",
    ",",
    "\\",
    '"',
    "e",
    "\x00",
    "[",
)


@given(st.lists(st.sampled_from(GRAMMAR), max_size=20).map("".join), st.sampled_from((".prom", ".jsonl")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_breaks_the_collector(spool: Path, text: str, kind: str) -> None:
    """Whatever stands in a file, it is read or refused as a whole."""
    (spool / f"a{kind}").write_text(f"{text}\n")
    items = list(files(spool).collect())
    errors = [item for item in items if isinstance(item, Exception)]
    assert all(isinstance(error, FileError) for error in errors)
    (spool / f"a{kind}").unlink()
