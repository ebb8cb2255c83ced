"""The http_json plugin against real HTTP and HTTPS servers."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.errors import ConfigError
from openclaw_exporter.plugin import Capacity, Measurement, QueueDepth, Tag, Uptime
from openclaw_exporter.plugin.guard import Guard
from openclaw_exporter.plugin.host import load_plugins
from openclaw_exporter.plugin.options import describe, read_table
from openclaw_exporter_http_json import FieldError, Options, Page, Source
from openclaw_exporter_http_json.chimera import read_chimera
from openclaw_exporter_http_json.reading import Reading
from support.proxy import DelayProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Files, Pki


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        site = self.server
        site.requests.append((self.path, self.headers.get("Authorization", "")))
        if site.location:
            self.send_response(302)
            self.send_header("Location", site.location.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        refused = site.token and self.headers.get("Authorization") != f"Bearer {site.token}"
        self.send_response(401 if refused else site.status)
        if site.chunks is not None:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._drip(site.chunks)
            return
        self.send_header("Content-Length", str(len(site.body)))
        self.end_headers()
        self.wfile.write(site.body)

    def _drip(self, chunks: int) -> None:
        """Send chunks without an end, until nobody listens any more."""
        try:
            for _ in range(chunks):
                self.wfile.write(b"1\r\n \r\n")
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass


class Site(ThreadingHTTPServer):
    """A server of one page."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.context = context
        self.body = b"{}"
        self.status = 200
        self.token = ""
        self.location: list[str] = []
        self.chunks: int | None = None
        self.requests: list[tuple[str, str]] = []
        self.connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.server_port}/status"

    def says(self, page: object) -> None:
        self.body = json.dumps(page).encode()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off is what some tests are about."""

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


class Browser:
    """Makes pages that are closed afterwards."""

    def __init__(self) -> None:
        self._pages: list[Page] = []

    def page(self, url: str, **table: Any) -> Page:
        self._pages.append(Page("page", read_table(Options, {"url": url, **table}, key="plugins.http_json")))
        return self._pages[-1]

    def close(self) -> None:
        for page in self._pages:
            page.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


def known(page: Page) -> tuple[Any, ...]:
    """Collect through the host's edge; nothing may be refused."""
    checked = Guard().check(page.collect())
    assert checked.rejected == ()
    return checked.observations


def partial(page: Page) -> tuple[set[Any], list[str]]:
    """Collect and return what is known and the errors of single fields."""
    found = page.collect()
    problems = [item for item in found if isinstance(item, Exception)]
    assert all(isinstance(problem, FieldError) for problem in problems)
    return {item for item in found if not isinstance(item, Exception)}, [str(p) for p in problems]


def test_pointers_map_fields_onto_every_observation(site: Site, browser: Browser) -> None:
    site.says(
        {
            "pool": {"size": 8, "free": 3},
            "queues": [{"depth": 5, "oldest": 2.5}, {"depth": 0}],
            "up": 3_600,
            "region": "eu",
            "a/b": {"m~n": 0.25},
        }
    )
    page = browser.page(
        site.url,
        capacity={"workers": "/pool/size", "available_slots": "/pool/free"},
        queue_depth={"tasks": "/queues/0/depth", "review": "/queues/1/depth"},
        oldest_age={"tasks": "/queues/0/oldest", "review": "/queues/1/oldest"},
        uptime="/up",
        tags={"region": "/region"},
        measurements=[
            {"name": "app.load.ratio", "pointer": "/a~1b/m~0n", "unit": "1", "attributes": {"app.part": "x"}}
        ],
    )
    assert known(page) == (
        Capacity("workers", 8),
        Capacity("available_slots", 3),
        QueueDepth("tasks", 5, 2.5),
        QueueDepth("review", 0),
        Uptime(3_600),
        Tag("region", "eu"),
        Measurement("app.load.ratio", 0.25, "1", "gauge", {"app.part": "x"}),
    )


def test_depths_follow_the_page_over_one_kept_connection(site: Site, browser: Browser) -> None:
    page = browser.page(site.url, queue_depth={"tasks": "/n"})
    for depth in (7, 0, 3):
        site.says({"n": depth})
        assert known(page) == (QueueDepth("tasks", depth),)
    assert len(site.connections) == 1


