"""A TCP relay that can go dark: bytes vanish, connections stay open, as behind a firewall that drops."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Forwards loopback connections to a port.

    `go_dark` swallows what comes on the connections that are open; new ones are forwarded, unless
    `dark_for_all`.
    `proxy` first answers one CONNECT request, as an HTTP proxy does.
    """

    def __init__(self, port: int, *, proxy: bool = False) -> None:
        self._target = port
        self._proxy = proxy
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._dark: set[int] = set()
        self.dark_for_all = False
        self.connections = 0
        self.requests: list[bytes] = []
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        self._listener.close()

    def go_dark(self) -> None:
        """Swallow everything on the connections that are open now."""
        self._dark.update(range(1, self.connections + 1))

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                near, _ = self._listener.accept()
                self.connections += 1
                self._spawn(self._forward, near, self.connections)

    def _forward(self, near: socket.socket, number: int) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            if self._proxy:
                near.settimeout(60)
                self.requests.append(near.recv(4096))
                near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = threading.Thread(target=self._pump, args=(far, near, number), daemon=True)
            other.start()
            self._pump(near, far, number)
            other.join(60)

    def _pump(self, source: socket.socket, sink: socket.socket, number: int) -> None:
        source.settimeout(0.05)
        while not self._stopping.is_set():
            try:
                piece = source.recv(65_536)
            except TimeoutError:
                continue
            except OSError:
                return
            if not piece:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            if number not in self._dark and not self.dark_for_all:
                with contextlib.suppress(OSError):
                    sink.sendall(piece)
