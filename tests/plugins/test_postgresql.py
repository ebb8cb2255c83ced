"""The postgresql plugin against a real server, whose tables other processes fill and drain."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity, QueueDepth
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.plugin.testing import check_collector, check_plugin, failures
from openclaw_exporter_postgresql import Options, Queries
from support.postgresql import PostgresServer
from support.proxy import DelayProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki

PENDING = "SELECT count(*) FROM tasks WHERE status = 'pending'"
TRICK = """
CREATE FUNCTION trick() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('transaction_read_only', 'off', true);
    DELETE FROM tasks;
    RETURN 1;
END $$
"""


@pytest.fixture(scope="module")
def shared_server(pki: Pki) -> Iterator[PostgresServer]:
    server = PostgresServer(pki)
    try:
        server.start()
        server.execute(
            "CREATE TABLE tasks (id serial, status text, created_at timestamptz DEFAULT now())",
            "CREATE TABLE hidden (id serial)",
            "CREATE ROLE reader LOGIN PASSWORD 'right'",
            # More than the documentation asks for, so that only the transaction stands in a writer's way.
            "GRANT ALL ON tasks TO reader",
            TRICK,
        )
        yield server
    finally:
        server.close()


@pytest.fixture
def server(shared_server: PostgresServer) -> PostgresServer:
    shared_server.execute("TRUNCATE tasks", "ALTER ROLE reader PASSWORD 'right'")
    return shared_server


class Bench:
    """Collectors that are closed afterwards, and the password's file."""

    def __init__(self, server: PostgresServer, secret: Path) -> None:
        self.server = server
        self.secret = secret
        self._collectors: list[Queries] = []

    def queries(self, *, dsn: str = "", **table: Any) -> Queries:
        """Return the collector `queries` of this table."""
        table = {"dsn": dsn or self.server.dsn(), "password_file": str(self.secret), **table}
        self._collectors.append(Queries(read_table(Options, table, key="plugins.postgresql")))
        return self._collectors[-1]

    def fill(self, count: int) -> None:
        insert = "INSERT INTO tasks (status) SELECT 'pending' FROM generate_series(1, {})"
        self.server.execute(insert.format(count))

    def close(self) -> None:
        for collector in self._collectors:
            collector.close()


@pytest.fixture
def bench(server: PostgresServer, tmp_path: Path) -> Iterator[Bench]:
    secret = tmp_path / "password"
    secret.write_text("right\n")
    bench = Bench(server, secret)
    yield bench
    bench.close()


def depths(queries: Queries) -> dict[str, int]:
    """Collect through the host's edge and return the depth of each topic."""
    checked = Guard().check(queries.collect())
    assert checked.rejected == ()
    return {o.topic: o.depth for o in checked.observations if isinstance(o, QueueDepth)}


def error_of(bench: Bench, sql: str, **table: Any) -> str:
    """Return the error of one query, beside which another one's depth has to stand."""
    queries = bench.queries(queries={"bad": sql, "good": PENDING}, **table)
    error, good = queries.collect()
    assert good == QueueDepth("good", 0)
    assert isinstance(error, Exception)
    text = str(error)
    assert text.startswith("topic 'bad': ")
    assert "\n" not in text
    return text.removeprefix("topic 'bad': ")


def elsewhere(server: PostgresServer, statement: str) -> None:
    """Run a statement in another process."""
    program = f"""
import psycopg
with psycopg.connect({server.owner!r}) as connection:
    connection.execute({statement!r})
"""
    subprocess.run((sys.executable, "-c", program), check=True)


def test_tables_that_other_processes_fill_and_drain(bench: Bench) -> None:
    review = "SELECT count(*) FROM tasks WHERE status = 'review'"
    queries = bench.queries(queries={"worker": PENDING, "judge": review})
    assert depths(queries) == {"worker": 0, "judge": 0}
    elsewhere(bench.server, "INSERT INTO tasks (status) SELECT 'pending' FROM generate_series(1, 12)")
    assert depths(queries) == {"worker": 12, "judge": 0}
    take = "UPDATE tasks SET status = 'review' WHERE id IN (SELECT id FROM tasks ORDER BY id LIMIT 5)"
    elsewhere(bench.server, take)
    assert depths(queries) == {"worker": 7, "judge": 5}
    elsewhere(bench.server, "DELETE FROM tasks")
    assert depths(queries) == {"worker": 0, "judge": 0}


