"""The matrix of token attacks: how each is forged, and the case by which it is to be refused."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from wire.forge import DROP, NODE, b64, certificate, jwk, key, public_pem, sign, text, token

from openclaw_exporter.wire.certificates import thumbprint
from openclaw_exporter.wire.tokens import ALGORITHMS, Issuer, KeySet, Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_770_000_000
AUDIENCE = "openclaw-receiver"
THUMBPRINT = thumbprint(certificate(common_name="this connection"))
OTHER_THUMBPRINT = thumbprint(certificate(common_name="another connection"))
BOUND = {"x5t#S256": THUMBPRINT}
HEADER = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
CLAIMS = {
    "iss": "chimera",
    "sub": NODE,
    "aud": AUDIENCE,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 600,
    "cnf": BOUND,
}
EXTERNAL = {"iss": "mesh", "sub": "system:node", "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 3600}


@functools.cache
def verifier() -> Verifier:
    """Return a receiver's verifier: two issuers on common keys, one with keys of its own."""
    common = [
        jwk("p256", kid="ec", alg="ES256", use="sig"),
        jwk("ed25519", kid="ed"),
        jwk("rsa2048", kid="rsa"),
        jwk("rsa2048", "ps", kid="ps", alg="PS256"),
        jwk("p384", kid="p384"),
        jwk("p384", kid="p384-as-es256", alg="ES256"),
        jwk("ed448", kid="ed448"),
        jwk("secp256k1", kid="secp256k1"),
        jwk("rsa1024", kid="rsa1024"),
        jwk("rsa2048e3", kid="rsa-e3"),
    ]
    own = [jwk("p256", "platform", kid="platform"), jwk("rsa2048", "platform", kid="platform-rsa")]
    issuers = [
        Issuer("chimera", AUDIENCE, "minted", ALGORITHMS),
        Issuer("mesh", AUDIENCE, "external", ALGORITHMS, max_life=3600),
        Issuer("platform", AUDIENCE, "external", ("ES256",), max_life=3600, keys=KeySet.from_jwks(jwks(own))),
    ]
    return Verifier(KeySet.from_jwks(jwks(common)), issuers)


def jwks(keys: list[dict[str, Any]]) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": keys}).encode()


def minted(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a minted token with changes, signed rightly by the key `ec`."""
    return token(HEADER | (header or {}), CLAIMS | claims, "ES256", key("p256"))


def external(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return an external token with changes, signed rightly by the key `ec`."""
    return token(HEADER | (header or {}), EXTERNAL | claims, "ES256", key("p256"))


def signed_by(algorithm: str, kid: str, private: Any, **claims: Any) -> str:
    """Return a minted token that another key and algorithm sign."""
    return token(HEADER | {"alg": algorithm, "kid": kid}, CLAIMS | claims, algorithm, private)


def claiming(algorithm: object, kid: str = "ec") -> str:
    """Return a token that names an algorithm but is signed as ES256."""
    return token(HEADER | {"alg": algorithm, "kid": kid}, CLAIMS, "ES256", key("p256"))


def raw(header: bytes | None = None, claims: bytes | None = None) -> str:
    """Return a rightly signed token whose header or claims are any bytes."""
    return token(text(HEADER) if header is None else header, text(CLAIMS) if claims is None else claims,
                 "ES256", key("p256"))  # fmt: skip


def hmac_with(secret: bytes, algorithm: str = "HS256") -> str:
    """Return a token signed with a public key's text as HMAC secret: the classic confusion."""
    signing_input = f"{b64(text(HEADER | {'alg': algorithm}))}.{b64(text(CLAIMS))}"
    return f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), hashlib.sha256).digest())}"


