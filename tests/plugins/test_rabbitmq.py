"""The rabbitmq plugin against a real node, whose queues other processes fill and drain."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import amqp
import httpx
import pytest

import openclaw_exporter_rabbitmq as rabbitmq
from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity, QueueDepth
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter.plugin.testing import check_collector, check_plugin, failures
from openclaw_exporter_rabbitmq import Options, Queues, management
from openclaw_exporter_rabbitmq import queues as queues_
from support.proxy import DelayProxy
from support.rabbitmq import RabbitServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki


@pytest.fixture(scope="module")
def server(pki: Pki) -> Iterator[RabbitServer]:
    server = RabbitServer(pki)
    try:
        server.start()
        yield server
    finally:
        server.close()


class Bench:
    """A channel that plays Chimera, and collectors that are closed afterwards.

    A message is confirmed: it outlives the server.
    """

    def __init__(self, server: RabbitServer) -> None:
        self.server = server
        self.connection = amqp.Connection(f"127.0.0.1:{server.port}", confirm_publish=True)
        self.connection.connect()
        self.channel = self.connection.channel()
        self._collectors: list[Queues] = []

    def queues(self, **table: Any) -> Queues:
        """Return the collector `queues` of this table."""
        options = read_table(Options, {"url": self.server.url, **table}, key="plugins.rabbitmq")
        self._collectors.append(Queues(options))
        return self._collectors[-1]

    def declare(self, *names: str, **arguments: Any) -> None:
        for name in names:
            self.channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)

    def publish(self, name: str, count: int = 1, **properties: Any) -> None:
        for _ in range(count):
            message = amqp.Message("task", delivery_mode=2, **properties)
            self.channel.basic_publish(message, routing_key=name)

    def close(self) -> None:
        self.connection.close()
        for collector in self._collectors:
            collector.close()


@pytest.fixture
def bench(server: RabbitServer) -> Iterator[Bench]:
    bench = Bench(server)
    yield bench
    bench.close()


@pytest.fixture(params=["http", "amqp"])
def url(request: pytest.FixtureRequest, server: RabbitServer) -> str:
    """Both ways to ask."""
    return server.url if request.param == "http" else f"amqp://127.0.0.1:{server.port}"


def partial(queues: Queues) -> tuple[dict[str, int], list[str]]:
    """Collect and return the known depths and the errors; all of them, where nothing is known."""
    try:
        found = queues.collect()
    except ConnectionError as error:
        return {}, [str(error)]
    known = {o.topic: o.depth for o in found if isinstance(o, QueueDepth)}
    return known, [str(o) for o in found if isinstance(o, Exception)]


def become(queues: Queues, expected: dict[str, int]) -> None:
    """Wait for the figures, which the management API brings up to date from time to time."""
    wait_until(lambda: partial(queues) == (expected, []), what=f"{expected}")
    checked = Guard().check(queues.collect())
    assert checked.rejected == ()


def elsewhere(server: RabbitServer, code: str) -> None:
    """Run code with a channel `c` in another process."""
    program = (
        f"import amqp\nconnection = amqp.Connection('127.0.0.1:{server.port}')\nconnection.connect()\n"
        f"c = connection.channel()\n{code}\nconnection.close()\n"
    )
    subprocess.run((sys.executable, "-c", program), check=True)


def test_queues_that_other_processes_fill_and_drain(bench: Bench, url: str) -> None:
    bench.declare("fd.tasks", "fd.more", "fd.idle")
    bench.declare("fd.quorum", **{"x-queue-type": "quorum"})
    queues = bench.queues(
        url=url,
        queues={
            "worker": ["fd.tasks", "fd.more", "fd.tasks"],
            "judge": ["fd.quorum"],
            "planner": ["fd.idle"],
        },
    )
    fill = """
for name, count in (("fd.tasks", 7), ("fd.more", 2), ("fd.quorum", 5)):
    for _ in range(count): c.basic_publish(amqp.Message("task"), routing_key=name)
"""
    elsewhere(bench.server, fill)
    become(queues, {"worker": 9, "judge": 5, "planner": 0})
    drain = """
for name, count in (("fd.tasks", 4), ("fd.more", 2), ("fd.quorum", 5)):
    for _ in range(count): c.basic_ack(c.basic_get(name).delivery_tag)
