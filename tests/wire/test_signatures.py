"""Payload signatures: what is signed is accepted here and by another implementation, and nothing else is."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, algorithms
from http_message_signatures.resolvers import HTTPSignatureKeyResolver
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.forge import key, pem
from wire.signed import BODY, KEYS, MUTATIONS, NOW, Request, signed

from openclaw_exporter.errors import TokenError
from openclaw_exporter.wire import signatures
from openclaw_exporter.wire.tokens import SigningKey

if TYPE_CHECKING:
    from openclaw_exporter.wire.tokens import Algorithm

SHA_256 = signatures.content_digest(BODY)


def slug_of(request: Request, **arguments: Any) -> str:
    with pytest.raises(TokenError) as refused:
        request.verify(**arguments)
    return refused.value.slug


@pytest.mark.parametrize("algorithm", KEYS)
def test_what_is_signed_is_accepted(algorithm: Algorithm) -> None:
    for extra in ({}, {"OpenClaw_Replay": "1"}, {"OpenClaw_State": "draining", "X_Other": "ü"}):
        signed(algorithm, **extra).verify()
    assert 'keyid="kid-' in signed(algorithm).get("Signature-Input")
    assert "alg=" not in signed(algorithm).get("Signature-Input")


def test_fields_that_are_not_covered_may_change_on_the_way() -> None:
    request = signed().with_field("Host", "elsewhere").with_another("Via", "a").with_another("Via", "b")
    request.with_another("Client-Cert", ":AA==:").verify()


@pytest.mark.parametrize(
    ("created", "leeway", "accepted"),
    [
        (NOW - 300, 0, True),
        (NOW - 301, 0, False),
        (NOW - 330, 30, True),
        (NOW - 331, 30, False),
        (NOW, 0, True),
        (NOW + 1, 0, False),
        (NOW + 30, 30, True),
        (NOW + 31, 30, False),
    ],
)
def test_how_old_a_signature_may_be(created: int, leeway: int, accepted: bool) -> None:  # noqa: FBT001 - a table
    request = signed(created=created)
    if accepted:
        request.verify(leeway=leeway)
    else:
        assert slug_of(request, leeway=leeway) == "signature-invalid"


def test_a_request_without_one_is_told_apart() -> None:
    request = signed().with_field("Signature", None).with_field("Signature-Input", None)
    assert slug_of(request) == "signature-missing"
    assert slug_of(request.with_field("Content-Digest", None)) == "signature-missing"
    headers = [(b"content-digest", b""), (b"via", b"")]
    assert not signatures.is_signed(headers)
    for name in ("Signature", "Signature-Input"):
        assert slug_of(signed().with_field(name, None)) == "signature-invalid"
        assert signatures.is_signed([*headers, (name.lower().encode(), b"")])


def by_hand(fields: dict[str, str], components: str, params: str, **arguments: Any) -> Request:
    """Return a request that is really signed over whatever a test says."""
    request = signed()
    for name, value in fields.items():
        request = request.with_field(name, None).with_another(name, value)
    known = {name.lower(): value for name, value in request.headers}
    known |= {"@method": "POST", "@path": "/openclaw/availability"}
    lines = [f'"{name}": {known[name]}' for name in components.split()]
    text = "(" + " ".join(f'"{name}"' for name in components.split()) + f"){params}"
    base = "\n".join([*lines, f'"@signature-params": {text}'])
    signature = signatures.b64encode(KEYS["ES256"].sign(base.encode())).decode()
    label = arguments.get("label", "openclaw")
    request = request.with_field("Signature-Input", f"{label}={text}")
    return request.with_field("Signature", f"{label}=:{signature}:")


ALL = "@method @path authorization content-digest openclaw-interval openclaw-sequence"
CREATED = f";created={NOW}"


@pytest.mark.parametrize(
    "request_",
    [
        by_hand({}, ALL, CREATED),
        by_hand({}, ALL, CREATED, label="sig1"),
        by_hand({}, ALL + " host content-type", CREATED),
        by_hand({}, " ".join(reversed(ALL.split())), CREATED),
        by_hand(
            {}, ALL, f'{CREATED};expires={NOW};keyid="kid-ES256";alg="ecdsa-p256-sha256";nonce="a";tag="b"'
        ),
    ],
)
def test_other_publishers_may_say_more(request_: Request) -> None:
    request_.verify()


@pytest.mark.parametrize(
    "request_",
    [
        *(by_hand({}, ALL.replace(name, "").strip(), CREATED) for name in ALL.split()),
        by_hand({"OpenClaw-Replay": "1"}, ALL, CREATED),
        by_hand({"OpenClaw-Unheard-Of": "1"}, ALL, CREATED),
        by_hand({}, f"{ALL} {ALL}", CREATED),
        by_hand({}, f"{ALL} signature-input", CREATED),
        by_hand({}, ALL, ""),
        by_hand({}, ALL, ';keyid="kid-ES256"'),
        by_hand({}, ALL, f'{CREATED};keyid="another"'),
        by_hand({}, ALL, f'{CREATED};alg="ed25519"'),
        by_hand({}, ALL, f'{CREATED};alg="ES256"'),
        by_hand({}, ALL, f"{CREATED};expires={NOW - 1}"),
        by_hand({}, ALL, CREATED + CREATED),
        by_hand({}, ALL, f"{CREATED};future=1"),
        by_hand({}, ALL, f";created=0{NOW}"),
        by_hand({}, ALL, f";created=-{NOW}"),
        by_hand({}, ALL, f";created={NOW}.0"),
        by_hand({}, ALL, f'{CREATED};keyid="kid\\-ES256"'),
        by_hand({}, ALL, f" {CREATED}"),
        by_hand({}, ALL, f"; created={NOW}"),
        by_hand({}, ALL, CREATED, label="Sig"),
        by_hand({"OpenClaw-State": "ü"}, f"{ALL} openclaw-state", CREATED),
        *(
            by_hand({"Content-Digest": value}, ALL, CREATED)
            for value in (
                SHA_256.replace("=:", "=", 1),
                SHA_256.replace("sha-256", "sha"),
                SHA_256.replace("sha-256", "md5"),
                f"{SHA_256}, {SHA_256}",
                f"{SHA_256}, sha-512=:AAAA:",
                f"{SHA_256};a=1",
                SHA_256.replace("=:", "=:A", 1),
                signatures.content_digest(b"another"),
            )
        ),
    ],
)
def test_a_true_signature_over_too_little_or_in_another_form_is_refused(request_: Request) -> None:
    assert slug_of(request_) == "signature-invalid"


def test_a_longer_digest_is_accepted_and_checked() -> None:
    long = f"sha-512=:{signatures.b64encode(hashlib.sha512(BODY).digest()).decode()}:"
    for value in (long, f"{SHA_256}, {long}", f"{long},{SHA_256}"):
        by_hand({"Content-Digest": value}, ALL, CREATED).verify()


def test_a_key_id_that_would_need_escapes_is_left_out() -> None:
    for kid in ('a"b', "a\\b"):
        signing = SigningKey.load(pem(key("p256")), kid=kid)
        made = signatures.sign(
            {"Authorization": "Bearer a"}, method="POST", path="/", body=b"", key=signing, created=NOW
        )
        assert "keyid" not in made["Signature-Input"]


@pytest.mark.parametrize("change", MUTATIONS)
@settings(max_examples=60)
@given(chance=st.randoms(use_true_random=False), algorithm=st.sampled_from(list(KEYS)))
def test_no_change_is_accepted(change: Any, chance: random.Random, algorithm: Algorithm) -> None:
    reject(change, chance, algorithm)


def reject(change: Any, chance: random.Random, algorithm: Algorithm) -> bool:
    """Change a request and check that it is refused; false where the change left it as it was."""
    request = signed(algorithm)
    changed = change(request, chance)
    if changed == request:
        return False
    with pytest.raises(TokenError) as refused:
        changed.verify()
    assert refused.value.slug in ("signature-invalid", "signature-missing")
    return True


@pytest.mark.slow
def test_twenty_thousand_changes_are_all_refused() -> None:
    chance = random.Random(9421)
    algorithms_ = list(KEYS)
    done = sum(reject(chance.choice(MUTATIONS), chance, chance.choice(algorithms_)) for _ in range(21_000))
    print(f"\n{done} changed requests, 0 accepted")
    assert done >= 20_000


class Keys(HTTPSignatureKeyResolver):
    """Another implementation's view of our keys."""

    def resolve_private_key(self, key_id: str) -> Any:
        return load_pem_private_key(pem(key(KINDS[key_id.removeprefix("kid-")])), None)

    def resolve_public_key(self, key_id: str) -> Any:
        return self.resolve_private_key(key_id).public_key()


