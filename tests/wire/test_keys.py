from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt import PyJWS
from wire.forge import DROP, jwk, key, pem, public_pem
from wire.scene import jwks

from openclaw_exporter.errors import CredentialError
from openclaw_exporter.wire.tokens import Algorithm, KeySet, SigningKey, public_jwks
from openclaw_exporter.wire.tokens.keys import MAX_JWKS_BYTES

PRIVATE_PARTS = {
    "d": "AA",
    "p": "AA",
    "q": "AA",
    "dp": "AA",
    "dq": "AA",
    "qi": "AA",
    "oth": [],
    "k": "AA",
    "priv": "A",
}


@pytest.mark.parametrize(
    ("kind", "algorithm", "chosen"),
    [
        ("p256", None, "ES256"),
        ("p256", "ES256", "ES256"),
        ("ed25519", None, "EdDSA"),
        ("rsa2048", None, "RS256"),
        ("rsa2048", "PS256", "PS256"),
    ],
)
def test_a_signing_key_is_loaded_and_its_public_half_verifies(
    kind: str, algorithm: Algorithm | None, chosen: Algorithm
) -> None:
    signing = SigningKey.load(pem(key(kind)), kid="k-1", algorithm=algorithm)
    assert (signing.kid, signing.algorithm) == ("k-1", chosen)
    found = KeySet.from_jwks(public_jwks([signing])).get("k-1")
    assert found is not None
    assert found.algorithms == (chosen,)
    assert found.verify(chosen, b"text", signing.sign(b"text"))
    assert not found.verify(chosen, b"other", signing.sign(b"text"))


@given(
    st.sampled_from([("p256", "ES256"), ("ed25519", "EdDSA"), ("rsa2048", "RS256"), ("rsa2048", "PS256")]),
    st.integers(-2, 2),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=2),
    st.sampled_from([None, b"", bytes(64), bytes(32) + b"\1" * 32, b"\1" * 32 + bytes(32), b"\xff" * 64]),
)
def test_a_signature_holds_exactly_where_pyjwt_says_so(
    pair: tuple[str, Algorithm], longer: int, edits: list[tuple[float, int]], whole: bytes | None
) -> None:
    kind, algorithm = pair
    signing = SigningKey.load(pem(key(kind)), kid="k", algorithm=algorithm)
    found = KeySet.from_jwks(public_jwks([signing])).get("k")
    assert found is not None
    signature = bytearray(signing.sign(b"text") if whole is None else whole)
    for where, value in edits:
        if signature:
            signature[int(where * len(signature))] = value
    made = bytes(signature[: len(signature) + longer] if longer < 0 else signature + bytes(longer))
    judge: Any = PyJWS(algorithms=[algorithm]).get_algorithm_by_name(algorithm)
    assert found.verify(algorithm, b"text", made) == judge.verify(b"text", found.public, made)


def test_the_older_pem_forms_are_read() -> None:
    for kind in ("p256", "rsa2048"):
        form = key(kind).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert SigningKey.load(form, kid="k").kid == "k"


def test_a_signing_key_shows_nothing_of_itself() -> None:
    signing = SigningKey.load(pem(key("p256")), kid="k-1")
    assert repr(signing) == "SigningKey(kid='k-1', algorithm='ES256')"
    private = json.loads(json.dumps(jwk("p256")))
    published = public_jwks([signing])
    assert b'"d"' not in published
    assert json.loads(published)["keys"] == [private | {"kid": "k-1", "alg": "ES256", "use": "sig"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private key"),
        (public_pem(key("p256")), "not a private key"),
        (pem(key("p256"), b"secret"), "encrypted"),
        (pem(key("p384")), "only P-256, Ed25519 and RSA"),
        (pem(key("secp256k1")), "only P-256, Ed25519 and RSA"),
        (pem(key("ed448")), "only P-256, Ed25519 and RSA"),
        (pem(x25519.X25519PrivateKey.generate()), "only P-256, Ed25519 and RSA"),
        (pem(dsa.generate_private_key(2048)), "only P-256, Ed25519 and RSA"),
        (pem(key("rsa1024")), "2048 to 8192 bits"),
        (pem(key("rsa2048e3")), "public exponent"),
    ],
)
def test_an_unusable_signing_key_is_refused_with_its_place(content: bytes, reason: str) -> None:
    with pytest.raises(CredentialError, match=reason) as caught:
        SigningKey.load(content, kid="k", source="/etc/openclaw/token.key")
    assert str(caught.value).startswith("/etc/openclaw/token.key: ")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kid", ["", "a b", "é", "k" * 129, "a\n"])