def with_signature(change: Callable[[bytes], bytes], kid: str = "ec", algorithm: str = "ES256") -> str:
    """Return a token whose signature is changed afterwards."""
    private = {"ec": key("p256"), "ed": key("ed25519"), "rsa": key("rsa2048")}[kid]
    signing_input = f"{b64(text(HEADER | {'alg': algorithm, 'kid': kid}))}.{b64(text(CLAIMS))}"
    return f"{signing_input}.{b64(change(sign(algorithm, private, signing_input)))}"


def swapped(segment: int, other: str) -> str:
    """Return a valid token in which one segment is another valid token's."""
    segments = minted().split(".")
    segments[segment] = other.split(".")[segment]
    return ".".join(segments)


def segment_changed(segment: int, change: Callable[[str], str]) -> str:
    """Return a valid token with one segment's text changed."""
    segments = minted().split(".")
    segments[segment] = change(segments[segment])
    return ".".join(segments)


def with_last_bits(encoded: str) -> str:
    """Return base64url of the same bytes with its unused last bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(encoded) % 4, "no bits are unused"
    changed = encoded[:-1] + alphabet[alphabet.index(encoded[-1]) | 1]
    padding = "=" * (-len(encoded) % 4)
    assert urlsafe_b64decode(changed + padding) == urlsafe_b64decode(encoded + padding)
    return changed


def noncanonical(segment: int) -> str:
    """Return a token one of whose segments has unused bits set, correctly signed as it stands."""
    # Spaces are legal in JSON; one or two make the length leave bits over.
    header, claims = (
        next(b64(content) for pad in range(3) if len(content := text(members) + b" " * pad) % 3)
        for members in (HEADER, CLAIMS)
    )
    parts = [header, claims]
    if segment < len(parts):
        parts[segment] = with_last_bits(parts[segment])
    parts.append(b64(sign("ES256", key("p256"), ".".join(parts))))
    if segment == len(parts) - 1:
        parts[segment] = with_last_bits(parts[segment])
    return ".".join(parts)


def raised_scalar(signature: bytes) -> bytes:
    """Return an Ed25519 signature with S + L for S: RFC 8032, 5.1.7 forbids it."""
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    return signature[:32] + scalar.to_bytes(32, "little")


def as_der(signature: bytes) -> bytes:
    """Return an ES256 signature in the form that TLS uses and JOSE does not."""
    return encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))


class Attack(NamedTuple):
    """One attack."""

    name: str
    slug: str
    make: Callable[[], str | bytes]


def _cases(slug: str, **makers: Callable[[], str | bytes]) -> list[Attack]:
    return [Attack(name.replace("_", " "), slug, make) for name, make in makers.items()]


FORM = [
    *_cases("token-missing", empty=lambda: "", empty_bytes=lambda: b""),
    *_cases(
        "token-malformed",
        one_segment=lambda: "abc",
        two_segments=lambda: minted().rpartition(".")[0],
        four_segments=lambda: minted() + ".x",
        five_segments_as_jwe=lambda: minted() + ".abc.def",
        only_dots=lambda: "..",
        empty_header=lambda: segment_changed(0, lambda _: ""),
        empty_claims_detached=lambda: segment_changed(1, lambda _: ""),
        padded_header=lambda: segment_changed(0, lambda part: part + "="),
        padded_claims=lambda: segment_changed(1, lambda part: part + "=="),
        padded_signature=lambda: minted() + "==",
        header_bits=lambda: noncanonical(0),
        claims_bits=lambda: noncanonical(1),
        signature_bits=lambda: noncanonical(2),
        impossible_length=lambda: segment_changed(1, lambda part: part[: len(part) // 4 * 4 - 3]),
        standard_alphabet_plus=lambda: segment_changed(2, lambda part: "+" + part[1:]),
        standard_alphabet_slash=lambda: segment_changed(2, lambda part: "/" + part[1:]),
        leading_space=lambda: " " + minted(),
        trailing_newline=lambda: minted() + "\n",
        line_break_inside=lambda: segment_changed(1, lambda part: part[:20] + "\r\n" + part[20:]),
        with_its_scheme=lambda: "Bearer " + minted(),
        two_tokens=lambda: f"{minted()},{minted()}",
        not_ascii=lambda: minted() + "é",
        fullwidth_letters=lambda: segment_changed(0, lambda part: "\uff45" + part[1:]),
        lone_surrogate=lambda: minted() + "\ud800",
        raw_bytes=lambda: minted().encode() + b"\xff",
        nul=lambda: minted().encode() + b"\x00",
        json_serialization=lambda: json.dumps({"payload": "e30", "signatures": []}),
        unencoded_json=lambda: f"{json.dumps(HEADER)}.{json.dumps(CLAIMS)}.x",
    ),
    *_cases(
        "token-too-large",
        four_kib_and_one=lambda: (made := minted()) + "A" * (4097 - len(made)),
        large_but_signed=lambda: minted(padding="x" * 3000),
        a_mebibyte=lambda: "A" * (1 << 20),
        a_mebibyte_of_dots=lambda: b"." * (1 << 20),
    ),
]

HEADERS = [
    *_cases(
        "token-header",
        no_json=lambda: raw(header=b"hello"),
        cut_json=lambda: raw(header=text(HEADER)[:-1]),
        two_values=lambda: raw(header=text(HEADER) * 2),
        an_array=lambda: raw(header=b"[]"),
        a_string=lambda: raw(header=b'"x"'),
        null=lambda: raw(header=b"null"),
        invalid_utf8=lambda: raw(header=b'{"alg":"ES256","kid":"ec","x":"\xff"}'),
        bom=lambda: raw(header=b"\xef\xbb\xbf" + text(HEADER)),
        utf_16=lambda: raw(header=text(HEADER).decode().encode("utf-16")),
        nan=lambda: raw(header=b'{"alg":"ES256","kid":"ec","x":NaN}'),
        deep=lambda: raw(header=b'{"x":' + b"[" * 1300 + b"]" * 1300 + b"}"),
        duplicate_alg=lambda: raw(header=b'{"alg":"none","alg":"ES256","kid":"ec"}'),
        duplicate_kid=lambda: raw(header=b'{"alg":"ES256","kid":"x","kid":"ec"}'),
        duplicate_by_escape=lambda: raw(header=b'{"alg":"ES256","kid":"x","k\\u0069d":"ec"}'),
        crit=lambda: minted({"crit": ["exp"]}),
        crit_empty=lambda: minted({"crit": []}),
        crit_of_nothing=lambda: minted({"crit": ["urn:example:x"], "urn:example:x": True}),
        b64_false=lambda: minted({"b64": False}),
        b64_false_critical=lambda: minted({"b64": False, "crit": ["b64"]}),
        b64_true=lambda: minted({"b64": True}),
        jku=lambda: minted({"jku": "https://attacker.example/jwks.json"}),
        jwk=lambda: minted({"jwk": jwk("p256", "attacker")}),
        x5u=lambda: minted({"x5u": "https://attacker.example/chain.pem"}),
        x5c=lambda: minted({"x5c": ["MIIB"]}),
        zip=lambda: minted({"zip": "DEF"}),
        cty_nested=lambda: minted({"cty": "JWT"}),
        enc=lambda: minted({"enc": "A256GCM"}),
        iss_in_header=lambda: minted({"iss": "chimera"}),
        unknown_member=lambda: minted({"x": 1}),
        thumbprint_in_minted=lambda: minted({"x5t#S256": THUMBPRINT}),
        external_jku=lambda: external({"jku": "https://attacker.example/jwks.json"}),
        external_crit=lambda: external({"crit": ["exp"]}),
        typ_access_token=lambda: minted({"typ": "at+jwt"}),
        typ_logout=lambda: minted({"typ": "logout+jwt"}),
        typ_proof=lambda: external({"typ": "dpop+jwt"}),
        typ_jose=lambda: minted({"typ": "JOSE"}),
        typ_empty=lambda: minted({"typ": ""}),
        typ_null=lambda: minted({"typ": None}),
        typ_list=lambda: minted({"typ": ["JWT"]}),
        typ_spaced=lambda: minted({"typ": "JWT "}),
        kid_missing=lambda: minted({"kid": DROP}),
        kid_null=lambda: minted({"kid": None}),
        kid_number=lambda: minted({"kid": 1}),
        kid_list=lambda: minted({"kid": ["ec"]}),
        kid_object=lambda: minted({"kid": {"ec": 1}}),
        kid_empty=lambda: minted({"kid": ""}),
        kid_overlong=lambda: minted({"kid": "k" * 129}),
        kid_newline=lambda: minted({"kid": "ec\n"}),
        kid_nul=lambda: minted({"kid": "ec\x00"}),
        kid_not_ascii=lambda: minted({"kid": "é"}),
        kid_sql=lambda: minted({"kid": "x' UNION SELECT 'key"}),
    ),
    *_cases(
        "token-key-unknown",
        kid_unknown=lambda: minted({"kid": "nobody"}),
        kid_path=lambda: minted({"kid": "../../../../dev/null"}),
        kid_url=lambda: minted({"kid": "https://attacker.example/key"}),
        kid_command=lambda: minted({"kid": "|id"}),
        kid_other_case=lambda: minted({"kid": "EC"}),
        kid_longest=lambda: minted({"kid": "k" * 128}),
        key_of_the_attacker=lambda: signed_by("ES256", "mine", key("p256", "attacker")),
        weak_rsa=lambda: signed_by("RS256", "rsa1024", key("rsa1024")),
        weak_exponent=lambda: signed_by("RS256", "rsa-e3", key("rsa2048e3")),
        ed448=lambda: signed_by("EdDSA", "ed448", key("ed448")),
        p384_as_es256=lambda: claiming("ES256", "p384-as-es256"),
        secp256k1_as_es256=lambda: claiming("ES256", "secp256k1"),
        platforms_key_for_chimera=lambda: signed_by("ES256", "platform", key("p256", "platform")),
        common_key_for_platform=lambda: external(iss="platform"),
    ),
]

ALGORITHM = [
    *_cases(
        "token-algorithm",
        none=lambda: token(HEADER | {"alg": "none"}, CLAIMS, "none", None),
        none_but_signed=lambda: claiming("none"),
        none_capital=lambda: claiming("None"),
        none_mixed=lambda: claiming("nOnE"),
        missing=lambda: claiming(DROP),
        null=lambda: claiming(None),
        empty=lambda: claiming(""),
        number=lambda: claiming(256),
        list=lambda: claiming(["ES256"]),
        object=lambda: claiming({"ES256": 1}),
        lower_case=lambda: claiming("es256"),
        spaced=lambda: claiming("ES256 "),
        hs256_public_pem=lambda: hmac_with(public_pem(key("p256"))),
        hs256_public_pem_stripped=lambda: hmac_with(public_pem(key("p256")).strip()),
        hs256_jwk=lambda: hmac_with(json.dumps(jwk("p256")).encode()),
        hs256_coordinate=lambda: hmac_with(jwk("p256")["x"].encode()),
        hs256_empty_secret=lambda: hmac_with(b""),
        hs384=lambda: hmac_with(public_pem(key("p256")), "HS384"),
        hs512=lambda: hmac_with(public_pem(key("p256")), "HS512"),
        rs512=lambda: signed_by("RS512", "rsa", key("rsa2048")),
        ps512=lambda: signed_by("PS512", "rsa", key("rsa2048")),
        es384=lambda: signed_by("ES384", "p384", key("p384")),
        es512=lambda: claiming("ES512"),
        es256k=lambda: signed_by("ES256K", "secp256k1", key("secp256k1")),
        ed25519_by_its_new_name=lambda: claiming("Ed25519", "ed"),
        eddsa_on_ec_key=lambda: claiming("EdDSA", "ec"),
        es256_on_ed_key=lambda: claiming("ES256", "ed"),
        es256_on_rsa_key=lambda: claiming("ES256", "rsa"),
        rs256_on_ec_key=lambda: signed_by("RS256", "ec", key("rsa2048", "attacker")),
        rs256_on_ps256_key=lambda: signed_by("RS256", "ps", key("rsa2048", "ps")),
        not_the_issuers=lambda: token(
            {"alg": "RS256", "kid": "platform-rsa"},
            EXTERNAL | {"iss": "platform"},
            "RS256",
            key("rsa2048", "platform"),
        ),
    ),
]

SIGNATURE = _cases(
    "token-signature",
    empty=lambda: with_signature(lambda _: b""),
    cut=lambda: with_signature(lambda made: made[:-1]),
    extended=lambda: with_signature(lambda made: made + b"\x00"),
    flipped=lambda: with_signature(lambda made: made[:-1] + bytes([made[-1] ^ 1])),
    halves_swapped=lambda: with_signature(lambda made: made[32:] + made[:32]),
    psychic_zeros=lambda: with_signature(lambda _: bytes(64)),
    psychic_orders=lambda: with_signature(
        lambda _: 2 * bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
    ),
    as_der=lambda: with_signature(as_der),
    eddsa_zeros=lambda: with_signature(lambda _: bytes(64), "ed", "EdDSA"),
    eddsa_neutral_point=lambda: with_signature(lambda _: b"\x01" + bytes(63), "ed", "EdDSA"),
    eddsa_malleable=lambda: with_signature(raised_scalar, "ed", "EdDSA"),
    eddsa_cut=lambda: with_signature(lambda made: made[:32], "ed", "EdDSA"),
    rsa_zeros=lambda: with_signature(lambda _: bytes(256), "rsa", "RS256"),
    rsa_one=lambda: with_signature(lambda _: bytes(255) + b"\x01", "rsa", "RS256"),
    rsa_extended=lambda: with_signature(lambda made: b"\x00" + made, "rsa", "RS256"),
    rsa_huge=lambda: with_signature(lambda _: b"\xff" * 1024, "rsa", "RS256"),
    rs256_named_ps256=lambda: token(HEADER | {"alg": "PS256", "kid": "rsa"}, CLAIMS, "RS256", key("rsa2048")),
    ps256_named_rs256=lambda: token(HEADER | {"alg": "RS256", "kid": "rsa"}, CLAIMS, "PS256", key("rsa2048")),
    another_key=lambda: token(HEADER, CLAIMS, "ES256", key("p256", "attacker")),
    the_connections_key=lambda: token(HEADER, CLAIMS, "ES256", key("p256", "certificate")),
    claims_of_another=lambda: swapped(1, minted(sub="admin")),
    header_of_another=lambda: swapped(0, minted({"typ": "jwt"})),
    signature_of_another=lambda: swapped(2, minted(exp=NOW + 599)),
)

CLAIM_FORM = _cases(
    "token-claims",
    no_json=lambda: raw(claims=b"hello"),
    an_array=lambda: raw(claims=b"[]"),
    null=lambda: raw(claims=b"null"),
    invalid_utf8=lambda: raw(claims=text(CLAIMS).replace(b"chimera", b"chimer\xff")),
    bom=lambda: raw(claims=b"\xef\xbb\xbf" + text(CLAIMS)),
    lone_surrogate=lambda: raw(claims=text(CLAIMS | {"sub": "@"}).replace(b"@", b"\\ud800")),
    deep=lambda: raw(claims=b'{"x":' + b"[" * 1300 + b"]" * 1300 + b"}"),
    duplicate_exp=lambda: raw(claims=text(CLAIMS)[:-1] + b',"exp":%d}' % (NOW + 600)),
    duplicate_sub=lambda: raw(claims=b'{"sub":"admin",' + text(CLAIMS)[1:]),
    duplicate_in_cnf=lambda: raw(claims=text(CLAIMS).replace(b'"cnf": {', b'"cnf": {"x5t#S256": "x", ')),
    duplicate_in_unknown=lambda: raw(claims=text(CLAIMS)[:-1] + b',"x":[{"a":1,"a":2}]}'),
    exp_nan=lambda: raw(claims=text(CLAIMS | {"exp": 7777}).replace(b"7777", b"NaN")),
    exp_infinity=lambda: raw(claims=text(CLAIMS | {"exp": 7777}).replace(b"7777", b"Infinity")),
    exp_beyond_doubles=lambda: raw(claims=text(CLAIMS | {"exp": 7777}).replace(b"7777", b"1e999")),
    exp_400_digits=lambda: raw(claims=text(CLAIMS | {"exp": 7777}).replace(b"7777", b"9" * 400)),
    exp_missing=lambda: minted(exp=DROP),
    exp_null=lambda: minted(exp=None),
    exp_string=lambda: minted(exp=str(NOW + 600)),
    exp_bool=lambda: minted(exp=True),
    exp_list=lambda: minted(exp=[NOW + 600]),
    exp_negative=lambda: minted(exp=-1),
    exp_huge=lambda: minted(exp=1e30),
    exp_beyond_64_bits=lambda: minted(exp=2**64 + NOW),
    exp_missing_external=lambda: external(exp=DROP),
    exp_string_external=lambda: external(exp=str(NOW + 600)),
    exp_is_iat=lambda: minted(exp=NOW),
    exp_before_iat=lambda: minted(exp=NOW - 1),
    exp_before_nbf=lambda: minted(nbf=NOW + 20, exp=NOW + 10),
    iat_missing=lambda: minted(iat=DROP),
    iat_string=lambda: minted(iat=str(NOW)),
    iat_bool=lambda: minted(iat=True),
    iat_null=lambda: minted(iat=None),
    iat_string_external=lambda: external(iat=str(NOW)),
    nbf_missing=lambda: minted(nbf=DROP),
    nbf_string=lambda: minted(nbf=str(NOW)),
    nbf_bool_external=lambda: external(nbf=False),
    sub_missing=lambda: minted(sub=DROP),
    sub_empty=lambda: minted(sub=""),
    sub_null=lambda: minted(sub=None),
    sub_number=lambda: minted(sub=1),
    sub_list=lambda: minted(sub=[NODE]),
    sub_overlong=lambda: minted(sub="s" * 256),
    sub_newline=lambda: minted(sub=NODE + "\n"),
    sub_missing_external=lambda: external(sub=DROP),
)

CLAIM_MEANING = [
    *_cases(
        "token-issuer",
        missing=lambda: minted(iss=DROP),
        unknown=lambda: minted(iss="nobody"),
        empty=lambda: minted(iss=""),
        null=lambda: minted(iss=None),
        list=lambda: minted(iss=["chimera"]),
        object=lambda: minted(iss={"chimera": 1}),
        slash=lambda: minted(iss="chimera/"),
        other_case=lambda: minted(iss="Chimera"),
        prefix=lambda: minted(iss="chimera.attacker.example"),
    ),
    *_cases(
        "token-audience",
        missing=lambda: minted(aud=DROP),
        other=lambda: minted(aud="other"),
        null=lambda: minted(aud=None),
        empty=lambda: minted(aud=""),
        list_of_one=lambda: minted(aud=[AUDIENCE]),
        list_of_two=lambda: minted(aud=[AUDIENCE, "other"]),
        object=lambda: minted(aud={AUDIENCE: 1}),
        prefix=lambda: minted(aud=AUDIENCE + "-2"),
        other_case=lambda: minted(aud=AUDIENCE.upper()),
        external_list_of_two=lambda: external(aud=[AUDIENCE, "other"]),
        external_same_twice=lambda: external(aud=[AUDIENCE, AUDIENCE]),
        external_empty_list=lambda: external(aud=[]),
        external_other=lambda: external(aud=["other"]),
        external_nested_list=lambda: external(aud=[[AUDIENCE]]),
        external_missing=lambda: external(aud=DROP),
    ),
    *_cases(
        "token-expired",
        at_the_end_of_the_leeway=lambda: minted(iat=NOW - 630, nbf=NOW - 630, exp=NOW - 30),
        by_90_seconds=lambda: minted(iat=NOW - 600, nbf=NOW - 600, exp=NOW - 90),
        long_ago=lambda: minted(iat=1, nbf=1, exp=2),
        fraction=lambda: minted(iat=NOW - 600, nbf=NOW - 600, exp=NOW - 30.001),
        external=lambda: external(iat=DROP, exp=NOW - 31),
    ),
    *_cases(
        "token-not-yet-valid",
        iat_31_seconds_ahead=lambda: minted(iat=NOW + 31, exp=NOW + 100),
        iat_90_seconds_ahead=lambda: minted(iat=NOW + 90, nbf=NOW + 90, exp=NOW + 600),
        nbf_31_seconds_ahead=lambda: minted(nbf=NOW + 31),
        nbf_tomorrow=lambda: minted(nbf=NOW + 86_400, exp=NOW + 86_500),
        external_nbf=lambda: external(nbf=NOW + 31),
        external_iat=lambda: external(iat=NOW + 90),
    ),
    *_cases(
        "token-lifetime",
        one_second_over=lambda: minted(exp=NOW + 601),
        a_fraction_over=lambda: minted(exp=NOW + 600.5),
        ten_years=lambda: minted(exp=NOW + 315_360_000),
        the_last_second=lambda: minted(exp=253_402_300_799),
        backdated=lambda: minted(iat=NOW - 300, nbf=NOW - 300, exp=NOW + 301),
        external_over=lambda: external(exp=NOW + 3601),
        external_without_iat=lambda: external(iat=DROP, exp=NOW + 3631),
    ),
    *_cases(
        "token-binding",
        missing=lambda: minted(cnf=DROP),
        null=lambda: minted(cnf=None),
        empty=lambda: minted(cnf={}),
        another_certificate=lambda: minted(cnf={"x5t#S256": OTHER_THUMBPRINT}),
        a_list=lambda: minted(cnf=[BOUND]),
        a_string=lambda: minted(cnf=THUMBPRINT),
        a_list_of_thumbprints=lambda: minted(cnf={"x5t#S256": [THUMBPRINT]}),
        a_null_thumbprint=lambda: minted(cnf={"x5t#S256": None}),
        an_empty_thumbprint=lambda: minted(cnf={"x5t#S256": ""}),
        padded=lambda: minted(cnf={"x5t#S256": THUMBPRINT + "="}),
        hexadecimal=lambda: minted(cnf={"x5t#S256": "ab" * 32}),
        sha_1=lambda: minted(cnf={"x5t": THUMBPRINT}),
        other_spelling=lambda: minted(cnf={"x5t#s256": THUMBPRINT}),
        a_further_member=lambda: minted(cnf=BOUND | {"jkt": "x"}),
        a_proof_key_only=lambda: minted(cnf={"jkt": THUMBPRINT}),
        beside_cnf=lambda: minted(cnf=DROP, **BOUND),
        external_another=lambda: external(cnf={"x5t#S256": OTHER_THUMBPRINT}),
        external_a_proof_key_only=lambda: external(cnf={"jkt": THUMBPRINT}),
        external_null=lambda: external(cnf=None),
    ),
]  # fmt: skip

ATTACKS = [*FORM, *HEADERS, *ALGORITHM, *SIGNATURE, *CLAIM_FORM, *CLAIM_MEANING]
