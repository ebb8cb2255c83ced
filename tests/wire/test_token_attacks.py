"""Every attack of the matrix is refused by its case, and what is right beside it is accepted."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from wire.attacks_on_claims import CLAIM_ATTACKS
from wire.attacks_on_form import FORM_ATTACKS
from wire.forge import DROP, NODE, key, token
from wire.scene import (
    AUDIENCE,
    BOUND,
    CLAIMS,
    EXTERNAL,
    HEADER,
    NOW,
    THUMBPRINT,
    Attack,
    external,
    minted,
    signed_by,
    verifier,
)

from openclaw_exporter.errors import TokenError
from openclaw_exporter.wire.problems import CASES, problem_for
from openclaw_exporter.wire.tokens import MAX_TOKEN_BYTES, VerifiedToken

ATTACKS = [*FORM_ATTACKS, *CLAIM_ATTACKS]


@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{each.slug}: {each.name}" for each in ATTACKS])
def test_an_attack_is_refused_by_its_case(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    made = attack.make()
    with caplog.at_level(logging.DEBUG), pytest.raises(TokenError) as caught:
        verifier().verify(made, thumbprint=THUMBPRINT, now=NOW)
    assert caught.value.slug == attack.slug
    assert caught.value.slug in CASES
    assert caught.value.status == 401
    shown = str(caught.value) + caplog.text
    assert len(shown) < 200
    as_text = made if isinstance(made, str) else made.decode("latin-1")
    assert not any(piece in shown for piece in re.findall(r"[\w-]{12,}", as_text))


def test_the_matrix_covers_every_case() -> None:
    assert len(ATTACKS) >= 80
    assert len({(each.slug, each.name) for each in ATTACKS}) == len(ATTACKS)
    assert {each.slug for each in ATTACKS} == {slug for slug in CASES if slug.startswith("token-")}


def accepted(made: str | bytes, now: float = NOW) -> VerifiedToken:
    return verifier().verify(made, thumbprint=THUMBPRINT, now=now)


def test_the_tokens_that_the_attacks_start_from_are_valid() -> None:
    assert accepted(minted()) == VerifiedToken("chimera", NODE, NOW + 600, "minted", "ec")
    assert accepted(external()) == VerifiedToken("mesh", "system:node", NOW + 3600, "external", "ec")
    assert accepted(minted().encode()) == accepted(minted())
    platform = token(
        HEADER | {"kid": "platform"}, EXTERNAL | {"iss": "platform"}, "ES256", key("p256", "platform")
    )
    assert accepted(platform).key_id == "platform"


@pytest.mark.parametrize(
    ("algorithm", "kid", "kind", "name"),
    [
        ("ES256", "ec", "p256", ""),
        ("EdDSA", "ed", "ed25519", ""),
        ("RS256", "rsa", "rsa2048", ""),
        ("PS256", "rsa", "rsa2048", ""),
        ("PS256", "ps", "rsa2048", "ps"),
    ],
)
def test_every_key_serves_its_own_algorithms(algorithm: str, kid: str, kind: str, name: str) -> None:
    assert accepted(signed_by(algorithm, kid, key(kind, name))).key_id == kid


@pytest.mark.parametrize(
    "header", [{}, {"typ": DROP}, {"typ": "jwt"}, {"typ": "Jwt"}], ids=["JWT", "absent", "jwt", "Jwt"]
)
def test_a_right_header_is_accepted(header: dict[str, Any]) -> None:
    assert accepted(minted(header)).subject == NODE


@pytest.mark.parametrize("kind", ["JOSE", "JWT", DROP])
def test_an_external_token_has_a_type_of_the_jwt_svid_specification(kind: object) -> None:
    assert accepted(external({"typ": kind})).subject == "system:node"


def test_an_external_header_may_name_its_signers_certificate() -> None:
    assert accepted(external({"x5t": "x", "x5t#S256": "y"})).subject == "system:node"


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": NOW + 30, "nbf": NOW + 30},
        {"iat": NOW - 600, "nbf": NOW - 600, "exp": NOW - 29},
        {"iat": NOW - 600, "nbf": NOW - 600, "exp": NOW - 29.999},
        {"iat": float(NOW), "exp": NOW + 599.5},
        {"nbf": 0},
        {"iat": NOW + 30, "nbf": NOW + 30, "exp": NOW + 630},
        {"jti": "x", "groups": ["a", "b"], "kubernetes.io": {"pod": {"name": "x"}}},
        {"sub": "s" * 255},
        {"sub": "Knoten ß"},
    ],
)
def test_right_claims_are_accepted(claims: dict[str, Any]) -> None:
    assert accepted(minted(**claims)).subject == (CLAIMS | claims)["sub"]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": AUDIENCE},
        {"aud": [AUDIENCE]},
        {"iat": DROP},
        {"iat": DROP, "exp": NOW + 3630},
        {"nbf": NOW},
        {"cnf": BOUND},
        {"cnf": BOUND | {"kid": "further members mean nothing here"}},
    ],
)
def test_right_external_claims_are_accepted(claims: dict[str, Any]) -> None:
    assert accepted(external(**claims)).profile == "external"


def test_a_token_of_exactly_four_kib_is_read() -> None:
    made = minted()
    sizes = {len(minted(x="x" * length)): length for length in range(2500, 2800)}
    length = sizes[max(size for size in sizes if size <= MAX_TOKEN_BYTES)]
    assert len(made) < MAX_TOKEN_BYTES - 2 < len(minted(x="x" * length))
    assert accepted(minted(x="x" * length)).subject == NODE


def test_a_connection_without_certificate_fits_no_token() -> None:
    for made in (minted(), minted(cnf={"x5t#S256": ""}), external(cnf={"x5t#S256": ""})):
        with pytest.raises(TokenError) as caught:
            verifier().verify(made, thumbprint="", now=NOW)
        assert caught.value.slug == "token-binding"


def test_a_token_that_is_bound_to_nothing_is_told_so() -> None:
    for cnf, said in (
        (DROP, "bound to no certificate"),
        ({"x5t#S256": "A" * 43}, "not the client certificate's"),
    ):
        with pytest.raises(TokenError, match=said) as caught:
            verifier().verify(minted(cnf=cnf), thumbprint=THUMBPRINT, now=NOW)
        assert caught.value.slug == "token-binding"
        assert "another" not in problem_for(caught.value).title


def test_a_token_lives_from_its_beginning_to_its_end() -> None:
    made = minted()
    for now in (NOW - 30, NOW, NOW + 480, NOW + 629.9):
        assert accepted(made, now).expires_at == NOW + 600
    for now, slug in ((NOW - 31, "token-not-yet-valid"), (NOW + 630, "token-expired")):
        with pytest.raises(TokenError) as caught:
            accepted(made, now)
        assert caught.value.slug == slug
