"""The management API: one request for as many queues as it takes the names of."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from openclaw_exporter_rabbitmq.figures import Figures, Found, TopicError
from openclaw_exporter_rabbitmq.patterns import server_expression
from openclaw_exporter_rabbitmq.trouble import check_status, loss, silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from openclaw_exporter_rabbitmq.options import Options


_PAGE_SIZE: Final = 500
"""The most that the management API gives in one page."""

_MAX_EXPRESSION: Final = 1024
"""Bytes of a regular expression that RabbitMQ takes since 4.3; before, a URL of 8 000 was what limited it."""

_COLUMNS: Final = "name,type,state,messages_ready,messages_unacknowledged,consumers,head_message_timestamp"


class _Item(msgspec.Struct):
    name: str
    type: str = ""
    state: str = ""
    messages_ready: int | None = None
    messages_unacknowledged: int | None = None
    consumers: int | None = None
    head_message_timestamp: object = None  # null or an empty text where it is unknown

    def figures(self) -> Figures:
        head = self.head_message_timestamp
        return Figures(
            self.messages_ready,
            self.messages_unacknowledged,
            self.consumers,
            float(head) if isinstance(head, int) else None,
            self.state,
            self.type,
        )


class _Page(msgspec.Struct):
    items: list[_Item]
    filtered_count: int
    page_count: int


class Management:
    """Asks the management API for a page of the queues whose names match one regular expression."""

    def __init__(self, options: Options, plain: Sequence[str], patterns: Sequence[str]) -> None:
        self._options = options
        self._limit = options.max_queues + len(plain)
        expressions = [re.escape(name) for name in plain]
        self._plain = _batches(expressions)
        self._all = _batches([*expressions, *map(server_expression, patterns)])
        self._client: httpx.Client | None = None
        self._urls: dict[tuple[str, int], httpx.URL] = {}

    def read(self) -> Found:
        """Return the figures: one request, unless there are very many names or found queues."""
        try:
            return Found(self._list(self._all))
        except TopicError as error:
            return Found(self._list(self._plain), error)

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _list(self, batches: Sequence[str]) -> dict[str, Figures]:
        found: dict[str, Figures] = {}
        for batch in batches:
            number = pages = 1
            while number <= pages:
                page = self._page(batch, number)
                if page.filtered_count > self._limit:
                    limit = self._options.max_queues
                    raise TopicError(f"the patterns find more than max_queues = {limit} queues")
                found |= {item.name: item.figures() for item in page.items}
                number, pages = number + 1, page.page_count
        return found

    def _page(self, expression: str, number: int) -> _Page:
        import httpx  # noqa: PLC0415 - the agent's start need not wait for it

        options = self._options
        try:
            answer = self._http(httpx).get(
                self._url(httpx, expression, number), auth=(options.username, options.password())
            )
        except httpx.TimeoutException:
            raise silence(options) from None
        except httpx.HTTPError as error:
            raise loss(options, error) from None
        check_status(answer.status_code, options)
        try:
            return msgspec.json.decode(answer.content, type=_Page)
        except msgspec.MsgspecError:
            raise ConnectionError(f"{options.place}: the answer is not the management API's") from None

    def _url(self, module: Any, expression: str, number: int) -> httpx.URL:
        """Return the address of a page; each is kept, because parsing one costs more than the rest."""
        key = (expression, number)
        if key not in self._urls:
            query = {
                "page": number,
                "page_size": _PAGE_SIZE,
                "name": expression,
                "use_regex": "true",
                "columns": _COLUMNS,
            }
            vhost = quote(self._options.vhost, safe="")
            self._urls[key] = module.URL(f"{self._options.url.rstrip('/')}/api/queues/{vhost}", params=query)
        return self._urls[key]

    def _http(self, module: Any) -> httpx.Client:
        if self._client is None:
            self._client = module.Client(
                verify=_context(self._options),
                timeout=self._options.timeout,
                trust_env=False,
                # Longer than an interval; the API's web server closes a connection after 60 s.
                limits=module.Limits(keepalive_expiry=50),
            )
        return self._client


def _context(options: Options) -> ssl.SSLContext:
    """Return a TLS context; one for plain HTTP is never used, and costs no loading of the system's CAs."""
    if not options.url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        raise ConnectionError(f"ca {options.ca} cannot be used: {error.strerror or error}") from None


def _batches(expressions: Sequence[str]) -> list[str]:
    """Join expressions into as few as RabbitMQ takes."""
    batches: list[list[str]] = []
    room = 0
    for expression in expressions:
        size = len(expression.encode()) + len("|")
        if size > room:
            batches.append([])
            room = _MAX_EXPRESSION - len("^(?:)$")
        batches[-1].append(expression)
        room -= size
    return [f"^(?:{'|'.join(batch)})$" for batch in batches]
