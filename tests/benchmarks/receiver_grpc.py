"""etcd's lease keep-alive over one gRPC stream; its few messages are written by hand (proto3, rpc.proto)."""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import grpc
from receiver_load import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pki import Pki

_TTL_SECONDS = 600
_VARINT = 0x7F


class Leases:
    """Leases, and the stream that keeps them.

    Args:
        pki: The certificates.
        port: etcd's.
        count: How many leases.
        in_flight: How many keep-alives are under way at once.
    """

    def __init__(self, pki: Pki, port: int, count: int, in_flight: int) -> None:
        files = pki.node("00000000-0000-0000-0000-000000000001")
        credentials = grpc.ssl_channel_credentials(
            pki.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
        self._channel = grpc.secure_channel(
            f"127.0.0.1:{port}", credentials, [("grpc.ssl_target_name_override", "localhost")]
        )
        self._in_flight = in_flight
        grant = self._channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        self._ids = list(range(1, count + 1))
        for lease in self._ids:
            grant(_field(1, _TTL_SECONDS) + _field(2, lease), timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def drive(self, seconds: float) -> int:
        """Keep leases alive by turns for some seconds; return how many were.

        Raises:
            WrongAnswerError: A lease was not kept.
        """
        room: SimpleQueue[bool] = SimpleQueue()
        for _ in range(self._in_flight):
            room.put(True)
        end = time.monotonic() + seconds
        keep: Any = self._channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
        count = 0
        for answer in keep(self._requests(room, end)):
            # Field 3, the TTL, is there and not 0.
            if b"\x18" not in answer:
                raise WrongAnswerError(repr(answer))
            count += 1
            room.put(True)
        return count

    def _requests(self, room: SimpleQueue[bool], end: float) -> Iterator[bytes]:
        frames = [_field(1, lease) for lease in self._ids]
        number = 0
        while time.monotonic() < end:
            room.get()
            yield frames[number % len(frames)]
            number += 1


def _field(number: int, value: int) -> bytes:
    encoded = bytearray([number << 3])
    while value > _VARINT:
        encoded.append(value & _VARINT | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
