"""What the wire room costs: CPU microseconds a call, beside its peers in the same run.

    python tests/benchmarks/bench_wire.py

Each figure is the median of several rounds of process CPU time, after a warm-up; the spread is the range of
the rounds in parts of the median.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from interpreter import announce

from openclaw_exporter.cli.authority import Authority, node_uri
from openclaw_exporter.errors import WireError
from openclaw_exporter.wire.certificates import IdentityRule, thumbprint
from openclaw_exporter.wire.heartbeat import decode, digest, encode
from openclaw_exporter.wire.tokens import (
    ALGORITHMS,
    Algorithm,
    Issuer,
    KeySet,
    Minter,
    SigningKey,
    Verifier,
    public_jwks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
ROUND_SECONDS = 0.2
NODE = "0f8fad5b-d9cb-469f-a165-70867728950e"
BODY = json.dumps(
    {
        "node_id": NODE,
        "hostname": "chimera-01.prod",
        "version": "1.2.0",
        "capacity": {"workers": 24, "available_slots": 5},
        "queue_depth": {"planner": 3, "worker": 120},
        "last_heartbeat": "2026-02-06T12:34:56Z",
        "tags": ["region:us-east-1", "gpu:true"],
        "uptime_seconds": 86400,
    }
).encode()


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    microseconds: float
    spread: float


def measure(name: str, call: Callable[[], object]) -> Figure:
    """Return the median CPU time of a call."""
    count = 1
    while (elapsed := _round(call, count)) < ROUND_SECONDS / 4:
        count *= 2
    count = max(1, round(count * ROUND_SECONDS / elapsed))
    rounds = [_round(call, count) / count * 1e6 for _ in range(ROUNDS)]
    median = statistics.median(rounds)
    return Figure(name, median, (max(rounds) - min(rounds)) / median)


def _round(call: Callable[[], object], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        call()
    return time.process_time() - start


def heartbeat_figures() -> list[Figure]:
    """Measure reading and writing a heartbeat."""
    heartbeat = decode(BODY)
    members = json.loads(BODY)
    unknown = BODY[:-1] + b', "later": 1}'
    wrong = BODY.replace(b'"gpu:true"', b"1")
    return [
        measure("json.loads, no check", lambda: json.loads(BODY)),
        measure("decode", lambda: decode(BODY)),
        measure("decode with an unknown field", lambda: decode(unknown)),
        measure("decode refusing a wrong field", lambda: _refused(decode, wrong)),
        measure("json.dumps, keys sorted", lambda: json.dumps(members, sort_keys=True)),
        measure("encode", lambda: encode(heartbeat)),
        measure("encode + digest", lambda: digest(heartbeat)),
    ]


def signing_key(algorithm: Algorithm) -> SigningKey:
    """Return a new key."""
    private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey.load(pem, kid=algorithm, algorithm=algorithm)


def token_figures(algorithm: Algorithm) -> list[Figure]:
    """Measure minting and verifying, beside PyJWT alone."""
    now = int(time.time())
    signing = signing_key(algorithm)
    document = public_jwks([signing])
    minter = Minter(signing, issuer="chimera", audience="receiver", lifetime=3600)
    token = minter.mint(NODE, thumbprint="t", now=now).text
    verifier = Verifier(
        KeySet.from_jwks(document), [Issuer("chimera", "receiver", "minted", ALGORITHMS, max_life=3600)]
    )
    peer = jwt.PyJWKSet.from_json(document.decode())[algorithm]
    forged = token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB")
    unknown = Minter(signing, issuer="nobody", audience="receiver").mint(NODE, thumbprint="t", now=now).text

    def verify(text: str) -> object:
        return verifier.verify(text, thumbprint="t", now=now)

    def raw() -> object:
        return jwt.decode(token, peer, algorithms=[algorithm], audience="receiver", issuer="chimera")

    return [
        measure(f"{algorithm}: PyJWT's decode", raw),
        measure(f"{algorithm}: verify", lambda: verify(token)),
        measure(f"{algorithm}: refuse a forged signature", lambda: _refused(verify, forged)),
        measure(f"{algorithm}: refuse before the signature", lambda: _refused(verify, unknown)),
        measure(f"{algorithm}: mint", lambda: minter.mint(NODE, thumbprint="t", now=now)),
    ]


def certificate_figures() -> list[Figure]:
    """Measure reading a client certificate."""
    issued = Authority.create().client([node_uri("bench.example", NODE)])
    der = issued.certificate.public_bytes(Encoding.DER)
    rule = IdentityRule(trust_domain="bench.example")
    return [
        measure("certificate: identify", lambda: rule.identify(der)),
        measure("certificate: thumbprint", lambda: thumbprint(der)),
    ]


def _refused(call: Callable[..., object], argument: object) -> None:
    try:
        call(argument)
    except WireError:
        return
    raise AssertionError("was accepted")


def main() -> None:
    """Print the table."""
    figures = heartbeat_figures()
    for algorithm in ALGORITHMS:
        figures += token_figures(algorithm)
    figures += certificate_figures()
    print(f"{'CPU microseconds a call, median of ' + str(ROUNDS):<48}{'us':>10}{'spread':>9}")
    for figure in figures:
        print(f"{figure.name:<48}{figure.microseconds:>10.2f}{figure.spread:>8.0%}")


if __name__ == "__main__":
    announce()
    main()