RFC_6901 = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC_6901),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/-", None),
        ("/foo/2", None),
        ("/foo/01", None),
        ("/foo/\u0661", None),
        ("/foo/0/x", None),
        ("/none/x", None),
    ],
)
def test_pointers_are_those_of_rfc_6901(pointer: str, value: object) -> None:
    """The table of section 5, and what section 4 calls nonexistent."""
    assert Reading(RFC_6901).value(pointer) == value


@pytest.mark.parametrize("pointer", ["depth", "/a~", "/a~2b"])
def test_what_is_no_pointer_is_refused_with_its_key(pointer: str) -> None:
    with pytest.raises(ConfigError, match=r"queue_depth\.a: got .*allowed: a JSON pointer such as"):
        read_table(Options, {"url": "http://h/", "queue_depth": {"a": pointer}}, key="plugins.http_json")


@pytest.mark.parametrize(
    ("value", "kind"),
    [("5", "a text"), (True, "true or false"), ([5], "a list"), ({"n": 5}, "a table"), (5.5, "a number")],
)
def test_a_field_of_another_type_costs_itself_and_its_value_is_not_told(
    site: Site, browser: Browser, value: object, kind: str
) -> None:
    site.says({"n": value, "m": 5})
    found, errors = partial(browser.page(site.url, queue_depth={"bad": "/n", "good": "/m"}))
    assert found == {QueueDepth("good", 5)}
    wanted = "a whole number" if kind == "a number" else "a number"
    assert errors == [f"/n is {kind}, not {wanted}"]


def test_null_and_missing_are_unknown_and_never_zero(site: Site, browser: Browser) -> None:
    site.says({"n": None, "m": 5.0})
    page = browser.page(site.url, queue_depth={"a": "/n", "b": "/none", "c": "/m"}, oldest_age={"c": "/n"})
    assert known(page) == (QueueDepth("c", 5),)
    site.says({"n": None})
    with pytest.raises(ValueError, match=r"no field of http://.* can be used: every one is missing or null"):
        page.collect()
    site.says({"m": "secret"})
    with pytest.raises(ValueError, match=r"can be used: /m is a text, not a number$"):
        page.collect()


def test_a_value_out_of_range_is_refused_at_the_hosts_edge(site: Site, browser: Browser) -> None:
    site.says({"n": -1, "m": 1})
    checked = Guard().check(browser.page(site.url, queue_depth={"a": "/n", "b": "/m"}).collect())
    assert checked.observations == (QueueDepth("b", 1),)
    assert [rejection.reason for rejection in checked.rejected] == ["range"]


@pytest.mark.parametrize(
    "page",
    [
        {"workers": 8, "workers_free": 2},
        {"workers": 8, "available_capacity": 2},
        {"workers": 8, "available_slots": 2, "load": 0.1},
        {"workers": 8, "load": 0.75},
        {"capacity": {"workers": 8, "available_slots": 2}},
        {"capacity": {"workers": 8}, "load": 0.75, "status": "available"},
        {"workers": 8, "workers_free": 2, "status": "busy"},
    ],
)
def test_chimeras_names_of_free_slots_mean_the_same(
    site: Site, browser: Browser, page: dict[str, Any]
) -> None:
    site.says(page)
    found = set(known(browser.page(site.url, mapping="chimera")))
    assert found == {Capacity("workers", 8), Capacity("available_slots", 2)}


@pytest.mark.parametrize(
    "page",
    [
        {"workers": 8, "status": "busy"},
        {"workers": 8, "status": "offline", "workers_free": 8},
        {"capacity": {"workers": 8, "available_slots": 8}, "status": "offline"},
    ],
)
def test_a_busy_or_offline_agent_has_no_free_slot(site: Site, browser: Browser, page: dict[str, Any]) -> None:
    site.says(page)
    found = set(known(browser.page(site.url, mapping="chimera")))
    assert found == {Capacity("workers", 8), Capacity("available_slots", 0)}


