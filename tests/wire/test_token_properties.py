"""What holds for every token, searched by Hypothesis."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.forge import NODE, OTHER_NODE, b64, certificate, key, pem, token, uri
from wire.scene import AUDIENCE, BOUND, CLAIMS, EXTERNAL, HEADER, NOW, THUMBPRINT, minted, verifier

from openclaw_exporter.errors import IdentityError, TokenError
from openclaw_exporter.wire.certificates import IdentityRule, check_publisher, thumbprint
from openclaw_exporter.wire.problems import CASES
from openclaw_exporter.wire.tokens import Minter, SigningKey, Verifier
from openclaw_exporter.wire.tokens.compact import read_object

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def outcome(made: str | bytes) -> str:
    """Return the slug of the refusal, or nothing; any other exception fails the test."""
    try:
        verifier().verify(made, thumbprint=THUMBPRINT, now=NOW)
    except TokenError as error:
        return error.slug
    return ""


@given(st.one_of(st.binary(), st.text(), st.text("AZaz09-_.=", max_size=60)))
def test_no_input_raises_anything_but_a_token_error(made: str | bytes) -> None:
    assert outcome(made) in CASES


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=80))
def test_no_content_of_the_segments_does_either(header: bytes, claims: bytes, signature: bytes) -> None:
    assert outcome(f"{b64(header)}.{b64(claims)}.{b64(signature)}") in CASES


@functools.cache
def originals() -> dict[str, str]:
    made = {"ES256": minted()}
    for algorithm, kid, kind in (
        ("EdDSA", "ed", "ed25519"),
        ("RS256", "rsa", "rsa2048"),
        ("PS256", "rsa", "rsa2048"),
    ):
        made[algorithm] = token(HEADER | {"alg": algorithm, "kid": kid}, CLAIMS, algorithm, key(kind))
    return made


@settings(max_examples=1500)
@given(
    st.sampled_from(["ES256", "EdDSA", "RS256", "PS256"]),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 2), st.sampled_from("AQgwZaz09-_.=+\n{")),
        min_size=1,
        max_size=3,
    ),
)
def test_no_mutation_of_a_valid_token_is_accepted(
    algorithm: str, edits: list[tuple[float, int, str]]
) -> None:
    original = originals()[algorithm]
    made = original
    for where, cut, character in edits:
        start = int(where * len(made))
        made = made[:start] + character + made[start + cut :]
    assert (outcome(made) == "") == (made == original)


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "x"]), json_values, max_size=2),
    st.booleans(),
    st.dictionaries(
        st.sampled_from([*CLAIMS, "jti"]),
        st.one_of(
            json_values,
            st.integers(NOW - 4000, NOW + 4000),
            st.floats(NOW - 700, NOW + 700),
            st.sampled_from([AUDIENCE, [AUDIENCE], "mesh", "chimera", NODE, THUMBPRINT, BOUND]),
        ),
        max_size=3,
    ),
)
def test_what_is_accepted_keeps_every_rule(
    header: dict[str, Any],
    is_external: bool,  # noqa: FBT001 - drawn by Hypothesis
    claims: dict[str, Any],
) -> None:
    members = (EXTERNAL if is_external else CLAIMS) | claims
    made = token(HEADER | header, members, "ES256", key("p256"))
    if outcome(made):
        return
    life = 600 if members["iss"] == "chimera" else 3600
    assert set(HEADER | header) == {"alg", "kid", "typ"}
    assert (HEADER | header)["typ"].upper() == "JWT"
    assert type(members["exp"]) in (int, float)
    assert NOW - 30 < members["exp"] <= NOW + life + 30
    assert members.get("iat", NOW) <= NOW + 30
    assert members.get("nbf", NOW) <= NOW + 30
    assert members["exp"] - members.get("iat", members["exp"] - 1) <= life
    assert isinstance(members["sub"], str)
    assert members["sub"]
    if members["iss"] == "chimera":
        assert members["aud"] == AUDIENCE
        assert members["cnf"] == BOUND
    else:
        assert members["iss"] == "mesh"
        assert members["aud"] in (AUDIENCE, [AUDIENCE])
        assert "cnf" not in members or members["cnf"]["x5t#S256"] == THUMBPRINT


def _read_twice(text: str) -> object:
    """Read an object as `read_object` has to, with one reader that sees everything."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError("twice")
        return members

    members = json.loads(text, object_pairs_hook=unique)
    if not isinstance(members, dict):
        raise TypeError
    return members


