"""An hour without the key server, and ten thousand keys that nobody knows, in virtual time."""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from receiver.scene import problem, receiver_settings, running

from openclaw_exporter.errors import CredentialError, StoreUnavailableError, TokenError
from openclaw_exporter.receiver import key_sources
from openclaw_exporter.receiver import keys as keys_module
from openclaw_exporter.receiver.keys import PATIENCE, KeyRing
from openclaw_exporter.receiver.settings import IssuerSettings
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.key_server import KeyServer
from support.wait import come_true, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from receiver.scene import Node, Running

    from openclaw_exporter.receiver.settings import ReceiverSettings
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


def live_on(scene: Running, node: Node) -> None:
    """See listening time stand still: what is left of a node's life does not get less."""
    reader = scene.reader()

    def expiry() -> datetime:
        shown = reader.get(f"/openclaw/nodes/{node.node_id}").json()
        assert shown["state"] == "up"
        return datetime.fromisoformat(shown["expires_at"])

    first = expiry()
    wait_until(lambda: expiry() > first + timedelta(seconds=3), timeout=60, what="a later expiry")


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
        live_on(scene, node)


def test_what_is_wrong_with_a_key_set_is_told_in_one_line(
    pki: Pki, tmp_path: Path, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.document = None
    asyncio.run(ring(pki, tmp_path, server, Clock()).open())
    (told,) = caplog.messages
    assert told == (
        f"{server.url}: it answered 503; none of its keys is known yet, so tokens that need them get 503; "
        "see receiver.tokens"
    )
    file = tmp_path / "keys.json"
    settings = receiver_settings(pki, tmp_path, tokens={"jwks": str(file)}).tokens
    with pytest.raises(CredentialError, match=r"^\S+keys.json: .*No such file.*; see receiver.tokens$"):
        asyncio.run(KeyRing(settings, Clock()).open())
    file.write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(CredentialError, match=r"^\S+keys.json: not a strict JSON.*; see receiver.tokens$"):
        asyncio.run(KeyRing(settings, Clock()).open())


PLATFORM = "https://platform.test"


def two_issuers(pki: Pki, directory: Path, server: KeyServer, **changes: Any) -> ReceiverSettings:
    """Return a configuration in which the keys of a second issuer are those of the server alone."""
    own = IssuerSettings(issuer=pki.issuer, audience=pki.audience)
    second = IssuerSettings(issuer=PLATFORM, audience=pki.audience, jwks=server.url)
    return receiver_settings(pki, directory, tokens={"issuers": (own, second)}, **changes)


def of_platform(scene: Running) -> Node:
    """Return a node whose tokens are the second issuer's."""
    node = scene.node()
    node.token = node.mint(issuer=PLATFORM)
    return node


@pytest.mark.parametrize("workers", [1, 2])
def test_an_issuer_without_keys_is_answered_503_and_the_others_as_ever(
    pki: Pki, tmp_path: Path, server: KeyServer, workers: int
) -> None:
    server.document = None
    with running(pki, two_issuers(pki, tmp_path, server, workers=workers)) as scene:
        one, other = scene.node(), of_platform(scene)
        for _ in range(3):
            assert one.beat().status_code == 200
            answer = other.beat()
            assert problem(answer) == (503, "store-unavailable")
            assert 3 <= int(answer.headers["retry-after"]) <= 10
            assert "key set of the token's issuer" in answer.json()["detail"]
        # Nobody is told to come back who would be refused then.
        good = one.token
        for token, slug in (
            (one.mint(issuer="https://attacker.test"), "token-issuer"),
            (f"{good}=", "token-malformed"),
            (one.mint(kid="unknown"), "token-key-unknown"),
        ):
            one.token = token
            assert problem(one.beat()) == (401, slug)
        admin = scene.admin
        wait_until(lambda: admin.get("/readyz").status_code == 200, timeout=60, what="a receiver of use")


def test_a_receiver_without_any_key_tells_strangers_so_all_the_same(
    pki: Pki, tmp_path: Path, server: KeyServer
) -> None:
    server.document = None
    with running(pki, receiver_settings(pki, tmp_path, tokens={"jwks": server.url})) as scene:
        node = scene.node()
        assert problem(node.beat()) == (503, "store-unavailable")
        node.token = node.mint(issuer="https://attacker.test")
        assert problem(node.beat()) == (401, "token-issuer")
        assert scene.admin.get("/readyz").status_code == 503


def test_an_issuers_nodes_are_heard_once_its_keys_are_there(
    pki: Pki, tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "MIN_FETCH_INTERVAL", 0.5)
    server.document = None
    with running(pki, two_issuers(pki, tmp_path, server, workers=1)) as scene:
        node = of_platform(scene)
        assert node.beat().status_code == 503
        server.document = pki.jwks.read_bytes()
        wait_until(lambda: node.beat().status_code == 200, timeout=60, what="an accepted heartbeat")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_receiver_that_starts_without_an_issuers_keys_expires_nobody_for_it(
    pki: Pki, tmp_path: Path, server: KeyServer, workers: int
) -> None:
    settings = two_issuers(pki, tmp_path, server, workers=workers)
    with running(pki, settings) as scene:
        node = of_platform(scene)
        assert node.beat().status_code == 200
    server.document = None
    with running(pki, settings) as scene:
        live_on(scene, node)


def test_an_issuer_that_never_has_keys_does_not_keep_the_dead_alive(
    pki: Pki, tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = two_issuers(
        pki, tmp_path, server, workers=1, min_interval=1, default_interval=1, max_interval=2
    )
    server.document = None
    monkeypatch.setattr(keys_module, "PATIENCE", 0.0)
    with running(pki, settings) as scene:
        node = scene.node()
        assert node.beat({"OpenClaw-Interval": "1"}).status_code == 200
        reader = scene.reader()
        shown = lambda: reader.get(f"/openclaw/nodes/{node.node_id}").json()  # noqa: E731
        wait_until(lambda: shown()["state"] == "expired", timeout=60, what="the node's expiry")


def test_patience_with_some_issuers_ends_and_with_all_of_them_does_not(
    pki: Pki, tmp_path: Path, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.document = None

    async def patience() -> None:
        clock = Clock()
        settings = two_issuers(pki, tmp_path, server).tokens
        some, none = KeyRing(settings, clock), ring(pki, tmp_path, server, clock)
        for keys in (some, none):
            await keys.open()
            await keys.refresh()
            assert keys.keeps_deaf
        assert (some.has_any, none.has_any) == (True, False)
        clock.now = PATIENCE - 100
        # Of a worker that takes the place of another.
        later = KeyRing(settings, clock)
        await later.open({}, some.patience)
        caplog.clear()
        clock.now = PATIENCE
        for keys in (some, none, later):
            await keys.refresh()
        assert (some.keeps_deaf, none.keeps_deaf, later.keeps_deaf) == (False, True, False)
        told = [message for message in caplog.messages if "expire from now on" in message]
        fate = "the nodes of its issuer are answered 503, and expire from now on"
        assert told == 2 * [f"{server.url}: still no key set; {fate}; see receiver.tokens"]
        server.document = pki.jwks.read_bytes()
        clock.now += 31
        for keys in (some, none, later):
            assert await keys.refresh()
            assert not keys.keeps_deaf
            assert keys.has_any
            await keys.close()

    asyncio.run(patience())


def test_a_key_server_that_never_answers_keeps_nobody_from_the_keys_of_another(
    pki: Pki, tmp_path: Path, server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However crowded the machine is.
    monkeypatch.setattr(key_sources, "_FETCH_TIMEOUT", 60.0)

    async def beside(silent: str) -> None:
        clock = Clock()
        issuers = tuple(
            IssuerSettings(issuer=f"https://issuer-{number}.test", audience=pki.audience, jwks=url)
            for number, url in enumerate((silent, server.url))
        )
        settings = receiver_settings(pki, tmp_path, tokens={"issuers": issuers}).tokens
        keys = KeyRing(settings, clock)
        opening = asyncio.create_task(keys.open())
        await come_true(lambda: keys.has_any)
        assert not opening.done()
        await keys.close()
        await asyncio.wait([opening])
        keys = KeyRing(settings, clock)
        await keys.open({silent: pki.jwks.read_bytes()})
        before, server.document = keys.verifier, pki.jwks.read_bytes() + b"\n"
        clock.now = 31.0
        looking = asyncio.create_task(keys.refresh(unknown=True))
        await come_true(lambda: keys.verifier is not before)
        assert not looking.done()
        await keys.close()
        await asyncio.wait([looking])

    with socket.create_server(("127.0.0.1", 0)) as never:
        asyncio.run(beside(f"http://127.0.0.1:{never.getsockname()[1]}/jwks.json"))


def test_a_token_whose_issuer_has_no_keys_is_neither_good_nor_bad(
    pki: Pki, tmp_path: Path, server: KeyServer
) -> None:
    server.document = None

    async def verify() -> None:
        keys = KeyRing(two_issuers(pki, tmp_path, server).tokens, Clock())
        await keys.open()
        assert keys.verifier is not None
        key = SigningKey.load(pki.token_key.read_bytes(), kid=pki.key_id)
        platform = Minter(key, issuer=PLATFORM, audience=pki.audience)
        token = platform.mint(NODE, thumbprint=THUMBPRINT, now=START).text
        with pytest.raises(StoreUnavailableError, match="could not be fetched yet"):
            keys.verifier.verify(token, thumbprint=THUMBPRINT, now=START)
        # What would be refused with any keys is refused without them.
        other_kind = SigningKey(ed25519.Ed25519PrivateKey.generate(), kid=pki.key_id, algorithm="EdDSA")
        stranger = Minter(other_kind, issuer=PLATFORM, audience=pki.audience)
        refused = stranger.mint(NODE, thumbprint=THUMBPRINT, now=START).text
        with pytest.raises(TokenError, match="not one that is allowed"):
            keys.verifier.verify(refused, thumbprint=THUMBPRINT, now=START)
        await keys.close()

    asyncio.run(verify())