def test_the_chimera_mapping_reads_a_whole_page_and_a_heartbeat(site: Site, browser: Browser) -> None:
    site.says({"agent_id": "worker-7", "queue_depth": 12, "status": "available", "uptime_seconds": 60})
    assert set(known(browser.page(site.url, mapping="chimera", topic="tasks"))) == {
        Tag("agent_id", "worker-7"),
        QueueDepth("tasks", 12),
        Uptime(60),
    }
    site.says(
        {
            "node_id": "n1",
            "capacity": {"workers": 4, "available_slots": 1, "gpu_memory": 80.5},
            "queue_depth": {"planner": 3, "a/b~c": 1},
            "tags": ["region:eu", "kind:worker", "malformed"],
        }
    )
    found, errors = partial(browser.page(site.url, mapping="chimera"))
    assert errors == []
    assert found == {
        *(Capacity("workers", 4), Capacity("available_slots", 1), Capacity("gpu_memory", 80.5)),
        *(QueueDepth("planner", 3), QueueDepth("a/b~c", 1)),
        *(Tag("region", "eu"), Tag("kind", "worker")),
    }


def test_a_bad_field_of_the_mapping_costs_itself(site: Site, browser: Browser) -> None:
    site.says(
        {"workers": "8", "workers_free": 2, "status": "sleepy", "queue_depth": [1], "load": 3, "tags": 1}
    )
    found, errors = partial(browser.page(site.url, mapping="chimera"))
    assert found == {Capacity("available_slots", 2)}
    assert sorted(errors) == [
        "/queue_depth is a list, not a table",
        "/status is none of available, busy, offline",
        "/tags is a number, not a table",
        "/workers is a text, not a number",
    ]
    site.says({"workers": 8, "load": 1.5})
    assert partial(browser.page(site.url, mapping="chimera"))[1] == ["/load is not between 0 and 1"]


def test_a_pointer_wins_over_the_mapping(site: Site, browser: Browser) -> None:
    site.says({"workers": 8, "pool": 6, "queue_depth": {"a": 1}, "real": 9})
    page = browser.page(
        site.url, mapping="chimera", capacity={"workers": "/pool"}, queue_depth={"a": "/real"}
    )
    assert set(known(page)) == {Capacity("workers", 6), QueueDepth("a", 9)}