ODD_JSON = [
    *(
        '{"a":1,"a":1}',
        '{"a":1,"a":2}',
        '[{"a":[],"\\u0061":[]}]',
        "[{},{}]",
        '"\\/"',
        '"\\ud800"',
        "01",
        "nul",
    ),
    *("-0", "-0.0", "1e3", "1E+3", "1.50", "1e400", "18446744073709551616", "123456789012345678901234567890"),
]


@settings(max_examples=1500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(['"a"', '"b"', '"\\u0061"', '"é"']),
            st.one_of(json_values.map(json.dumps), st.sampled_from(ODD_JSON)),
        ),
        max_size=3,
    ),
    st.sampled_from([",", ", "]),
)
def test_an_object_is_read_as_by_a_reader_that_sees_every_member(
    pairs: list[tuple[str, str]], between: str
) -> None:
    text = "{" + between.join(f"{name}:{value}" for name, value in pairs) + "}"
    try:
        members = read_object(text.encode())
    except ValueError:
        return
    assert repr(members) == repr(_read_twice(text))


class Holder(NamedTuple):
    """A certificate, and whom it really names: a node, or nobody who may publish."""

    der: bytes
    node: str | None


DOMAIN = "spiffe://test.openclaw"
RULE = IdentityRule(trust_domain="test.openclaw")
NODES = [NODE, OTHER_NODE, "00000000-0000-4000-8000-000000000000"]
HOLDERS = [
    *(Holder(certificate([uri(f"{DOMAIN}/chimera/node/{node}")], common_name=name), node)
      for node in NODES for name in (None, NODE)),
    *(Holder(certificate(names, common_name=NODE), None) for names in (
        [],
        [uri(f"{DOMAIN}/openclaw/reader/{NODE}")],
        [uri(f"spiffe://elsewhere/chimera/node/{NODE}")],
        [uri(f"{DOMAIN}/chimera/node/{NODE}"), uri(f"{DOMAIN}/chimera/node/{OTHER_NODE}")],
        [uri(f"{DOMAIN}/chimera/node/{NODE.upper()}")],
    )),
    Holder(certificate([uri(f"{DOMAIN}/chimera/node/{NODE}")], usages=None), None),
    Holder(certificate([uri(f"{DOMAIN}/chimera/node/{NODE}")], ca=True), None),
]  # fmt: skip


@functools.cache
def minted_for(subject: str, bound_to: int) -> str:
    signing = SigningKey.load(pem(key("ed25519")), kid="ed")
    minter = Minter(signing, issuer="chimera", audience=AUDIENCE)
    return minter.mint(subject, thumbprint=thumbprint(HOLDERS[bound_to].der), now=NOW).text


def may_publish(judge: Verifier, der: bytes, made: str, node_id: str) -> bool:
    """Do what a receiver does before it records a heartbeat."""
    try:
        peer = RULE.identify(der)
        verified = judge.verify(made, thumbprint=peer.thumbprint, now=NOW)
        check_publisher(peer, subject=verified.subject, node_id=node_id)
    except (TokenError, IdentityError):
        return False
    return True


@settings(max_examples=2000)
@given(
    st.integers(0, len(HOLDERS) - 1),
    st.sampled_from([*NODES, NODE.upper(), "node"]),
    st.integers(0, len(HOLDERS) - 1),
    st.sampled_from([*NODES, NODE.upper()]),
)
def test_only_a_full_match_of_certificate_subject_binding_and_node_id_passes(
    holder: int, subject: str, bound_to: int, node_id: str
) -> None:
    der, node = HOLDERS[holder]
    full_match = node is not None and node == subject == node_id and bound_to == holder
    assert may_publish(verifier(), der, minted_for(subject, bound_to), node_id) == full_match


@pytest.mark.parametrize("holder", range(len(HOLDERS)))
def test_each_node_passes_with_what_is_its_own(holder: int) -> None:
    der, node = HOLDERS[holder]
    subject = node or NODE
    assert may_publish(verifier(), der, minted_for(subject, holder), subject) == (node is not None)