"""
    elsewhere(bench.server, drain)
    become(queues, {"worker": 3, "judge": 0, "planner": 0})
    bench.channel.queue_purge("fd.tasks")


def test_readings_hold_while_others_fill_and_drain(bench: Bench, url: str) -> None:
    bench.declare("live")
    bench.channel.queue_purge("live")
    queues = bench.queues(url=url, queues={"worker": ["live"]})
    become(queues, {"worker": 0})
    # Fills up to 40 and drains down to 0, four times, then leaves 9.
    program = """
for up, down in ((40, 40),) * 4 + ((9, 0),):
    for _ in range(up): c.basic_publish(amqp.Message("task"), routing_key="live")
    for _ in range(down):
        while (message := c.basic_get("live", no_ack=True)) is None: pass
"""
    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(elsewhere, bench.server, program)
        while not work.done():
            seen.append(partial(queues)[0]["worker"])
        work.result()
    assert seen
    assert all(0 <= depth <= 40 for depth in seen)
    become(queues, {"worker": 9})


def test_a_stream_is_no_backlog(bench: Bench) -> None:
    bench.declare("log", **{"x-queue-type": "stream"})
    bench.declare("log.beside")
    queues = bench.queues(queues={"bad": ["log"], "good": ["log.beside"]})
    wait_until(lambda: partial(queues)[0], what="the first figures")
    known, (error,) = partial(queues)
    assert known == {"good": 0}
    assert error == "topic 'bad': 'log' is a stream, which keeps what was read: its length is no backlog"


def test_it_passes_the_conformance_kit(bench: Bench, url: str) -> None:
    bench.declare("conforming")
    scheme = url.partition(":")[0]
    port = bench.server.management_port if scheme == "http" else bench.server.port
    with DelayProxy(port) as proxy:

        @contextmanager
        def silence() -> Iterator[None]:
            proxy.freeze()
            yield
            proxy.thaw()

        table = {"url": f"{scheme}://127.0.0.1:{proxy.port}", "queues": {"worker": ["conforming"]}}
        become(bench.queues(url=url, queues=table["queues"]), {"worker": 0})
        report = check_plugin("rabbitmq", {"rabbitmq": table}, runs=12)
        assert [failures(found) for found in (report.findings, *report.collectors.values())] == [(), ()]
        queues = Queues(read_table(Options, {**table, "timeout": 3.0}, key=""))
        findings = check_collector(queues, runs=8, break_source=silence)
        assert failures(findings) == ()


def test_a_missing_queue_costs_its_own_topic_and_the_remedy_is_named(bench: Bench, url: str) -> None:
    bench.declare("there")
    queues = bench.queues(url=url, queues={"worker": ["there"], "judge": ["missing"], "more": ["missing2"]})
    wait_until(lambda: partial(queues)[0] == {"worker": 0}, what="the first figures")
    known, errors = partial(queues)
    assert known == {"worker": 0}
    assert errors == [
        f"topic {topic!r}: there is no queue {queue!r} in virtual host '/': declare it, or name it by a "
        "pattern where it may come and go"
        for topic, queue in (("judge", "missing"), ("more", "missing2"))
    ]
    with pytest.raises(ConnectionError, match="there is no queue 'missing'"):
        bench.queues(url=url, queues={"judge": ["missing"]}).collect()


def test_patterns_find_queues_by_their_exact_names(bench: Bench) -> None:
    names = ("pt.a", "pt.b", "PT.c", "ptx", "pt.", "pt.ü", "lit*eral", "litXeral")
    bench.declare(*names)
    for count, name in enumerate(names, start=1):
        bench.publish(name, count)
    queues = bench.queues(
        queues={
            "all": ["pt.*", "pt.a"],
            "one": ["pt.?"],
            "odd": [r"lit\*eral"],
            "none": ["nothing.*"],
        }
    )
    become(queues, {"all": 1 + 2 + 5 + 6, "one": 1 + 2 + 6, "odd": 7, "none": 0})
    narrow = bench.queues(queues={"all": ["pt.*"], "plain": ["ptx"]}, max_queues=3)
    known, errors = partial(narrow)
    assert known == {"plain": 4}
    assert errors == ["topic 'all': the patterns find more than max_queues = 3 queues"]


def test_one_request_reads_all_queues_and_many_take_few(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"many.{'n' * 60}.{number}" for number in range(120)]
    bench.declare(*names)
    bench.publish(names[0], 2)
    bench.publish(names[-1], 3)
    asked: list[str] = []

    def watched(queues: Queues) -> Queues:
        source = queues._source
        assert isinstance(source, management.Management)
        source._http(httpx).event_hooks["request"].append(lambda request: asked.append(str(request.url)))
        return queues

    one = watched(bench.queues(queues={"worker": names[:10], "judge": ["many.*"]}))
    become(one, {"worker": 2, "judge": 5})
    asked.clear()
    one.collect()
    assert len(asked) == 1
    # More names than one expression may hold.
    several = watched(bench.queues(queues={"worker": names}))
    become(several, {"worker": 5})
    asked.clear()
    several.collect()
    assert len(asked) == 9
    assert max(len(httpx.URL(url).params["name"]) for url in asked) <= 1024
    # More queues than one page may hold.
    monkeypatch.setattr(management, "_PAGE_SIZE", 50)
    paged = watched(bench.queues(queues={"judge": ["many.*"]}))
    asked.clear()
    assert partial(paged) == ({"judge": 5}, [])
    assert [httpx.URL(url).params["page"] for url in asked] == ["1", "2", "3"]
    for name in names:
        bench.channel.queue_delete(name)


def test_unacknowledged_messages_consumers_and_busy_workers(bench: Bench) -> None:
    bench.declare("un.tasks")
    bench.publish("un.tasks", 5)
    bench.declare("un.idle")
    for name in ("un.tasks", "un.tasks", "un.idle"):
        channel = bench.connection.channel()
        channel.basic_qos(0, 1, a_global=False)
        channel.basic_consume(name, callback=lambda _: None)
    table: dict[str, Any] = {"queues": {"worker": ["un.tasks", "un.idle"]}, "workers_from": "worker"}
    both = bench.queues(**table, count_unacknowledged=True)
    become(both, {"worker": 5})
    wait_until(lambda: Capacity("workers", 3) in both.collect(), what="three consumers")
    wait_until(lambda: Capacity("available_slots", 1) in both.collect(), what="two busy consumers")
    become(bench.queues(**table), {"worker": 3})
    # AMQP does not tell which messages are unacknowledged, so nobody counts as busy.
    by_amqp = bench.queues(url=f"amqp://127.0.0.1:{bench.server.port}", **table)
    assert by_amqp.collect() == [
        QueueDepth("worker", 3),
        Capacity("workers", 3),
        Capacity("available_slots", 3),
    ]


def test_the_oldest_message_has_an_age_where_its_publisher_dated_it(bench: Bench) -> None:
    now = int(time.time())
    bench.declare("age.dated", "age.undated", "age.future")
    bench.publish("age.dated", timestamp=now - 500)
    bench.publish("age.dated", timestamp=now - 5)
    bench.publish("age.undated")
    bench.publish("age.future", timestamp=now * 1000)
    topics = {"dated": ["age.dated"], "both": ["age.dated", "age.undated"], "future": ["age.future"]}
    queues = bench.queues(queues=topics)
    become(queues, {"dated": 2, "both": 3, "future": 1})

    def ages() -> dict[str, float | None]:
        return {o.topic: o.oldest_age for o in queues.collect() if isinstance(o, QueueDepth)}

    wait_until(lambda: ages()["dated"], what="the oldest message's time")
    assert ages() == {"dated": pytest.approx(500, abs=60), "both": None, "future": None}


def test_a_new_queue_without_figures_is_unknown_and_not_zero(bench: Bench) -> None:
    queues = bench.queues(queues={"worker": ["new.queue"]})
    bench.declare("new.queue")
    bench.publish("new.queue", 2)
    seen = {depth for depth in (partial(queues)[0].get("worker") for _ in range(5)) if depth is not None}
    assert seen <= {2}
    become(queues, {"worker": 2})


def test_a_queue_whose_node_is_down_is_unknown() -> None:
    queues = {"a": rabbitmq.Figures(ready=0), "b": rabbitmq.Figures(ready=3, state="down")}
    with pytest.raises(rabbitmq.TopicError, match="queue 'b' is down"):
        queues_._depth("worker", queues, unacknowledged=False)


def test_an_exclusive_queue_of_another_connection_is_named(bench: Bench) -> None:
    bench.declare("ex.plain")
    bench.channel.queue_declare("ex.clusive", exclusive=True)
    queues = bench.queues(
        url=f"amqp://127.0.0.1:{bench.server.port}", queues={"judge": ["ex.clusive"], "worker": ["ex.plain"]}
    )
    known, errors = partial(queues)
    assert known == {"worker": 0}
    assert "topic 'judge': queue 'ex.clusive': RESOURCE_LOCKED" in errors[0]
    assert partial(queues)[0] == {"worker": 0}


def test_a_server_that_is_slow_or_silent_is_given_up_and_comes_back(bench: Bench, url: str) -> None:
    bench.declare("slow")
    scheme = url.partition(":")[0]
    port = bench.server.management_port if scheme == "http" else bench.server.port
    with DelayProxy(port) as proxy:
        queues = bench.queues(
            url=f"{scheme}://127.0.0.1:{proxy.port}", queues={"worker": ["slow"]}, timeout=3.0
        )
        become(queues, {"worker": 0})
        proxy.delay = 0.2
        become(queues, {"worker": 0})
        proxy.delay = 5
        with pytest.raises(
            TimeoutError, match=r"^RabbitMQ at .* gave no answer within timeout = 3 s: look after"
        ):
            queues.collect()
        proxy.delay = 0
        become(queues, {"worker": 0})
        proxy.freeze()
        for _ in range(2):
            with pytest.raises(TimeoutError, match="gave no answer within timeout = 3 s"):
                queues.collect()
        proxy.thaw()
        become(queues, {"worker": 0})
        proxy.cut()  # as a restart of the server between two collections does
        become(queues, {"worker": 0})
        queues.close()


@pytest.fixture
def secret(tmp_path: Path, server: RabbitServer, url: str) -> Iterator[Path]:
    """A file with a wrong password; the right one is `right`, for `watcher`, who may do the least."""
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    server.http.put("/users/watcher", json={"password": "right", "tags": "monitoring"}).raise_for_status()
    least = {"configure": "^$", "write": "^$", "read": "^guarded$" if url.startswith("amqp") else "^$"}
    server.http.put("/permissions/%2F/watcher", json=least).raise_for_status()
    yield secret
    server.http.delete("/users/watcher").raise_for_status()


def test_a_wrong_password_is_one_clear_line_and_the_file_is_read_again(
    bench: Bench, url: str, secret: Path
) -> None:
    bench.declare("guarded")
    queues = bench.queues(
        url=url, username="watcher", password_file=str(secret), queues={"worker": ["guarded"]}
    )
    with pytest.raises(PermissionError) as caught:
        queues.collect()
    text = str(caught.value)
    assert text.startswith(f"RabbitMQ at {url} refuses user 'watcher': check username, password_file")
    assert "hunter2" not in text
    assert "\n" not in text
    secret.write_text("right\n")
    become(queues, {"worker": 0})
    bench.server.http.put("/users/watcher", json={"password": "other", "tags": ""}).raise_for_status()
    if url.startswith("http"):
        with pytest.raises(PermissionError, match="refuses user 'watcher'"):
            queues.collect()
    secret.unlink()
    queues.close()
    with pytest.raises(PermissionError, match=r"password_file .* cannot be read: No such file"):
        queues.collect()


def test_another_virtual_host(bench: Bench, url: str) -> None:
    bench.server.http.put("/vhosts/chimera%2Fa").raise_for_status()
    bench.server.http.put("/queues/chimera%2Fa/only.here", json={}).raise_for_status()
    become(bench.queues(url=url, vhost="chimera/a", queues={"worker": ["only.here"]}), {"worker": 0})
    with pytest.raises(OSError, match="'nowhere'"):
        bench.queues(url=url, vhost="nowhere", queues={"worker": ["only.here"]}).collect()


def test_tls_checks_the_server_against_the_configured_ca(bench: Bench, pki: Pki) -> None:
    bench.declare("tls")
    for url in (
        f"https://localhost:{bench.server.management_tls_port}",
        f"amqps://localhost:{bench.server.tls_port}",
    ):
        become(bench.queues(url=url, ca=str(pki.ca), queues={"worker": ["tls"]}), {"worker": 0})
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            bench.queues(url=url, queues={"worker": ["tls"]}).collect()
        wrong_name = url.replace("localhost", "127.0.0.2")
        with pytest.raises(ConnectionError, match=r"refused|certificate|mismatch"):
            bench.queues(url=wrong_name, ca=str(pki.ca), queues={"worker": ["tls"]}).collect()
    with pytest.raises(ConnectionError, match=r"ca .*none\.pem cannot be used: No such file"):
        bench.queues(
            url="https://localhost:1", ca=str(pki.ca.with_name("none.pem")), queues={"worker": ["tls"]}
        ).collect()


def test_the_other_protocols_port_is_said(bench: Bench) -> None:
    url = f"http://127.0.0.1:{bench.server.port}"
    with pytest.raises(ConnectionError, match=r"^RabbitMQ at .* cannot be read"):
        bench.queues(url=url, queues={"worker": ["a"]}).collect()


def test_an_answer_that_is_not_the_management_apis_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = bench.queues(queues={"worker": ["a"]})
    for answer, text in (
        (httpx.Response(200, json={"items": [[]]}), "not the management API's"),
        (httpx.Response(503), "HTTP status 503"),
    ):
        monkeypatch.setattr(httpx.Client, "get", lambda *_, answer=answer, **__: answer)
        with pytest.raises(ConnectionError, match=text):
            queues.collect()


def test_a_stopped_server_is_unknown_and_comes_back_without_a_restart(bench: Bench) -> None:
    bench.declare("lasting")
    bench.publish("lasting", 3)
    ways = [
        bench.queues(queues={"worker": ["lasting"]}),
        bench.queues(url=f"amqp://127.0.0.1:{bench.server.port}", queues={"worker": ["lasting"]}),
    ]
    for queues in ways:
        become(queues, {"worker": 3})
    bench.server.stop()
    for queues in ways * 2:
        with pytest.raises(
            ConnectionError, match=r"RabbitMQ at \S+ cannot be read \(.*refused.*\): check url"
        ):
            queues.collect()
    bench.server.start()
    for queues in ways:
        become(queues, {"worker": 3})
    bench.connection.collect()


@pytest.mark.parametrize(
    ("table", "key", "text"),
    [
        ({"url": "redis://host"}, "url", "http://host:15672"),
        ({"url": "http://:15672"}, "", "no usable host"),
        ({"url": "http://host:x"}, "", "no usable host"),
        ({"url": "http://me:hunter2@host"}, "", "username and password_file"),
        ({"url": "amqp://host/vhost"}, "", "belongs into vhost"),
        ({"url": "amqp://host", "queues": {"a": ["b*"]}}, "", "needs the management API"),
        ({"url": "amqp://host", "count_unacknowledged": True}, "", "needs the management API"),
        ({"username": "me"}, "", "needs a password_file"),
        ({"workers_from": "a"}, "", "no topic in queues"),
        ({"queues": {"two words": ["a"]}}, "queues.two words", "1 to 64 characters"),
        ({"queues": {"worker": "a"}}, "queues.worker", "a list"),
        ({"timeout": 0}, "timeout", "above 0"),
    ],
)
def test_a_wrong_table_is_named(table: dict[str, Any], key: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(Options, table, key="")
    (problem,) = caught.value.problems
    assert problem.key == key
    assert text in str(problem)
    assert "hunter2" not in str(problem)


def test_the_plugin_loads_and_does_nothing_without_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_plugins({}, only={"rabbitmq"})
    assert (loaded.collectors, loaded.failures) == ((), ())
    table = {"rabbitmq": {"url": "amqp://localhost", "queues": {"worker": ["a"]}}}
    assert [c.name for c in load_plugins(table, only={"rabbitmq"}).collectors] == ["queues"]
    monkeypatch.setattr(rabbitmq, "find_spec", lambda _: None)
    (failure,) = load_plugins(table, only={"rabbitmq"}).failures
    assert "install openclaw-exporter-rabbitmq[amqp]" in failure.message


def test_every_option_is_documented() -> None:
    assert [info.key for info in describe(Options) if not info.description] == []
