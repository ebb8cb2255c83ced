"""Certificate, proxy, forwarded certificate, subject, binding and node_id, mixed: only full matches pass.

The receiver's own intake decides; the transport under it is a stand-in that shows a certificate, for ten
thousand handshakes say no more than one.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import ssl
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiver.scene import receiver_settings

from openclaw_exporter.errors import WireError
from openclaw_exporter.receiver.clock import SystemClock
from openclaw_exporter.receiver.connection import Connection
from openclaw_exporter.receiver.deny import DenyList
from openclaw_exporter.receiver.heads import Head
from openclaw_exporter.receiver.intake import Intake
from openclaw_exporter.receiver.keys import KeyRing
from openclaw_exporter.receiver.rate import RateLimit
from openclaw_exporter.receiver.shedding import Shedding
from openclaw_exporter.receiver.trust import Trust
from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.client_cert import client_cert
from openclaw_exporter.wire.timestamps import format_ms
from openclaw_exporter.wire.tokens import Minter, SigningKey
from support.pki import Pki
from support.tls_proxies import TRUSTED

if TYPE_CHECKING:
    from pathlib import Path

A = "7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"
B = "0f8fad5b-d9cb-469f-a165-70867728950e"
NODES = (A, B)
CERTIFICATES = ("a", "a again", "b", "reader", "proxy", "another proxy", "a stranger's a")
REFUSALS = {"identity-missing", "identity-name", "identity-forwarded", "identity-mismatch", "token-binding"}
REFUSALS |= {"role-not-allowed", ""}
NAMES = {"a": A, "a again": A, "b": B}


class Gate:
    """The receiver from the certificate to the content, without sockets."""

    def __init__(self, directory: Path) -> None:
        (directory / "own").mkdir()
        (directory / "other").mkdir()
        pki, stranger = Pki(directory / "own"), Pki(directory / "other")
        made = {
            "a": pki.node(A),
            "b": pki.node(B),
            "reader": pki.reader(),
            "proxy": pki.proxy(),
            "another proxy": pki.proxy("another"),
            "a stranger's a": stranger.node(A),
        }
        self.ders = {name: _der(files.certificate) for name, files in made.items()}
        self.ders["a again"] = _der(pki.node(A).certificate)
        key = SigningKey.load(pki.token_key.read_bytes(), kid=pki.key_id)
        self._minter = Minter(key, issuer=pki.issuer, audience=pki.audience)
        configuration = receiver_settings(pki, directory, proxy=TRUSTED)
        self._trust = Trust(configuration.tls, configuration.proxy, DenyList(None))
        self._trust.use_authorities(pki.ca.read_bytes())
        clock = SystemClock()
        keys = KeyRing(configuration.tokens, clock)
        asyncio.run(keys.open())
        rate = RateLimit(1e9, 10**9)
        self._intake = Intake(
            configuration, keys, rate, clock, Shedding(clock, max_lag=1.0, readmissions=1.0)
        )
        self._sent_ms = int(time.time() * 1000)
        # A connection outlives a request, and may have seen others' tokens.
        self._connections: dict[str, Connection] = {}

    def admits(self, shown: str, forwarded: str | None, subject: str, bound_to: str, node_id: str) -> bool:
        """Whether a heartbeat passes; `forwarded` is the certificate in `Client-Cert`, None for none."""
        headers = [(b"content-type", b"application/json")]
        headers.append((b"authorization", f"Bearer {self._token(subject, bound_to)}".encode()))
        if forwarded is not None:
            headers.append((b"client-cert", client_cert(self.ders[forwarded]).encode()))
        self._sent_ms += 1
        body = {
            "node_id": node_id,
            "hostname": "a",
            "version": "1",
            "capacity": {"workers": 1, "available_slots": 1},
            "queue_depth": {},
            "last_heartbeat": format_ms(self._sent_ms),
            "tags": [],
        }
        slug = ""
        try:
            self._intake.admit(self._connection(shown), Head(headers), json.dumps(body).encode())
        except WireError as error:
            slug = error.slug
        assert slug in REFUSALS, slug
        return not slug

    def _connection(self, shown: str) -> Connection:
        if shown not in self._connections:
            tls = SimpleNamespace(getpeercert=lambda **_: self.ders[shown], version=lambda: "TLSv1.3")
            info = {"ssl_object": tls, "peername": ("127.0.0.1", 1)}
            transport: Any = SimpleNamespace(get_extra_info=info.get)
            self._connections[shown] = Connection(transport, self._trust)
        return self._connections[shown]

    @functools.cache  # noqa: B019 - one gate for a run
    def _token(self, subject: str, bound_to: str) -> str:
        bound = thumbprint(self.ders[bound_to])
        return self._minter.mint(subject, thumbprint=bound, now=time.time()).text


def _der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


def check(gate: Gate, mix: tuple[str, str | None, str, str, str]) -> bool:
    """Check one mix against the rule in words; return whether it passes."""
    shown, forwarded, subject, bound_to, node_id = mix
    # A handshake lets no stranger in; a proxy could.
    holder = (forwarded or "nobody") if shown == "proxy" else shown
    full_match = NAMES.get(holder) == subject == node_id and bound_to == holder
    assert gate.admits(*mix) == full_match, mix
    return full_match


mixes = st.tuples(
    st.sampled_from([name for name in CERTIFICATES if name != "a stranger's a"]),
    st.sampled_from([None, *CERTIFICATES]),
    st.sampled_from(NODES),
    st.sampled_from(CERTIFICATES),
    st.sampled_from(NODES),
)


@settings(max_examples=1000)
@given(mix=mixes)
def test_only_full_matches_pass(gate: Gate, mix: tuple[str, str | None, str, str, str]) -> None:
    check(gate, mix)


@pytest.mark.slow
def test_every_mix_eight_times_over(gate: Gate) -> None:
    shown = [name for name in CERTIFICATES if name != "a stranger's a"]
    every = list(itertools.product(shown, [None, *CERTIFICATES], NODES, CERTIFICATES, NODES)) * 8
    passed = sum(check(gate, mix) for mix in every)
    print(f"\n{len(every)} mixes of certificates, sub, cnf and node_id: {passed} passed, all full matches")
    assert len(every) >= 10_000
    assert passed