def now(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize("name", ["timestamp", "updated_at", "last_heartbeat"])
def test_a_page_older_than_max_age_is_unknown(site: Site, browser: Browser, name: str) -> None:
    page = browser.page(site.url, mapping="chimera", max_age=60)
    site.says({name: now(30), "workers": 8})
    assert known(page) == (Capacity("workers", 8),)
    site.says({name: now(90), "workers": 8})
    with pytest.raises(ValueError, match=r"is 90 s old, beyond max_age = 60"):
        page.collect()


def test_a_page_from_the_future_would_never_be_stale(site: Site, browser: Browser) -> None:
    site.says({"timestamp": time.time() + 3_600, "workers": 8})
    with pytest.raises(ValueError, match="has a time in the future"):
        browser.page(site.url, mapping="chimera", max_age=60).collect()


@pytest.mark.parametrize(
    "made", [pytest.param(10**400, id="huge"), None, "yesterday", "2026-01-01T00:00:00", True, {}]
)
def test_a_page_that_does_not_tell_its_age_is_unknown(site: Site, browser: Browser, made: object) -> None:
    site.says({"at": made, "n": 1})
    page = browser.page(site.url, queue_depth={"a": "/n"}, timestamp="/at", max_age=60)
    with pytest.raises(ValueError, match=r"does not tell when it was made, at /at$"):
        page.collect()
    site.says({"at": time.time() - 5, "n": 1})
    assert known(page) == (QueueDepth("a", 1),)


def test_a_server_that_is_away_is_unknown_and_comes_back_without_a_restart(browser: Browser) -> None:
    site = Site()
    site.says({"n": 1})
    url, port = site.url, site.server_port
    page = browser.page(url, queue_depth={"a": "/n"})
    assert known(page) == (QueueDepth("a", 1),)
    site.close()
    for _ in range(2):
        with pytest.raises(ConnectionError, match=rf"http://127\.0\.0\.1:{port}/status cannot be read"):
            page.collect()
    again = Site(port=port)
    again.says({"n": 2})
    assert known(page) == (QueueDepth("a", 2),)
    again.close()


def test_a_kept_connection_that_the_server_closed_costs_nothing(site: Site, browser: Browser) -> None:
    site.says({"n": 1})
    page = browser.page(site.url, queue_depth={"a": "/n"})
    known(page)
    site.connections[0].shutdown(socket.SHUT_RDWR)
    assert known(page) == (QueueDepth("a", 1),)
    assert len(site.connections) == 2


def test_a_slow_or_silent_server_is_given_up_and_comes_back(site: Site, browser: Browser) -> None:
    site.says({"n": 1})
    with DelayProxy(site.server_port) as proxy:
        page = browser.page(f"http://127.0.0.1:{proxy.port}/status", queue_depth={"a": "/n"}, timeout=2.0)
        assert known(page) == (QueueDepth("a", 1),)
        proxy.delay = 5
        with pytest.raises(TimeoutError, match=r"gave no answer within 2 s"):
            page.collect()
        proxy.delay = 0
        proxy.freeze()
        with pytest.raises(TimeoutError, match=r"gave no answer within 2 s"):
            page.collect()
        proxy.thaw()
        assert known(page) == (QueueDepth("a", 1),)


def test_a_body_that_never_ends_is_cut_off_by_time_and_by_size(site: Site, browser: Browser) -> None:
    site.chunks = 500
    page = browser.page(site.url, queue_depth={"a": "/n"}, timeout=2.0)
    with pytest.raises(TimeoutError, match=r"was not whole within 2 s"):
        page.collect()
    site.chunks = None
    site.says({"n": 1, "padding": "x" * 2_000})
    small = browser.page(site.url, queue_depth={"a": "/n"}, max_bytes=1_000)
    with pytest.raises(ValueError, match="is larger than max_bytes = 1000"):
        small.collect()
    assert known(page) == (QueueDepth("a", 1),)


@pytest.mark.parametrize(
    "body", [b"", b"<html>secret</html>", b'{"n": 1', b'{"n": NaN}', b"\xff", b"[" * 50_000]
)
def test_what_is_no_json_is_said_without_showing_it(site: Site, browser: Browser, body: bytes) -> None:
    site.body = body
    with pytest.raises(ValueError, match=r"^http://127\.0\.0\.1:\d+/status is no JSON$"):
        browser.page(site.url, queue_depth={"a": "/n"}).collect()


def test_headers_that_never_end_are_cut_off(browser: Browser) -> None:
    """Each piece comes in time, and the whole never."""

    def drip() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=drip)
        server.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(TimeoutError, match=r"gave no answer within 0\.2 s"):
            browser.page(url, queue_depth={"a": "/n"}, timeout=0.2).collect()
        server.join()


@pytest.mark.parametrize("status", [204, 404, 500, 503])
def test_another_status_is_unknown(site: Site, browser: Browser, status: int) -> None:
    site.status = status
    with pytest.raises(ConnectionError, match=f"answers {status}$"):
        browser.page(site.url, mapping="chimera").collect()