KINDS = {"ES256": "p256", "EdDSA": "ed25519", "RS256": "rsa2048"}
OTHERS = {
    "ES256": algorithms.ECDSA_P256_SHA256,
    "EdDSA": algorithms.ED25519,
    "RS256": algorithms.RSA_V1_5_SHA256,
}


def seen_by_others(fields: dict[str, str]) -> Any:
    return SimpleNamespace(method="POST", url="https://receiver:8443/openclaw/availability", headers=fields)


@pytest.mark.parametrize("algorithm", OTHERS)
def test_another_implementation_verifies_what_is_signed_here(algorithm: Algorithm) -> None:
    request = signed(algorithm, created=int(dt.datetime.now().timestamp()))  # noqa: DTZ005 - its clock
    verifier = HTTPMessageVerifier(signature_algorithm=OTHERS[algorithm], key_resolver=Keys())
    message = seen_by_others(dict(request.headers))
    (result,) = verifier.verify(message, body=BODY)
    assert set(result.covered_components) >= {
        '"@method"',
        '"@path"',
        '"authorization"',
        '"openclaw-sequence"',
    }


@pytest.mark.parametrize("algorithm", OTHERS)
def test_what_another_implementation_signs_is_verified_here(algorithm: Algorithm) -> None:
    unsigned = {
        name: value
        for name, value in signed(algorithm).headers
        if name not in ("Signature", "Signature-Input", "Content-Digest")
    }
    message = seen_by_others(unsigned)
    signer = HTTPMessageSigner(signature_algorithm=OTHERS[algorithm], key_resolver=Keys())
    signer.sign(
        message,
        key_id=KEYS[algorithm].kid,
        created=dt.datetime.fromtimestamp(NOW, dt.UTC),
        covered_component_ids=ALL.replace("content-digest ", "").split(),
        body=BODY,
    )
    Request(algorithm, tuple(message.headers.items())).verify()