def test_a_kid_that_no_receiver_accepts_is_refused(kid: str) -> None:
    with pytest.raises(CredentialError, match="kid must be"):
        SigningKey.load(pem(key("p256")), kid=kid)


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("p256", "RS256"), ("rsa2048", "ES256"), ("ed25519", "ES256"), ("p256", "HS256")]
)
def test_a_key_signs_only_what_fits_it(kind: str, algorithm: Any) -> None:
    with pytest.raises(CredentialError, match=f"cannot sign {algorithm}"):
        SigningKey.load(pem(key(kind)), kid="k", algorithm=algorithm)


def test_two_signing_keys_need_two_kids() -> None:
    signing = SigningKey.load(pem(key("p256")), kid="k")
    with pytest.raises(CredentialError, match="one kid"):
        public_jwks([signing, signing])


@pytest.mark.parametrize(
    ("members", "algorithms"),
    [
        (jwk("p256", kid="k"), ("ES256",)),
        (jwk("p256", kid="k", alg="ES256", use="sig", key_ops=["verify"]), ("ES256",)),
        (jwk("ed25519", kid="k"), ("EdDSA",)),
        (jwk("rsa2048", kid="k"), ("RS256", "PS256")),
        (jwk("rsa2048", kid="k", alg="RS256"), ("RS256",)),
        (jwk("rsa2048", kid="k", alg="PS256"), ("PS256",)),
        (jwk("p256", kid="k", x5c=["MIIB"], x5t="x", **{"x-further": 1}), ("ES256",)),
        (jwk("p256", kid="k", key_ops=["sign", "verify"]), ("ES256",)),
    ],
)
def test_a_public_key_serves_what_it_says(members: dict[str, Any], algorithms: tuple[str, ...]) -> None:
    keys = KeySet.from_jwks(jwks([members]))
    found = keys.get("k")
    assert found is not None
    assert found.algorithms == algorithms
    assert (len(keys), keys.key_ids, keys.skipped) == (1, {"k"}, ())
    for other in {"ES256", "EdDSA", "RS256", "PS256"} - set(algorithms):
        assert not found.verify(other, b"", b"")  # type: ignore[arg-type]


SKIPPED = [
    (jwk("p384", kid="k"), "only P-256"),
    (jwk("ed448", kid="k"), "only P-256"),
    (jwk("secp256k1", kid="k"), "only P-256"),
    (jwk("rsa1024", kid="k"), "2048 to 8192 bits"),
    (jwk("rsa2048e3", kid="k"), "public exponent"),
    (jwk("p256", kid="k", kty="AKP"), "kty"),
    (jwk("p256", kid="k", kty=DROP), "kty"),
    (jwk("p256", kid="k", kty=["EC"]), "kty"),
    (jwk("p256", kid="k", kty="RSA"), "members"),
    (jwk("p256", kid="k", kty="OKP"), "members"),
    (jwk("p256", kid="k", crv="P-384"), "members"),
    (jwk("p256", kid="k", crv="Ed25519"), "members"),
    (jwk("p256", kid="k", x="AAAA"), "members"),
    (jwk("p256", kid="k", x=1), "members"),
    (jwk("p256", kid="k", x=DROP), "members"),
    (jwk("p256", kid="k", y=jwk("p256")["x"]), "members"),
    (jwk("ed25519", kid="k", x="AAAA"), "members"),
    (jwk("rsa2048", kid="k", e=""), "members"),
    (jwk("rsa2048", kid="k", n=None), "members"),
    (jwk("p256", kid="k", alg="RS256"), "alg"),
    (jwk("p256", kid="k", alg="HS256"), "alg"),
    (jwk("p256", kid="k", alg="none"), "alg"),
    (jwk("p256", kid="k", alg=["ES256"]), "alg"),
    (jwk("p384", kid="k", alg="ES256"), "only P-256"),
    (jwk("rsa2048", kid="k", alg="RS512"), "alg"),
    (jwk("ed25519", kid="k", alg="ES256"), "alg"),
    (jwk("p256", kid="k", use="enc"), "use"),
    (jwk("p256", kid="k", use=None), "use"),
    (jwk("p256", kid="k", key_ops=["sign"]), "key_ops"),
    (jwk("p256", kid="k", key_ops="verify"), "key_ops"),
    (jwk("p256", kid=DROP), "kid"),
    (jwk("p256", kid=""), "kid"),
    (jwk("p256", kid=5), "kid"),
    (jwk("p256", kid="a\nb"), "kid"),
    (jwk("p256", kid="k" * 129), "kid"),
]