def test_readings_hold_while_others_fill_and_drain(bench: Bench) -> None:
    queries = bench.queries(queries={"worker": PENDING})
    # Every transaction fills or drains seven at once, so no reading may show anything between.
    program = f"""
import psycopg
with psycopg.connect({bench.server.owner!r}, autocommit=True) as connection:
    for number in range(1, 301):
        connection.execute("INSERT INTO tasks (status) SELECT 'pending' FROM generate_series(1, 7)")
        if number % 3 == 0:
            connection.execute("DELETE FROM tasks WHERE id IN (SELECT id FROM tasks ORDER BY id LIMIT 14)")
"""  # noqa: S608 - our own text
    seen: set[int] = set()
    with subprocess.Popen((sys.executable, "-c", program)) as process:
        while process.poll() is None:
            seen.add(depths(queries)["worker"])
    assert process.returncode == 0
    assert seen
    assert all(depth % 7 == 0 and depth <= 7 * 300 for depth in seen)
    assert depths(queries) == {"worker": 7 * 300 - 14 * 100}


def test_it_passes_the_conformance_kit(bench: Bench) -> None:
    with DelayProxy(bench.server.port) as proxy:

        @contextmanager
        def silence() -> Iterator[None]:
            proxy.freeze()
            yield
            proxy.thaw()

        table = {
            "dsn": bench.server.dsn(port=proxy.port),
            "password_file": str(bench.secret),
            "queries": {"worker": PENDING},
            "timeout": 3.0,
        }
        bench.fill(2)
        report = check_plugin("postgresql", {"postgresql": table}, runs=12)
        assert [failures(found) for found in (report.findings, *report.collectors.values())] == [(), ()]
        queries = Queries(read_table(Options, table, key=""))
        findings = check_collector(queries, runs=8, break_source=silence)
        assert failures(findings) == ()


def test_the_second_column_is_the_oldest_tasks_age(bench: Bench) -> None:
    bench.server.execute(
        "INSERT INTO tasks (status, created_at) VALUES "
        "('pending', now() - interval '90 s'), ('pending', now()), ('future', now() + interval '1 h')"
    )
    oldest = "SELECT count(*), now() - min(created_at) FROM tasks WHERE status = '{}'"
    seconds = (
        "SELECT count(*), extract(epoch FROM now() - min(created_at)) FROM tasks WHERE status = 'pending'"
    )
    queries = bench.queries(
        queries={
            "interval": oldest.format("pending"),
            "seconds": seconds,
            "drained": oldest.format("none"),
            "future": oldest.format("future"),
        }
    )
    found = {o.topic: o for o in queries.collect() if isinstance(o, QueueDepth)}
    assert found["interval"] == QueueDepth("interval", 2, pytest.approx(90, abs=30))
    assert found["seconds"] == QueueDepth("seconds", 2, pytest.approx(90, abs=30))
    assert found["drained"] == QueueDepth("drained", 0, None)
    assert found["future"] == QueueDepth("future", 1, 0.0)


def test_capacity_by_query(bench: Bench) -> None:
    queries = bench.queries(
        capacity={"workers": "SELECT 8::numeric", "available_slots": "SELECT 3", "load": "SELECT 0.5"}
    )
    assert Guard().check(queries.collect()).observations == (
        Capacity("workers", 8),
        Capacity("available_slots", 3),
        Capacity("load", 0.5),
    )


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT count(*) FROM nothing", 'relation "nothing" does not exist [42P01]'),
        ("SELECT count(*) FROM hidden", "permission denied for table hidden: grant SELECT on it [42501]"),
        ("SELECT count(*", "syntax error at end of input [42601]"),
        ("SELECT pg_sleep(9)", "due to statement timeout (statement_timeout = 3 s) [57014]"),
        ("SELECT 1 WHERE false", "the query returned no row"),
        ("SELECT generate_series(1, 3)", "the query returned more than one row"),
        ("SELECT n FROM generate_series(1, 100000) AS n", "the query returned more than one row"),
        ("SELECT 1, 2, 3", "returned 3 columns; it has to return 1 or 2"),
        ("SELECT sum(id) FROM tasks", "NULL: use coalesce(…, 0)"),
        ("SELECT 'hunter2'", "the first column is a str, not a number"),
        ("SELECT true", "the first column is a bool, not a number"),
        ("SELECT -1", "the first column is negative"),
        ("SELECT 1.5", "the first column is no whole number"),
        ("SELECT 'NaN'::float8", "the first column is not finite"),
        ("SELECT 1, 'infinity'::float8", "the second column is not finite"),
        ("SELECT 1, 'hunter2'", "the second column is a str"),
        ("SELECT 'hunter2'::text::int", "InvalidTextRepresentation, whose text is withheld"),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
    ],
)
def test_a_query_that_fails_costs_its_own_topic_and_says_why(bench: Bench, sql: str, text: str) -> None:
    error = error_of(bench, sql, statement_timeout=3.0, timeout=60.0)
    assert text in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    "sql",
    [
        "WITH old AS (SELECT 1) DELETE FROM tasks",
        "WITH gone AS (DELETE FROM tasks RETURNING 1) SELECT count(*) FROM gone",
        "SELECT 1 FROM tasks LIMIT 1 FOR UPDATE",
        "SELECT nextval('tasks_id_seq')",
        "SELECT trick()",
        "SELECT count(*) FROM (SELECT set_config('transaction_read_only', 'off', true)) AS a",
        "SELECT 1 INTO copy FROM tasks",
    ],
)
def test_a_query_that_writes_is_refused(bench: Bench, sql: str) -> None:
    bench.fill(3)
    queries = bench.queries(
        dsn=bench.server.owner, queries={"bad": sql, "good": PENDING}, capacity={"ok": "SELECT 1"}
    )
    for _ in range(2):
        error, good, _ok = queries.collect()
        assert isinstance(error, Exception)
        assert "[25" in str(error)  # the class "invalid transaction state"
        assert good == QueueDepth("good", 3)


def test_a_statement_may_begin_with_a_comment_or_a_bracket(bench: Bench) -> None:
    begun = bench.queries(queries={"a": f"-- waiting\n/* now */ ({PENDING})", "b": "\n VALUES (1);"})
    assert depths(begun) == {"a": 0, "b": 1}


def test_a_locked_table_is_unknown_and_named(bench: Bench) -> None:
    with psycopg.connect(bench.server.owner) as other:
        other.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        queries = bench.queries(queries={"bad": PENDING, "good": "SELECT 1"}, statement_timeout=3.0)
        error, good = queries.collect()
    assert "canceling statement due to lock timeout [55P03]" in str(error)
    assert good == QueueDepth("good", 1)
    assert queries.collect()[0] == QueueDepth("bad", 0)


def test_slow_queries_leave_the_later_ones_unknown_and_not_late(bench: Bench) -> None:
    topics = dict.fromkeys(("a", "b", "c"), "SELECT count(*) FROM pg_sleep(4)")
    queries = bench.queries(queries={"first": PENDING, **topics}, statement_timeout=19.0, timeout=10.0)
    first, second, *_, last = queries.collect()
    assert (first, second) == (QueueDepth("first", 0), QueueDepth("a", 1))
    assert "timeout = 10 s left no time for its query" in str(last) or "[57014]" in str(last)


def test_where_no_query_gives_a_figure_the_collector_fails(bench: Bench) -> None:
    queries = bench.queries(queries={"a": "SELECT count(*) FROM nothing"})
    with pytest.raises(
        ConnectionError, match=r"no query at PostgreSQL at host=127\.0\.0\.1 port=.* gives a figure"
    ):
        queries.collect()


def test_a_session_is_known_by_its_name_and_leaves_no_transaction_open(bench: Bench) -> None:
    queries = bench.queries(queries={"worker": PENDING})
    assert depths(queries) == {"worker": 0}
    own = "FROM pg_stat_activity WHERE application_name = 'openclaw-exporter'"
    with psycopg.connect(bench.server.owner) as other:
        assert other.execute(f"SELECT count(*), min(state) {own}").fetchall() == [(1, "idle")]
    for _ in range(3):
        assert depths(queries) == {"worker": 0}
    with psycopg.connect(bench.server.owner) as other:
        assert other.execute(f"SELECT count(*) {own}").fetchall() == [(1,)]


def test_a_stopped_server_is_unknown_and_comes_back_without_a_restart(bench: Bench) -> None:
    queries = bench.queries(queries={"worker": PENDING})
    bench.fill(2)
    assert depths(queries) == {"worker": 2}
    bench.server.stop()
    for _ in range(2):
        with pytest.raises(
            ConnectionError, match=r"PostgreSQL at host=.* cannot be read \(.*refused.*\): check dsn"
        ) as caught:
            queries.collect()
        assert "\n" not in str(caught.value)
    bench.server.start()
    assert depths(queries) == {"worker": 2}
    # A restart between two collections leaves a dead kept connection behind, which costs nothing.
    bench.server.stop()
    bench.server.start()
    assert depths(queries) == {"worker": 2}


def test_a_server_that_is_slow_or_silent_is_given_up_and_comes_back(bench: Bench) -> None:
    with DelayProxy(bench.server.port) as proxy:
        queries = bench.queries(
            dsn=bench.server.dsn(port=proxy.port), queries={"worker": PENDING}, timeout=3.0
        )
        assert depths(queries) == {"worker": 0}
        proxy.delay = 0.05
        assert depths(queries) == {"worker": 0}
        threads = threading.active_count()
        for hurt in (lambda: setattr(proxy, "delay", 5), proxy.freeze):
            hurt()
            # First on the kept connection, then while a new one is made.
            for _ in range(2):
                with pytest.raises(
                    TimeoutError, match=r"^PostgreSQL at .* gave no answer within timeout = 3 s: look after"
                ):
                    queries.collect()
            proxy.delay = 0
            proxy.thaw()
            assert depths(queries) == {"worker": 0}
        assert threading.active_count() == threads
        proxy.cut()
        assert depths(queries) == {"worker": 0}
        queries.close()


