from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from wire.forge import NODE, key, pem
from wire.scene import AUDIENCE, NOW, THUMBPRINT

from openclaw_exporter.errors import ConfigError
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
    from support.pki import Pki

KINDS = {"ES256": "p256", "EdDSA": "ed25519", "RS256": "rsa2048", "PS256": "rsa2048"}


def signing_key(algorithm: Algorithm = "ES256") -> SigningKey:
    return SigningKey.load(pem(key(KINDS[algorithm])), kid=f"k-{algorithm}", algorithm=algorithm)


def segments(text: str) -> list[dict[str, Any]]:
    return [json.loads(urlsafe_b64decode(part + "==")) for part in text.split(".")[:2]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_minted_is_accepted(algorithm: Algorithm) -> None:
    signing = signing_key(algorithm)
    minted = Minter(signing, issuer="chimera", audience=AUDIENCE).mint(
        NODE, thumbprint=THUMBPRINT, now=NOW + 0.9
    )
    verifier = Verifier(
        KeySet.from_jwks(public_jwks([signing])), [Issuer("chimera", AUDIENCE, "minted", (algorithm,))]
    )
    verified = verifier.verify(minted.text, thumbprint=THUMBPRINT, now=NOW)
    assert verified == ("chimera", NODE, NOW + 600, "minted", f"k-{algorithm}")
    assert (minted.issued_at, minted.expires_at) == (NOW, NOW + 600)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_library_accepts_it_too(algorithm: Algorithm) -> None:
    now = int(time.time())
    minted = Minter(signing_key(algorithm), issuer="chimera", audience=AUDIENCE).mint(
        NODE, thumbprint="t", now=now
    )
    claims = jwt.decode(
        minted.text,
        key(KINDS[algorithm]).public_key(),
        algorithms=[algorithm],
        audience=AUDIENCE,
        issuer="chimera",
        options={"require": ["exp", "iat", "nbf", "sub"], "strict_aud": True},
    )
    assert claims["sub"] == NODE


def test_a_token_holds_what_the_profile_names_and_nothing_else() -> None:
    minted = Minter(signing_key(), issuer="chimera", audience=AUDIENCE, lifetime=60).mint(
        NODE, thumbprint=THUMBPRINT, now=NOW
    )
    assert segments(minted.text) == [
        {"alg": "ES256", "kid": "k-ES256", "typ": "JWT"},
        {
            "iss": "chimera",
            "sub": NODE,
            "aud": AUDIENCE,
            "iat": NOW,
            "nbf": NOW,
            "exp": NOW + 60,
            "cnf": {"x5t#S256": THUMBPRINT},
        },
    ]


def test_a_token_does_not_show_its_text() -> None:
    minted = Minter(signing_key(), issuer="chimera", audience=AUDIENCE).mint(NODE, thumbprint="t", now=NOW)
    assert repr(minted) == f"Token(issued_at={NOW}, expires_at={NOW + 600})"
    assert minted.text not in str(minted)
    assert minted.text not in f"{minted}"


def test_the_files_of_the_test_authority_fit(pki: Pki) -> None:
    signing = SigningKey.load(pki.token_key.read_bytes(), kid=pki.key_id)
    minted = Minter(signing, issuer=pki.issuer, audience=pki.audience).mint(
        NODE, thumbprint=THUMBPRINT, now=NOW
    )
    verifier = Verifier(
        KeySet.from_jwks(pki.jwks.read_bytes()), [Issuer(pki.issuer, pki.audience, "minted", ("ES256",))]
    )
    assert verifier.verify(minted.text, thumbprint=THUMBPRINT, now=NOW).subject == NODE


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"issuer": ""}, ["issuer"]),
        ({"audience": ""}, ["audience"]),
        ({"lifetime": 0}, ["lifetime"]),
        ({"lifetime": -1}, ["lifetime"]),
        ({"lifetime": 3601}, ["lifetime"]),
        ({"issuer": "", "audience": "", "lifetime": 0}, ["issuer", "audience", "lifetime"]),
    ],
)
def test_an_unsafe_minter_is_refused(changes: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Minter(signing_key(), **{"issuer": "chimera", "audience": AUDIENCE} | changes)
    assert [problem.key for problem in caught.value.problems] == keys


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"issuer": ""}, ["issuer"]),
        ({"audience": ""}, ["audience"]),
        ({"profile": "any"}, ["profile"]),
        ({"algorithms": ()}, ["algorithms"]),
        ({"algorithms": ("none",)}, ["algorithms"]),
        ({"algorithms": ("ES256", "HS256")}, ["algorithms"]),
        ({"max_life": 0}, ["max_life"]),
        ({"max_life": 3601}, ["max_life"]),
        ({"issuer": "", "audience": "", "algorithms": ()}, ["issuer", "audience", "algorithms"]),
    ],
)
def test_unsafe_terms_of_an_issuer_are_refused(changes: dict[str, Any], keys: list[str]) -> None:
    right = {"issuer": "chimera", "audience": AUDIENCE, "profile": "minted", "algorithms": ("ES256",)}
    with pytest.raises(ConfigError) as caught:
        Issuer(**right | changes)
    assert [problem.key for problem in caught.value.problems] == keys


def test_an_unsafe_verifier_is_refused() -> None:
    keys = KeySet.from_jwks(public_jwks([signing_key()]))
    issuer = Issuer("chimera", AUDIENCE, "minted", ("ES256",))
    for arguments in ({"issuers": []}, {"issuers": [issuer, issuer]}, {"leeway": -1}, {"leeway": 301}):
        with pytest.raises(ConfigError):
            Verifier(keys, **{"issuers": [issuer]} | arguments)  # type: ignore[arg-type]