@pytest.mark.parametrize(("members", "reason"), SKIPPED)
def test_an_unusable_public_key_is_left_out_with_a_note(members: dict[str, Any], reason: str) -> None:
    keys = KeySet.from_jwks(jwks([jwk("p256", "good", kid="good"), members]))
    assert keys.key_ids == {"good"}
    assert len(keys.skipped) == 1
    assert keys.skipped[0].startswith("keys[1]: ")
    assert reason in keys.skipped[0]
    with pytest.raises(CredentialError, match="no key in it can be used"):
        KeySet.from_jwks(jwks([members]))


@pytest.mark.parametrize("part", PRIVATE_PARTS)
@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa2048"])
def test_a_private_key_is_refused_aloud(kind: str, part: str) -> None:
    members = jwk(kind, kid="k", **{part: PRIVATE_PARTS[part]})
    with pytest.raises(CredentialError, match="private or symmetric key"):
        KeySet.from_jwks(jwks([jwk("p256", "good", kid="good"), members]))


def test_a_symmetric_key_is_refused_aloud() -> None:
    with pytest.raises(CredentialError, match="private or symmetric key"):
        KeySet.from_jwks(jwks([{"kty": "oct", "kid": "k"}]))


def test_one_kid_for_two_keys_is_refused() -> None:
    with pytest.raises(CredentialError, match=r"keys\[1\] has the kid of another key"):
        KeySet.from_jwks(jwks([jwk("p256", kid="k"), jwk("ed25519", kid="k")]))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not a strict JSON object"),
        (b"[]", "not a strict JSON object"),
        (b"\xff", "not a strict JSON object"),
        (b'{"keys": [], "keys": []}', "not a strict JSON object"),
        (b'{"keys": [NaN]}', "not a strict JSON object"),
        (b"[" * 100_000, "not a strict JSON object"),
        (b"{}", "no array `keys`"),
        (b'{"keys": {}}', "no array `keys`"),
        (b'{"keys": []}', "it is empty"),
        (b'{"keys": [1]}', "is not an object"),
        (b" " * (MAX_JWKS_BYTES + 1), "that is no key set"),
    ],
)
def test_what_is_no_key_set_is_refused_with_its_place(document: bytes, reason: str) -> None:
    with pytest.raises(CredentialError, match=reason) as caught:
        KeySet.from_jwks(document, source="jwks.json")
    assert str(caught.value).startswith("jwks.json: ")


VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=50), st.lists(st.text(max_size=4), max_size=2))


@given(
    st.sampled_from(["p256", "ed25519", "rsa2048"]),
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "key_ops", "kid"]), VALUES
    ),
)
def test_no_key_set_raises_anything_else(kind: str, changes: dict[str, Any]) -> None:
    try:
        keys = KeySet.from_jwks(jwks([jwk(kind, kid="k") | changes]))
    except CredentialError:
        return
    assert len(keys) == 1
