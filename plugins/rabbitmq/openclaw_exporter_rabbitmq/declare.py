"""AMQP 0-9-1: a passive declare of each queue."""

from __future__ import annotations

import ssl
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openclaw_exporter_rabbitmq.figures import Figures, Found, TopicError
from openclaw_exporter_rabbitmq.trouble import loss, refusal, silence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openclaw_exporter_rabbitmq.options import Options


class Amqp:
    """Asks each queue by a passive declare, on a connection that is kept."""

    def __init__(self, options: Options, names: Sequence[str]) -> None:
        self._options = options
        self._names = names
        self._connection: Any = None
        self._channel: Any = None

    def read(self) -> Found:
        """Return the figures: one round trip for each queue."""
        amqp: Any = import_module("amqp")  # has no types
        options = self._options
        failures = (amqp.AMQPError, OSError)
        password = options.password()
        try:
            if self._connection is not None:
                # A restart of the server has closed the kept connection, which is worth a second try.
                try:
                    return Found(self._declare(amqp))
                except TimeoutError:
                    raise
                except failures:
                    self._drop()
            self._connect(amqp, password)
            return Found(self._declare(amqp))
        except TimeoutError:
            raise silence(options) from None
        except (amqp.AccessRefused, amqp.NotAllowed) as error:
            vhost = f" in virtual host {options.vhost!r}" if isinstance(error, amqp.NotAllowed) else ""
            raise refusal(options, vhost) from None
        except failures as error:
            raise loss(options, error) from None
        finally:
            if self._channel is None:
                self._drop()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        self._drop()

    def _connect(self, amqp: Any, password: str) -> None:
        options = self._options
        parts = urlsplit(options.url)
        tls = parts.scheme == "amqps"
        host = parts.hostname or ""
        port = parts.port or (5671 if tls else 5672)
        secured = {"server_hostname": host, "cert_reqs": ssl.CERT_REQUIRED}
        if options.ca is not None:
            secured["ca_certs"] = str(options.ca)
        self._connection = amqp.Connection(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            userid=options.username,
            password=password,
            login_method="PLAIN",
            virtual_host=options.vhost,
            ssl=secured if tls else False,
            connect_timeout=options.timeout,
            read_timeout=options.timeout,
            write_timeout=options.timeout,
            client_properties={"connection_name": "openclaw-exporter"},
        )
        self._connection.connect()
        self._connection.sock.settimeout(options.timeout)
        self._channel = self._connection.channel()

    def _declare(self, amqp: Any) -> dict[str, Figures | TopicError]:
        found: dict[str, Figures | TopicError] = {}
        channel, self._channel = self._channel, None  # set again where the connection proves usable
        for name in self._names:
            try:
                _, ready, consumers = channel.queue_declare(name, passive=True)
                found[name] = Figures(ready=ready, consumers=consumers)
            except amqp.ChannelError as error:
                channel = self._connection.channel()  # the server has closed the other
                if not isinstance(error, amqp.NotFound):
                    found[name] = TopicError(f"queue {name!r}: {error.reply_text}")
        self._channel = channel
        return found

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.collect()