def test_redirects_stay_on_the_host_and_end(site: Site, browser: Browser, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("abc\n")
    site.says({"n": 1})
    page = browser.page(site.url, queue_depth={"a": "/n"}, token_file=str(secret))
    site.location = ["/other", "elsewhere"]
    assert known(page) == (QueueDepth("a", 1),)
    assert site.requests == [(path, "Bearer abc") for path in ("/status", "/other", "/elsewhere")]
    other = Site()
    for foreign in (
        other.url,
        site.url.replace("127.0.0.1", "localhost"),
        site.url.replace("http:", "https:"),
    ):
        site.location = [foreign]
        with pytest.raises(ConnectionError, match="redirects to another host, which is not followed"):
            page.collect()
    other.close()
    assert other.requests == []
    site.location = ["/loop"] * 10
    with pytest.raises(ConnectionError, match="redirects more than 3 times"):
        page.collect()


def test_the_environments_proxy_is_not_asked(
    site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.says({"n": 1})
    assert known(browser.page(site.url, queue_depth={"a": "/n"})) == (QueueDepth("a", 1),)


def test_a_token_is_read_again_and_never_shown(site: Site, browser: Browser, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("wrong-token")
    site.token = "right-token"  # noqa: S105 - the test's own
    site.says({"n": 1})
    page = browser.page(site.url, queue_depth={"a": "/n"}, token_file=str(secret))
    with pytest.raises(PermissionError, match=r"refuses the credentials \(401\)$") as caught:
        page.collect()
    assert "wrong" not in str(caught.value)
    secret.write_text("right-token\n")
    assert known(page) == (QueueDepth("a", 1),)
    for content in ("", "two words", "with\x00null"):
        secret.write_text(content)
        with pytest.raises(PermissionError, match="holds no usable token"):
            page.collect()
    secret.unlink()
    with pytest.raises(PermissionError, match=r"token_file .*token cannot be read: No such file"):
        page.collect()


def _context(pki: Pki, files: Files, *, client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki.ca)
    return context


def test_https_checks_the_server_and_shows_a_client_certificate(browser: Browser, pki: Pki) -> None:
    site = Site(_context(pki, pki.server(name="status"), client=True))
    site.says({"n": 1})
    node = pki.node("status-reader")
    table: dict[str, Any] = {"queue_depth": {"a": "/n"}, "ca": str(pki.ca)}
    shown = {"certificate": str(node.certificate), "key": str(node.key)}
    assert known(browser.page(site.url, **table, **shown)) == (QueueDepth("a", 1),)
    with pytest.raises(ConnectionError):
        browser.page(site.url, **table).collect()
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        browser.page(site.url, queue_depth={"a": "/n"}).collect()
    with pytest.raises(PermissionError, match=r"ca, certificate or key for https://.*No such file"):
        browser.page(site.url, **{**table, "ca": "/no/such/ca.pem"}).collect()
    site.close()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"url": "ftp://h/"}, "allowed: http://host:port/path"),
        ({"url": "http://"}, "allowed: http://host:port/path"),
        ({"url": "http://h:99999/", "mapping": "chimera"}, "no usable host or port"),
        ({"url": "http://me:hunter2@h/", "mapping": "chimera"}, "set token_file instead"),
        ({"url": "http://h/", "mapping": "chimera", "token_file": "t"}, "token_file needs https"),
        ({"url": "http://h/"}, "nothing is read: set mapping, or pointers"),
        ({"url": "http://h/", "mapping": "chimera", "key": "k"}, "key needs certificate"),
        ({"url": "http://h/", "uptime": "/u", "timestamp": "/t"}, "timestamp needs max_age"),
        ({"url": "http://h/", "uptime": "/u", "max_age": 5}, "max_age needs timestamp"),
        ({"url": "http://h/", "oldest_age": {"a": "/t"}, "uptime": "/u"}, "oldest_age names 'a'"),
        ({"sources": {"a": {"uptime": "/u"}}}, r"sources\.a has no url"),
        ({"sources": {"a": {"url": "http://h/"}}}, "nothing is read"),
        ({"sources": {"A": {"url": "http://h/", "uptime": "/u"}}}, "1 to 63 characters of a-z"),
        ({"url": "http://h/", "uptime": "/u", "queues": {}}, "queues: unknown key"),
    ],
)
def test_wrong_options_are_named_and_no_credential_is_shown(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        read_table(Options, table, key="plugins.http_json")
    assert "hunter2" not in str(caught.value)


def test_each_page_is_a_collector_of_its_own() -> None:
    source = {"url": "https://h:1/s?key=hunter2", "mapping": "chimera"}
    table = {**source, "sources": {"planner": source, "judge": source}}
    loaded = load_plugins({"http_json": table}, only={"http_json"})
    assert loaded.failures == ()
    assert [collector.name for collector in loaded.collectors] == ["page", "planner", "judge"]
    options = read_table(Options, table, key="")
    assert "hunter2" not in repr(options) + options.place
    assert load_plugins({}, only={"http_json"}).collectors == ()


def test_every_key_is_documented_also_those_of_further_pages() -> None:
    documented = {info.key for info in describe(Options) if info.description}
    assert documented == {info.key for info in describe(Options)}
    assert {info.key for info in describe(Source)} <= documented


NAMES = ("workers", "workers_free", "available_capacity", "capacity", "load", "status", "queue_depth", "tags")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES | st.sampled_from([10**400, 1e308, "offline", "busy"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.just("workers"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES) | VALUES)
def test_no_page_breaks_the_mapping(page: object) -> None:
    """Whatever JSON says, each field is an observation that passes, one that is refused, or an error."""
    reading = Reading(page)
    read_chimera(reading, "all")
    checked = Guard().check([*reading.found.values(), *reading.problems])
    assert {rejection.reason for rejection in checked.rejected} <= {"partial", "range", "name", "text"}
