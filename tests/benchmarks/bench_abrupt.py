"""What connections leave behind in the receiver that end without a good-bye.

    python tests/benchmarks/bench_abrupt.py [--closes N] [--at-once N]

Mutual TLS; each connection is reset (`SO_LINGER` 0) by its client after the handshake, half of them with a
request behind it that nobody reads the answer to. Resident memory is printed before, on the way and after: it
may rise to what the connections of one moment need, and no further.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import psutil
from interpreter import announce
from receiver_load import Beats, Client
from receiver_peers import Peers

from support.pki import Pki

STEPS: Final = 5
RESET: Final = struct.pack("ii", 1, 0)


class Abrupt:
    """A client that hangs up in the middle.

    Args:
        pki: The certificates.
        port: The receiver's.
    """

    def __init__(self, pki: Pki, port: int) -> None:
        self._port = port
        node_id = str(uuid4())
        files = pki.node(node_id)
        self._context = ssl.create_default_context(cafile=str(pki.ca))
        self._context.load_cert_chain(files.certificate, files.key)
        first = Client(pki, node_id, port)
        self._beats = Beats(pki, first, node_id, first_ms=time.time_ns() // 1_000_000)
        first.close()

    def open(self) -> ssl.SSLSocket:
        """Connect and shake hands."""
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        return self._context.wrap_socket(plain, server_hostname="localhost")

    def end(self, connection: ssl.SSLSocket, *, with_request: bool) -> None:
        """Reset it."""
        if with_request:
            connection.sendall(self._beats.next())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()


def mebibytes(pid: int) -> float:
    """Return resident memory."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def main() -> None:
    """Run it."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--closes", type=int, default=10_000)
    arguments.add_argument("--at-once", type=int, default=50)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "pki").mkdir()
        pki = Pki(directory / "pki")
        with Peers(directory, pki).receiver() as (pid, port):
            client = Abrupt(pki, port)
            print(f"resident before: {mebibytes(pid):.1f} MiB", flush=True)
            closed = 0
            for step in range(1, STEPS + 1):
                while closed < chosen.closes * step // STEPS:
                    opened = [client.open() for _ in range(chosen.at_once)]
                    for number, connection in enumerate(opened):
                        client.end(connection, with_request=number % 2 == 0)
                    closed += len(opened)
                time.sleep(2)
                print(f"  after {closed:6} abrupt closes: {mebibytes(pid):.1f} MiB", flush=True)
            left = [one for one in psutil.Process(pid).net_connections("tcp") if one.status == "ESTABLISHED"]
            print(f"  connections that the receiver still holds: {len(left)}")


if __name__ == "__main__":
    announce()
    main()
