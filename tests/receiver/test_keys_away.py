"""An hour without the key server, and ten thousand keys that nobody knows, in virtual time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from receiver.scene import problem, receiver_settings, running

from openclaw_exporter.errors import CredentialError, TokenError
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.key_server import KeyServer
from support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pki import Pki

NODE = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
THUMBPRINT = "A" * 43
START = 1_770_000_000


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def elapsed(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int((START + self.now) * 1000)


@pytest.fixture
def server(pki: Pki) -> Iterator[KeyServer]:
    started = KeyServer(pki.jwks.read_bytes())
    yield started
    started.close()


def minter(pki: Pki, kid: str) -> Minter:
    key = SigningKey.load(pki.token_key.read_bytes(), kid=kid)
    return Minter(key, issuer=pki.issuer, audience=pki.audience)


def ring(pki: Pki, directory: Path, server: KeyServer, clock: Clock) -> KeyRing:
    return KeyRing(receiver_settings(pki, directory, tokens={"jwks": server.url}).tokens, clock)


def test_an_hour_without_the_key_server_refuses_no_valid_token(
    pki: Pki, tmp_path: Path, server: KeyServer
) -> None:
    clock = Clock()
    mint = minter(pki, pki.key_id)

    async def hour() -> None:
        keys = ring(pki, tmp_path, server, clock)
        await keys.open()
        assert server.fetches == 1
        server.document = None
        for second in range(3600):
            clock.now = float(second)
            await keys.refresh()
            if second % 10 == 0:
                token = mint.mint(NODE, thumbprint=THUMBPRINT, now=START + second).text
                assert keys.verifier is not None
                verified = keys.verifier.verify(token, thumbprint=THUMBPRINT, now=START + second)
                assert verified.subject == NODE
        # Every five minutes, for that is how often it asks anyway.
        assert 2 <= server.fetches <= 13
        server.document = pki.jwks.read_bytes()
        clock.now += 300
        await keys.refresh()
        assert keys.verifier is not None
        await keys.close()

    asyncio.run(hour())


def test_ten_thousand_unknown_keys_make_one_fetch_in_thirty_seconds(
    pki: Pki, tmp_path: Path, server: KeyServer
) -> None:
    clock = Clock()

    async def flood() -> None:
        keys = ring(pki, tmp_path, server, clock)
        await keys.open()
        assert keys.verifier is not None
        for number in range(10_000):
            # 100 a second, for 100 seconds.
            clock.now = number / 100
            if number % 100 == 0:
                token = minter(pki, f"unknown-{number}").mint(
                    NODE, thumbprint=THUMBPRINT, now=START + clock.now
                )
                with pytest.raises(TokenError) as refused:
                    keys.verifier.verify(token.text, thumbprint=THUMBPRINT, now=START + clock.now)
                assert refused.value.slug == "token-key-unknown"
            assert not await keys.refresh(unknown=True)
        assert server.fetches <= 1 + 100 // 30
        await keys.close()

    asyncio.run(flood())


def test_a_thousand_at_once_wait_for_the_same_fetch(pki: Pki, tmp_path: Path, server: KeyServer) -> None:
    clock = Clock()

    async def at_once() -> None:
        keys = ring(pki, tmp_path, server, clock)
        await keys.open()
        clock.now = 31.0
        answers = await asyncio.gather(*(keys.refresh(unknown=True) for _ in range(1000)))
        assert not any(answers)
        assert server.fetches == 2
        await keys.close()

    asyncio.run(at_once())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_receiver_that_starts_without_the_key_server_expires_nobody_for_it(
    pki: Pki, tmp_path: Path, server: KeyServer, workers: int
) -> None:
    settings = receiver_settings(pki, tmp_path, tokens={"jwks": server.url}, workers=workers)
    with running(pki, settings) as scene:
        node = scene.node()
        assert node.beat().status_code == 200
    server.document = None
    with running(pki, settings) as scene:
        assert problem(scene.node().beat()) == (503, "store-unavailable")
        reader = scene.reader()

        def expiry() -> datetime:
            shown = reader.get(f"/openclaw/nodes/{node.node_id}").json()
            assert shown["state"] == "up"
            return datetime.fromisoformat(shown["expires_at"])

        # Listening time stands still, so what is left of the node's life does not get less.
        first = expiry()
        wait_until(lambda: expiry() > first + timedelta(seconds=3), timeout=60, what="a later expiry")


def test_what_is_wrong_with_a_key_set_is_told_in_one_line(
    pki: Pki, tmp_path: Path, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.document = None
    asyncio.run(ring(pki, tmp_path, server, Clock()).open())
    (told,) = caplog.messages
    assert told == (
        f"{server.url}: it answered 503; no key is known yet, so all get 503; see receiver.tokens"
    )
    file = tmp_path / "keys.json"
    settings = receiver_settings(pki, tmp_path, tokens={"jwks": str(file)}).tokens
    with pytest.raises(CredentialError, match=r"^\S+keys.json: .*No such file.*; see receiver.tokens$"):
        asyncio.run(KeyRing(settings, Clock()).open())
    file.write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(CredentialError, match=r"^\S+keys.json: not a strict JSON.*; see receiver.tokens$"):
        asyncio.run(KeyRing(settings, Clock()).open())