def test_a_wrong_password_is_one_clear_line_and_the_file_is_read_again(bench: Bench) -> None:
    bench.secret.write_text("hunter2\n")
    queries = bench.queries(queries={"worker": PENDING})
    with pytest.raises(PermissionError) as caught:
        queries.collect()
    text = str(caught.value)
    assert f"PostgreSQL at host=127.0.0.1 port={bench.server.port} dbname=postgres refuses the user: " in text
    assert "check user in dsn and password_file" in text
    assert "hunter2" not in text
    assert "\n" not in text
    bench.secret.write_text("right\n")
    assert depths(queries) == {"worker": 0}
    queries.close()
    bench.secret.unlink()
    with pytest.raises(PermissionError, match=r"password_file .* cannot be read: No such file"):
        queries.collect()


def test_a_missing_password_or_database_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    no_password = Queries(Options(dsn=bench.server.dsn(), queries={"a": PENDING}))
    with pytest.raises(PermissionError, match="no password supplied"):
        no_password.collect()
    dsn = bench.server.dsn().replace("dbname=postgres", "dbname=other")
    with pytest.raises(ConnectionError, match='database "other" does not exist'):
        bench.queries(dsn=dsn, queries={"a": PENDING}).collect()
    with pytest.raises(ConnectionError, match=r"^dsn is no connection string that libpq can read$"):
        bench.queries(dsn="host=a hunter2", queries={"a": PENDING}).collect()


def test_tls_checks_the_server_against_the_ca_and_its_name(bench: Bench, pki: Pki, tmp_path: Path) -> None:
    strict = f"{bench.server.dsn()} sslmode=verify-full sslrootcert={{}}"
    trusting = bench.queries(
        dsn=strict.format(pki.ca), queries={"a": "SELECT count(*) FROM pg_stat_ssl WHERE ssl"}
    )
    assert depths(trusting)["a"] >= 1
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        bench.queries(dsn=strict.format("system"), queries={"a": PENDING}).collect()
    misnamed = strict.format(pki.ca).replace("host=127.0.0.1", "host=db.test hostaddr=127.0.0.1")
    with pytest.raises(ConnectionError, match="does not match host name"):
        bench.queries(dsn=misnamed, queries={"a": PENDING}).collect()


def test_a_service_and_a_passfile_of_libpq(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, passfile = tmp_path / "services", tmp_path / "passfile"
    passfile.write_text("127.0.0.1:*:*:reader:right\n")
    passfile.chmod(0o600)
    lines = "\n".join([*bench.server.dsn().split(), f"passfile={passfile}"])
    services.write_text(f"[chimera]\n{lines}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    queries = Queries(Options(dsn="service=chimera", queries={"a": PENDING}))
    assert depths(queries) == {"a": 0}
    queries.close()


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ({"dsn": "host=h password=hunter2"}, "", "password_file"),
        ({"dsn": "host=h sslpassword = hunter2"}, "", "password_file"),
        ({"dsn": "postgresql://me:hunter2@h/d"}, "", "password_file"),
        ({"dsn": "postgresql://h/d?user=me&password=hunter2"}, "", "password_file"),
        ({"dsn": 5}, "dsn", "a string"),
        ({"queries": {"two words": "SELECT 1"}}, "queries.two words", "1 to 64 characters"),
        ({"queries": {"a": ""}}, "queries.a", "one SELECT statement"),
        ({"queries": {"a": "DELETE FROM tasks"}}, "queries.a", "one SELECT statement"),
        ({"queries": {"a": "COPY tasks TO STDOUT"}}, "queries.a", "one SELECT statement"),
        ({"queries": {"a": "/* SELECT */ COMMIT"}}, "queries.a", "one SELECT statement"),
        ({"capacity": {"Workers": "SELECT 1"}}, "capacity.Workers", ""),
        ({"statement_timeout": 0}, "statement_timeout", "0.01"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(Options, table, key="")
    (problem,) = caught.value.problems
    assert problem.key == key
    assert text in str(problem)
    assert "hunter2" not in str(problem)


def test_the_plugin_loads_and_does_nothing_without_queries() -> None:
    loaded = load_plugins({}, only={"postgresql"})
    assert (loaded.collectors, loaded.failures) == ((), ())
    table = {"postgresql": {"queries": {"worker": PENDING}}}
    assert [c.name for c in load_plugins(table, only={"postgresql"}).collectors] == ["queries"]


def test_every_option_is_documented() -> None:
    assert [info.key for info in describe(Options) if not info.description] == []
