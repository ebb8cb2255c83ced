"""The chimera plugin against real Redis servers, filled and drained by other processes."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis

import openclaw_exporter_chimera as chimera
from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter_chimera import Options, Queues
from openclaw_exporter_chimera.streams import following
from support.chimera import Bench, depths, elsewhere, partial
from support.ports import free_port
from support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    bench = Bench(redis_server)
    yield bench
    bench.close()


def test_lists_sorted_sets_and_streams_that_other_processes_fill_and_drain(bench: Bench) -> None:
    queues = bench.queues(
        queues={
            "worker": ["task_queue"],
            "judge": ["review"],
            "planner": ["chimera:plans"],
            "idle": ["nothing"],
        },
        groups=["chimera_workers"],
    )
    assert depths(queues) == {"worker": 0, "judge": 0, "planner": 0, "idle": 0}
    fill = """
r.lpush("task_queue", *range(7))
r.zadd("review", {f"t{n}": n for n in range(5)})
r.xgroup_create("chimera:plans", "chimera_workers", id="0", mkstream=True)
for n in range(6): r.xadd("chimera:plans", {"n": n})
"""
    elsewhere(bench.server, fill)
    assert depths(queues) == {"worker": 7, "judge": 5, "planner": 6, "idle": 0}
    drain = """
