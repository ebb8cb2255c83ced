"""A thousand clients that take their time, and one that does not."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from support.command import ReceiverCommand
from support.nodes import PlayedNode

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

SLOW = 1000
HEAD = b"POST /openclaw/availability HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.mark.slow
def test_a_thousand_slow_clients_are_let_go_and_good_ones_go_on(pki: Pki, tmp_path: Path) -> None:
    receiver = ReceiverCommand(tmp_path, pki)
    receiver.start()
    receiver.ready()
    files = pki.node("7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11")
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(files.certificate, files.key)
    good = PlayedNode(pki, receiver.url)
    seconds: list[float] = []
    answers: list[bytes] = []
    ended = asyncio.Event()

    async def drip() -> None:
        reader, writer = await asyncio.open_connection("localhost", receiver.port, ssl=context)
        reading = asyncio.create_task(reader.read())
        try:
            for byte in itertools.chain(HEAD, itertools.repeat(ord("a"))):
                writer.write(bytes([byte]))
                await writer.drain()
                done, _ = await asyncio.wait([reading], timeout=1.0)
                if done:
                    break
        except OSError:
            await asyncio.wait([reading])
        answers.append(b"" if reading.exception() else reading.result())
        writer.transport.abort()

    def beat() -> None:
        _, request = good.next_request()
        started = time.perf_counter()
        assert good.client.post(good.url, **request).status_code == 200
        seconds.append(time.perf_counter() - started)

    async def beats() -> None:
        while not ended.is_set():
            await asyncio.to_thread(beat)
            await asyncio.sleep(0.05)

    async def everybody() -> None:
        going = asyncio.create_task(beats())
        # In waves: a thousand handshakes at once say more of this process than of the receiver.
        waves: list[asyncio.Task[None]] = []
        for _ in range(SLOW // 50):
            waves += [asyncio.create_task(drip()) for _ in range(50)]
            await asyncio.sleep(0.2)
        async with asyncio.timeout(240):
            await asyncio.gather(*waves)
        ended.set()
        await going

    asyncio.run(everybody())
    good.close()
    print(told(seconds, answers))
    receiver.stop()
    assert len(answers) == SLOW
    assert all(answer == b"" or answer.startswith(b"HTTP/1.1 4") for answer in answers)
    assert "Traceback" not in receiver.text()


def told(seconds: list[float], answers: list[bytes]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
    timed_out = sum(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    return (
        f"\n{len(answers)} slow clients let go, {timed_out} of them told 408; {len(seconds)} good heartbeats "
        f"meanwhile, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )
