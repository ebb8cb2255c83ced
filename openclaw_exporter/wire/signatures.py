"""Payload signatures: RFC 9421 over a digest of the body (RFC 9530), as the contract profiles them.

One signature a request, made with the key of its token (RFC 9421, 3.3.7: the token's JOSE algorithm over the
signature base). It covers `@method`, `@path`, `authorization`, `content-digest` and every `openclaw-*` field,
so that nothing that changes what a heartbeat means can be added, taken away or changed.

General libraries read everything that the RFC allows, merge repeated fields and leave what must be covered to
their caller. Here one canonical form is read and every other is refused; the tests hold both ends against
such a library.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final, NamedTuple

from openclaw_exporter.errors import TokenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from openclaw_exporter.wire.tokens import Algorithm, SigningKey, VerificationKey

SIGNATURE: Final = "Signature"
SIGNATURE_INPUT: Final = "Signature-Input"
CONTENT_DIGEST: Final = "Content-Digest"

MAX_AGE: Final = 300
"""The oldest signature that is accepted, seconds."""

LABEL: Final = "openclaw"

_REQUIRED: Final = ("@method", "@path", "authorization", "content-digest")
_PREFIX: Final = "openclaw-"
_OWN: Final = frozenset({"signature", "signature-input", "content-digest"})

# RFC 9421, 6.2: the names of the JOSE algorithms in `alg`, which need not be there. PS256 has none.
_ALGORITHMS: Final[Mapping[str, str]] = {
    "ES256": "ecdsa-p256-sha256",
    "EdDSA": "ed25519",
    "RS256": "rsa-v1_5-sha256",
}

# RFC 9651 as a serializer writes it: what else a parser may take is refused.
_LABEL = r"[a-z*][a-z0-9_.*-]{0,63}"
_COMPONENT = r'"@?[a-z0-9-]{1,64}"'
_PARAMETER = r';(?:created|expires)=(?:0|[1-9][0-9]{0,14})|;(?:alg|keyid|nonce|tag)="[ !#-\[\]-~]{0,255}"'
_input = re.compile(
    rf"(?P<label>{_LABEL})="
    rf"(?P<params>\((?P<components>{_COMPONENT}(?: {_COMPONENT})*)\)(?P<rest>(?:{_PARAMETER})+))"
).fullmatch
_parameters = re.compile(r';([a-z]+)=(?:"([^"]*)"|([0-9]+))').findall
_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_signature = re.compile(rf"({_LABEL})=:({_BASE64}):").fullmatch
_digests = re.compile(r"(sha-256|sha-512)=(:[^:,]*:)(?:, ?(sha-256|sha-512)=(:[^:,]*:))?").fullmatch

_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


class _Input(NamedTuple):
    label: str
    components: list[str]
    parameters: dict[str, str]
    text: str


def sign(
    fields: Mapping[str, str], *, method: str, path: str, body: bytes, key: SigningKey, created: int
) -> dict[str, str]:
    """Return the fields that sign a request.

    Args:
        fields: All other header fields; `Authorization` must be among them.
        method: The request's method.
        path: The path that the receiver gets, without query.
        body: The body.
        key: The key that signed the token.
        created: Unix seconds.
    """
    sent = {name.lower(): value for name, value in fields.items()}
    sent["content-digest"] = content_digest(body)
    covered = [*_REQUIRED, *sorted(name for name in sent if name.startswith(_PREFIX))]
    listed = " ".join(f'"{name}"' for name in covered)
    # A quotation mark in it would have to be written in another way; it need not be there.
    key_id = f';keyid="{key.kid}"' if '"' not in key.kid and "\\" not in key.kid else ""
    params = f"({listed});created={created}{key_id}"
    base = _base(covered, {"@method": method, "@path": path, **sent}, params)
    signature = b64encode(key.sign(base.encode("ascii"))).decode()
    return {
        CONTENT_DIGEST: sent["content-digest"],
        SIGNATURE_INPUT: f"{LABEL}={params}",
        SIGNATURE: f"{LABEL}=:{signature}:",
    }


def content_digest(body: bytes) -> str:
    """Return the value of `Content-Digest` (RFC 9530)."""
    return f"sha-256={_byte_sequence(hashlib.sha256(body).digest())}"


def is_signed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request has a field of a signature, and so has to have all of a valid one."""
    return any(name in (b"signature", b"signature-input") for name, _ in headers)


def verify(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    method: str,
    path: str,
    body: bytes,
    key: VerificationKey,
    algorithm: Algorithm,
    now: float,
    leeway: float = 0.0,
) -> None:
    """Check the signature of a request.

    Args:
        headers: All header fields, names in lower case, values without spaces around them.
        method: The request's method.
        path: The request's path.
        body: The body.
        key: The key that verified the token.
        algorithm: The token's.
        now: Unix seconds.
        leeway: How far clocks may differ, seconds.

    Raises:
        TokenError: `signature-missing` or `signature-invalid`.
    """
    fields = _fields(headers)
    signed = _read_input(fields)
    _check_cover(signed.components, fields)
    _check_parameters(signed.parameters, key.kid, algorithm, now, leeway)
    _check_digest(fields["content-digest"], body)
    match = _signature(fields["signature"])
    if match is None or match[1] != signed.label:
        raise _invalid("Signature is not one byte sequence with the label of Signature-Input")
    signature = b64decode(match[2])
    if b64encode(signature).decode() != match[2]:
        raise _invalid("Signature is not canonical base64")
    base = _base(signed.components, {"@method": method, "@path": path, **fields}, signed.text)
    if not key.verify(algorithm, base.encode("ascii"), signature):
        raise _invalid("the signature is not that of the token's key over this request")


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the fields by name, without those that are there twice; of ours such a one is refused."""
    fields: dict[str, str] = {}
    repeated: set[str] = set()
    for raw, value in headers:
        name = raw.decode("latin-1")
        if name in fields:
            repeated.add(name)
        fields[name] = value.decode("latin-1")
    for name in repeated:
        if name in _OWN or name == "authorization" or name.startswith(_PREFIX):
            raise _invalid("a field that a signature covers is there more than once")
        del fields[name]
    return fields


def _read_input(fields: Mapping[str, str]) -> _Input:
    missing = [name for name in (SIGNATURE, SIGNATURE_INPUT, CONTENT_DIGEST) if name.lower() not in fields]
    if missing:
        unsigned = missing[:2] == [SIGNATURE, SIGNATURE_INPUT]
        slug = "signature-missing" if unsigned else "signature-invalid"
        raise TokenError(slug, f"the request has no {', '.join(missing)}")
    match = _input(fields["signature-input"])
    if match is None:
        raise _invalid("Signature-Input is not one signature in its canonical form")
    found = _parameters(match["rest"])
    parameters = {name: text or number for name, text, number in found}
    if len(parameters) != len(found):
        raise _invalid("a parameter of Signature-Input is there twice")
    components = [component.strip('"') for component in match["components"].split(" ")]
    return _Input(match["label"], components, parameters, match["params"])


def _check_cover(components: list[str], fields: Mapping[str, str]) -> None:
    covered = set(components)
    if len(covered) != len(components):
        raise _invalid("a component is covered twice")
    needed = {*_REQUIRED, *(name for name in fields if name.startswith(_PREFIX))}
    if not needed <= covered:
        raise _invalid(f"the signature has to cover {', '.join(_REQUIRED)} and every {_PREFIX}* field")
    for component in covered - {"@method", "@path"}:
        if component not in fields or component in ("signature", "signature-input"):
            raise _invalid("the signature covers a component that is not one field of the request")


def _check_parameters(
    parameters: Mapping[str, str], key_id: str, algorithm: Algorithm, now: float, leeway: float
) -> None:
    created = parameters.get("created")
    if created is None:
        raise _invalid("the signature has no created")
    if int(created) > now + leeway:
        raise _invalid("the signature is from the future: compare the clocks")
    if int(created) < now - MAX_AGE - leeway:
        raise _invalid(f"the signature is older than {MAX_AGE} s: compare the clocks")
    if "expires" in parameters and int(parameters["expires"]) < now - leeway:
        raise _invalid("the signature has expired")
    if parameters.get("keyid", key_id) != key_id:
        raise _invalid("the signature's keyid is not the token's kid")
    if "alg" in parameters and parameters["alg"] != _ALGORITHMS.get(algorithm):
        raise _invalid("the signature's alg is not the token's")


def _check_digest(value: str, body: bytes) -> None:
    match = _digests(value)
    if match is None or match[1] == match[3]:
        raise _invalid("Content-Digest is not sha-256, sha-512 or both, each as one byte sequence")
    for name, digest in ((match[1], match[2]), (match[3], match[4])):
        if name is not None and digest != _byte_sequence(_HASHES[name](body).digest()):
            raise _invalid("Content-Digest is not the digest of the body")


def _base(components: Iterable[str], values: Mapping[str, str], params: str) -> str:
    """Return the signature base (RFC 9421, 2.5)."""
    lines = [f'"{name}": {values[name]}' for name in components]
    text = "\n".join([*lines, f'"@signature-params": {params}'])
    if not text.isascii():
        raise _invalid("a field that the signature covers is not ASCII")
    return text


def _byte_sequence(content: bytes) -> str:
    return f":{b64encode(content).decode()}:"


def _invalid(detail: str) -> TokenError:
    return TokenError("signature-invalid", detail)