for _ in range(3): r.rpop("task_queue")
r.zpopmax("review", 5)
taken = r.xreadgroup("chimera_workers", "one", {"chimera:plans": ">"}, count=4)[0][1]
r.xack("chimera:plans", "chimera_workers", *[entry for entry, _ in taken[:3]])
"""
    elsewhere(bench.server, drain)
    # The stream still holds six entries: three acknowledged, one pending, two not yet delivered.
    assert bench.client.xlen("chimera:plans") == 6
    assert depths(queues) == {"worker": 4, "judge": 0, "planner": 3, "idle": 0}


def test_the_same_key_may_change_its_type(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["q"]})
    bench.client.lpush("q", 1, 2)
    assert depths(queues) == {"worker": 2}
    bench.client.delete("q")
    assert depths(queues) == {"worker": 0}
    bench.client.zadd("q", {"a": 1, "b": 2, "c": 3})
    assert depths(queues) == {"worker": 3}
    bench.client.delete("q")
    bench.client.xadd("q", {"a": 1})
    assert depths(queues) == {"worker": 1}


def test_however_many_keys_one_collection_is_one_round_trip_without_an_error_reply(bench: Bench) -> None:
    """Lists, sorted sets, streams with a backlog, a pattern and workers: everything rides in one batch."""
    for number in range(40):
        bench.client.lpush(f"agent:{number}:queue", *range(3))
    bench.client.zadd("z", {"a": 1})
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    bench.client.xadd("s", {"a": 1})
    bench.client.xreadgroup("g", "w", {"s": ">"})
    bench.client.xadd("s", {"a": 2})
    queues = bench.queues(
        queues={"a": ["agent:*:queue"], "b": ["z", "l"], "c": ["s"], "d": ["none"]},
        systems={"e": ["celery:c", "rq:r", "bullmq:b", "arq:q"]},
        created_at=["created_at"],
        worker_consumers=["c"],
        busy_from=["b"],
        blocked_hint=True,
    )
    expected = {"a": 120, "b": 1, "c": 2, "d": 0, "e": 0}
    assert depths(queues) == expected
    assert bench.round_trips(lambda: depths(queues)) == 1
    bench.client.config_resetstat()
    assert depths(queues) == expected
    assert bench.client.info("stats")["total_error_replies"] == 0
    calls = bench.commands(lambda: depths(queues))
    assert calls["llen"] == 40
    assert calls["scan"] == 1
    assert "keys" not in calls


def test_a_new_key_of_a_pattern_counts_at_once_and_costs_one_more_round_trip(bench: Bench) -> None:
    bench.client.lpush("q:1", 1)
    queues = bench.queues(queues={"worker": ["q:*"]})
    assert depths(queues) == {"worker": 1}
    bench.client.lpush("q:2", 1, 2)
    assert depths(queues) == {"worker": 3}
    assert bench.round_trips(lambda: depths(queues)) == 1


def test_in_a_large_database_a_new_key_is_found_while_scan_calls_go_round(bench: Bench) -> None:
    pipeline = bench.client.pipeline()
    for number in range(2_000):
        pipeline.set(f"other:{number}", 1)
    pipeline.execute()
    queues = bench.queues(queues={"worker": ["q:*"]}, scan_count=500)
    assert depths(queues) == {"worker": 0}
    for number in range(20):
        bench.client.lpush(f"q:{number}", 1)
    found = [depths(queues)["worker"] for _ in range(6)]
    assert found == sorted(found)
    assert found[-1] == 20
    bench.client.delete("q:1")
    assert depths(queues) == {"worker": 19}


def test_patterns_are_summed_into_one_topic_each_key_once(bench: Bench) -> None:
    queues = bench.queues(
        queues={"planner": ["planner:queue:*", "planner:*:a", "extra"], "odd": [r"lit\*eral"]}
    )
    bench.client.lpush("planner:queue:a", 1, 2)
    bench.client.zadd("planner:queue:b", {"x": 1})
    bench.client.hset("planner:queue:meta", "a", 1)
    bench.client.lpush("extra", 1, 2, 3)
    bench.client.lpush("lit*eral", 1)
    bench.client.lpush("litXeral", 1, 2)
    assert depths(queues) == {"planner": 6, "odd": 1}
    bench.client.delete("planner:queue:a")
    assert depths(queues) == {"planner": 4, "odd": 1}


def test_keys_that_are_no_text_are_counted(bench: Bench) -> None:
    bench.client.lpush(b"queue:\xff\x00", 1)
    assert depths(bench.queues(queues={"worker": ["queue:*"]})) == {"worker": 1}


def test_a_key_of_another_type_costs_its_own_topic_and_is_named(bench: Bench) -> None:
    bench.client.hset("settings", "a", 1)
    bench.client.lpush("task_queue", 1)
    known, errors = partial(bench.queues(queues={"worker": ["task_queue"], "judge": ["settings"]}))
    assert known == {"worker": 1}
    assert errors == ["topic 'judge': key 'settings' is a hash, not a list, sorted set or stream"]
    with pytest.raises(ConnectionError, match="key 'settings' is a hash"):
        bench.queues(queues={"judge": ["settings"]}).collect()


def test_a_pattern_beyond_its_bounds_is_unknown_and_not_too_small(bench: Bench) -> None:
    pipeline = bench.client.pipeline()
    for number in range(3_000):
        pipeline.lpush(f"q:{number}", 1)
    pipeline.execute()
    table: dict[str, Any] = {"queues": {"worker": ["q:*"], "judge": ["q:1"]}}
    known, errors = partial(bench.queues(**table, scan_count=1_000, scan_limit=2, max_keys=10_000))
    assert (known, len(errors)) == ({"judge": 1}, 1)
    assert "scan_limit = 2" in errors[0]
    known, errors = partial(bench.queues(**table))
    assert known == {"judge": 1}
    assert "max_keys = 1000" in errors[0]
    assert depths(bench.queues(**table, max_keys=5_000)) == {"worker": 3_000, "judge": 1}


def test_a_stream_without_the_group_counts_its_entries(bench: Bench) -> None:
    bench.client.xadd("s", {"a": 1})
    bench.client.xadd("s", {"a": 2})
    assert depths(bench.queues(queues={"worker": ["s"]}, groups=["later"])) == {"worker": 2}


def test_of_several_groups_the_one_furthest_behind_counts(bench: Bench) -> None:
    for number in range(5):
        bench.client.xadd("s", {"n": number})
    for group, taken in (("fast", 5), ("slow", 1)):
        bench.client.xgroup_create("s", group, id="0")
        entries = bench.client.xreadgroup(group, "c", {"s": ">"}, count=taken)[0][1]
        bench.client.xack("s", group, *[entry for entry, _ in entries])
    assert depths(bench.queues(queues={"worker": ["s"]})) == {"worker": 4}
    assert depths(bench.queues(queues={"worker": ["s"]}, groups=["fast"])) == {"worker": 0}


@pytest.mark.parametrize(("waiting", "pending"), [(3, 2), (400, 2), (2, 400)])
def test_a_lag_that_the_server_cannot_tell_is_counted(bench: Bench, waiting: int, pending: int) -> None:
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    pipeline = bench.client.pipeline()
    for number in range(pending + waiting + 1):
        pipeline.xadd("s", {"n": number})
    entries = pipeline.execute()
    bench.client.xreadgroup("g", "c", {"s": ">"}, count=pending)
    bench.client.xdel("s", entries[-1])
    assert bench.client.xinfo_groups("s")[0]["lag"] is None
    assert depths(bench.queues(queues={"worker": ["s"]})) == {"worker": waiting + pending}


def test_a_lag_that_is_too_long_to_count_is_unknown(bench: Bench) -> None:
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    pipeline = bench.client.pipeline()
    for number in range(601):
        pipeline.xadd("s", {"n": number})
    entries = pipeline.execute()
    bench.client.xreadgroup("g", "c", {"s": ">"}, count=300)
    bench.client.xdel("s", entries[-1])
    bench.client.lpush("l", 1)
    known, errors = partial(bench.queues(queues={"worker": ["s"], "judge": ["l"]}))
    assert known == {"judge": 1}
    assert "too long to count" in errors[0]


def test_the_last_possible_number_of_an_entry_has_a_next() -> None:
    assert following(b"5-18446744073709551615") == b"6-0"
    assert following(b"5-0") == b"5-1"


def test_a_redis_that_is_away_is_unknown_and_comes_back_without_a_restart(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["task_queue"]})
    bench.client.lpush("task_queue", 1)
    assert depths(queues) == {"worker": 1}
    bench.server.stop()
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"redis://127\.0\.0\.1:\d+/0 cannot be read"):
            queues.collect()
    bench.server.start()
    assert depths(queues) == {"worker": 0}
    # A restart between two collections leaves a dead kept connection behind, which costs nothing.
    bench.server.stop()
    bench.server.start()
    assert depths(queues) == {"worker": 0}


def test_a_redis_that_does_not_answer_is_given_up(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["task_queue"]}, socket_timeout=2.0)
    assert depths(queues) == {"worker": 0}
    bench.client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
    with pytest.raises(TimeoutError, match=r"gave no answer within 2 s"):
        queues.collect()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    """A server with a password and an ACL user who may do what the plugin needs and nothing else."""
    (tmp_path / "guarded").mkdir()
    server = RedisServer(tmp_path / "guarded", "--requirepass", "right")
    server.start()
    commands = "+client +select +type +llen +zcard +xlen +xinfo|groups +scan"
    with redis.Redis(port=server.port, password="right") as client:  # noqa: S106 - the test's own server
        client.execute_command("ACL", "SETUSER", "reader", "on", ">small", "~q:*", *commands.split())
    yield server
    server.stop()


@pytest.mark.parametrize("table", [{}, {"username": "nobody"}])
def test_a_wrong_password_is_one_clear_line_and_the_file_is_read_again(
    guarded: RedisServer, tmp_path: Path, table: dict[str, str]
) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    options = {"url": guarded.url, "password_file": str(secret), "queues": {"worker": ["q:a"]}}
    queues = Queues(read_table(Options, {**options, **table}, key=""))
    with pytest.raises(PermissionError) as caught:
        queues.collect()
    assert str(caught.value) == f"{guarded.url} refuses the user name or password"
    secret.write_text("right\n")
    if not table:
        assert depths(queues) == {"worker": 0}
    queues.close()


def test_a_missing_password_is_said(guarded: RedisServer) -> None:
    queues = Queues(Options(url=guarded.url, queues={"worker": ("q:a",)}))
    with pytest.raises(PermissionError, match="refuses the user name or password"):
        queues.collect()
    queues.close()


def test_an_acl_user_needs_few_rights_and_a_key_beyond_them_is_named(
    guarded: RedisServer, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("small")
    queues = Queues(
        Options(
            url=guarded.url,
            username="reader",
            password_file=secret,
            queues={"worker": ("q:a", "q:b*"), "judge": ("other",)},
        )
    )
    known, errors = partial(queues)
    queues.close()
    assert known == {"worker": 0}
    assert len(errors) == 1
    assert "'other'" in errors[0]


def test_the_rights_that_the_documentation_names_are_enough(bench: Bench) -> None:
    rights = set(re.findall(r"`([+][a-z_|]+)`", chimera.__doc__ or ""))
    assert "+xinfo|consumers" in rights
    bench.client.execute_command("ACL", "SETUSER", "reader", "on", ">word", "~*", *rights)
    bench.client.rpush("l", '{"created_at": 1700000000}')
    bench.client.zadd("z", {'{"created_at": 1700000000}': 1})
    bench.client.xgroup_create("s", "g", id="0", mkstream=True)
    bench.client.xadd("s", {"a": 1})
    bench.client.rpush("rq:queue:r", "job")
    queues = bench.queues(
        url=bench.server.url.replace("://", "://reader:word@"),
        queues={"worker": ["l", "z"], "judge": ["s*"]},
        systems={"planner": ["rq:r", "celery:c"]},
        created_at=["created_at"],
        worker_consumers=["judge"],
        busy_from=["planner"],
        blocked_hint=True,
    )
    for _ in range(3):
        assert depths(queues) == {"worker": 2, "judge": 1, "planner": 1}
    denied = {entry["object"] for entry in bench.client.acl_log()}
    assert not denied


def test_a_password_file_that_is_not_there_is_named(bench: Bench, tmp_path: Path) -> None:
    queues = bench.queues(queues={"worker": ["a"]}, password_file=str(tmp_path / "none"))
    with pytest.raises(PermissionError, match=r"none cannot be read: No such file"):
        queues.collect()


def test_a_password_in_the_url_never_shows(bench: Bench) -> None:
    url = bench.server.url.replace("://", "://me:hunter2@")
    queues = bench.queues(url=url, queues={"worker": ["a"]})
    with pytest.raises(PermissionError) as caught:
        queues.collect()
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Options(url=url))
    bench.server.stop()
    with pytest.raises(ConnectionError) as away:
        queues.collect()
    assert "hunter2" not in str(away.value)


def test_what_is_no_redis_is_said() -> None:
    for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(said: bytes = answer, listener: socket.socket = listener) -> None:
                client, _ = listener.accept()
                with client:
                    client.recv(65_536)
                    client.sendall(said)

            thread = threading.Thread(target=serve)
            thread.start()
            url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
            queues = Queues(Options(url=url, queues={"worker": ("a",)}))
            with pytest.raises(ConnectionError, match=r"not speak Redis' protocol|closed the connection"):
                queues.collect()
            thread.join()


def test_a_database_that_is_not_there_is_said(bench: Bench) -> None:
    queues = bench.queues(url=bench.server.url.removesuffix("0") + "99", queues={"worker": ["a"]})
    with pytest.raises(ConnectionError, match="DB index is out of range"):
        queues.collect()


def test_a_user_who_may_have_no_name_reads_all_the_same(bench: Bench) -> None:
    bench.client.execute_command("ACL", "SETUSER", "quiet", "on", ">word", "~*", "+type", "+llen")
    url = bench.server.url.replace("://", "://quiet:word@")
    assert depths(bench.queues(url=url, queues={"worker": ["a"]})) == {"worker": 0}


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, "--unixsocket", str(path))
    server.start()
    queues = Queues(Options(url=f"unix://{path}?db=1", queues={"worker": ("a",)}))
    assert depths(queues) == {"worker": 0}
    queues.close()
    server.stop()


def test_tls_checks_the_server_against_the_configured_ca(tmp_path: Path, pki: Pki) -> None:
    files, port = pki.server(name="redis"), free_port()
    tls = (
        "--tls-port",
        str(port),
        "--tls-cert-file",
        str(files.certificate),
        "--tls-key-file",
        str(files.key),
    )
    server = RedisServer(tmp_path, *tls, "--tls-ca-cert-file", str(pki.ca), "--tls-auth-clients", "yes")
    server.start()
    url, own = f"rediss://127.0.0.1:{port}/0", pki.node(str(uuid4()))
    table: dict[str, Any] = {"url": url, "queues": {"worker": ("a",)}}
    shown: dict[str, Any] = {"client_certificate": own.certificate, "client_key": own.key}
    trusting = Queues(Options(**table, **shown, ca=pki.ca))
    assert depths(trusting) == {"worker": 0}
    strict = Queues(Options(**table, **shown))
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        strict.collect()
    nameless = Queues(Options(**table, ca=pki.ca))
    with pytest.raises(ConnectionError, match="cannot be read"):
        nameless.collect()
    missing = Queues(Options(**table, ca=tmp_path / "none.pem"))
    with pytest.raises(PermissionError, match=r"^ca .*/none\.pem cannot be read: No such file"):
        missing.collect()
    (tmp_path / "empty.pem").write_text("")
    empty = Queues(Options(**table, ca=tmp_path / "empty.pem"))
    with pytest.raises(ConnectionError, match="cannot be read"):
        empty.collect()
    for queues in (trusting, strict, nameless):
        queues.close()
    server.stop()


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ({"url": "http://host"}, "url", "redis://host:port/number"),
        ({"url": "redis://"}, "url", "redis://host:port/number"),
        ({"url": "redis:///0"}, "", "no usable host"),
        ({"url": "redis://host:x"}, "", "no usable host"),
        ({"url": "redis://:hunter2@h/0", "password_file": "x"}, "", "keep one"),
        ({"url": "redis://:hunter2@h/0?ssl_cert_reqs=none"}, "", "nothing but db=NUMBER"),
        ({"url": "redis://h/zero"}, "", "number of a database"),
        ({"queues": {"two words": ["a"]}}, "queues.two words", "1 to 64 characters"),
        ({"queues": {"worker": "a"}}, "queues.worker", "a list"),
        ({"queues": {f"t{n}": ["a"] for n in range(33)}}, "queues", "up to 32 keys"),
        ({"workers": -1}, "workers", "an integer from 0"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(Options, table, key="")
    (problem,) = caught.value.problems
    assert problem.key == key
    assert text in str(problem)
    assert "hunter2" not in str(problem)


def test_workers_are_known_without_redis() -> None:
    loaded = load_plugins({"chimera": {"workers": 24, "url": "redis://127.0.0.1:1"}}, only={"chimera"})
    (workers,) = loaded.collectors
    assert list(workers.collector.collect()) == [Capacity("workers", 24), Capacity("available_slots", 24)]


def test_without_configuration_there_is_nothing_to_collect() -> None:
    loaded = load_plugins({}, only={"chimera"})
    assert (loaded.collectors, loaded.failures) == ((), ())


def test_every_option_is_documented() -> None:
    assert [info.key for info in describe(Options) if not info.description] == []
