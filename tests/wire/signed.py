"""Signed requests, and every way in which a test spoils one."""

from __future__ import annotations

import dataclasses
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wire.forge import key, pem

from openclaw_exporter.wire.signatures import sign, verify
from openclaw_exporter.wire.tokens import Algorithm, KeySet, SigningKey, public_jwks

if TYPE_CHECKING:
    import random

NOW = 1_770_000_000
KEYS: dict[Algorithm, SigningKey] = {
    algorithm: SigningKey.load(pem(key(kind)), kid=f"kid-{algorithm}", algorithm=algorithm)
    for algorithm, kind in (
        ("ES256", "p256"),
        ("EdDSA", "ed25519"),
        ("RS256", "rsa2048"),
        ("PS256", "rsa2048"),
    )
}
PUBLIC = KeySet.from_jwks(public_jwks(KEYS.values()))
BODY = b'{"capacity":{"available_slots":5,"workers":24},"node_id":"7f1c9a52-5e0b-4d7c-9f53-0d6a1f1f8f11"}'


@dataclass(frozen=True)
class Request:
    """A request as the receiver sees it."""

    algorithm: Algorithm
    headers: tuple[tuple[str, str], ...]
    body: bytes = BODY
    method: str = "POST"
    path: str = "/openclaw/availability"

    def verify(self, *, now: float = NOW, leeway: float = 0, algorithm: Algorithm | None = None) -> None:
        """Check it as the receiver does; raises `TokenError`."""
        public = PUBLIC.get(KEYS[self.algorithm].kid)
        assert public is not None
        verify(
            [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers],
            method=self.method,
            path=self.path,
            body=self.body,
            key=public,
            algorithm=algorithm or self.algorithm,
            now=now,
            leeway=leeway,
        )

    def get(self, name: str) -> str:
        return dict(self.headers)[name]

    def with_field(self, name: str, value: str | None) -> Request:
        """Return it with another value of a field, or without it."""
        changed = [(known, value if known == name else old) for known, old in self.headers]
        headers = tuple((known, new) for known, new in changed if new is not None)
        return dataclasses.replace(self, headers=headers)

    def with_another(self, name: str, value: str) -> Request:
        """Return it with one more field."""
        return dataclasses.replace(self, headers=(*self.headers, (name, value)))


def signed(
    algorithm: Algorithm = "ES256", *, created: int = NOW, body: bytes = BODY, **extra: str
) -> Request:
    """Return a signed request; `extra` are further fields, an underscore standing for a hyphen."""
    fields = {
        "Host": "receiver:8443",
        "Content-Type": "application/json",
        "Authorization": "Bearer aaaa.bbbb.cccc",
        "OpenClaw-Interval": "60",
        "OpenClaw-Sequence": "1770000000000.7",
        **{name.replace("_", "-"): value for name, value in extra.items()},
    }
    made = sign(
        fields, method="POST", path="/openclaw/availability", body=body, key=KEYS[algorithm], created=created
    )
    return Request(algorithm, tuple((fields | made).items()), body)


COVERED = ("Authorization", "OpenClaw-Interval", "OpenClaw-Sequence", "Content-Digest")
FIELDS = (*COVERED, "Signature-Input", "Signature")
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "


def _spoilt(text: str, chance: random.Random) -> str:
    """Return a text with one character changed, added, taken away or moved."""
    at = chance.randrange(len(text))
    other = chance.choice(_CHARACTERS)
    return chance.choice(
        [
            text[:at] + other + text[at + 1 :],
            text[:at] + other + text[at:],
            text[:at] + text[at + 1 :],
            text[at:] + text[:at],
            text[:at],
            text[:at] + text[at].swapcase() + text[at + 1 :],
        ]
    )


def change_a_field(request: Request, chance: random.Random) -> Request:
    name = chance.choice(FIELDS)
    return request.with_field(name, _spoilt(request.get(name), chance))


def take_a_field_away(request: Request, chance: random.Random) -> Request:
    return request.with_field(chance.choice(FIELDS), None)


def repeat_a_field(request: Request, chance: random.Random) -> Request:
    name = chance.choice(FIELDS)
    return request.with_another(name, chance.choice([request.get(name), "x"]))


def swap_two_fields(request: Request, chance: random.Random) -> Request:
    one, other = chance.sample(FIELDS, 2)
    return request.with_field(one, request.get(other)).with_field(other, request.get(one))


def add_a_field_of_ours(request: Request, chance: random.Random) -> Request:
    name = chance.choice(["Replay", "State", "Future", "".join(chance.choices(string.ascii_lowercase, k=5))])
    return request.with_another(f"OpenClaw-{name}", chance.choice(["1", "draining", ""]))


def rename_a_field(request: Request, chance: random.Random) -> Request:
    name = chance.choice(COVERED)
    return request.with_field(name, None).with_another(name + chance.choice("-_x"), request.get(name))


def change_the_body(request: Request, chance: random.Random) -> Request:
    at = chance.randrange(len(request.body))
    flipped = bytes([request.body[at] ^ (1 << chance.randrange(8))])
    other = chance.choice(
        [
            request.body[:at] + flipped + request.body[at + 1 :],
            request.body[:at],
            request.body + b" ",
            b"",
            request.body[at:] + request.body[:at],
        ]
    )
    return dataclasses.replace(request, body=other)


def change_body_and_digest(request: Request, chance: random.Random) -> Request:
    other = change_the_body(request, chance)
    return other.with_field("Content-Digest", signed(body=other.body).get("Content-Digest"))


def change_the_call(request: Request, chance: random.Random) -> Request:
    return chance.choice(
        [
            dataclasses.replace(request, method=chance.choice(["PUT", "post", "GET"])),
            dataclasses.replace(request, path=_spoilt(request.path, chance)),
        ]
    )


def change_what_is_covered(request: Request, chance: random.Random) -> Request:
    name, _, rest = request.get("Signature-Input").partition("(")
    listed, _, parameters = rest.partition(")")
    components = listed.split(" ")
    how = chance.randrange(4)
    if how == 0:
        components.remove(chance.choice(components))
    elif how == 1:
        before = list(components)
        while components == before:
            chance.shuffle(components)
    elif how == 2:
        components.append(chance.choice([*components, '"content-type"', '"host"', '"@query"', '"signature"']))
    else:
        components[chance.randrange(len(components))] += chance.choice([";sf", ";bs", ";req", ';key="a"'])
    return request.with_field("Signature-Input", f"{name}({' '.join(components)}){parameters}")


def change_a_parameter(request: Request, chance: random.Random) -> Request:
    value = request.get("Signature-Input")
    more = chance.choice(
        [
            value.replace(f"created={NOW}", f"created={NOW + chance.choice([-1, 1, -60])}"),
            value.replace(f";created={NOW}", ""),
            value
            + chance.choice(
                [";expires=9999999999", ';nonce="a"', ';tag="a"', ";created=1", ';alg="ed25519"']
            ),
            value.replace("keyid", "nonce"),
            value + ", other=" + value.partition("=")[2],
        ]
    )
    return request.with_field("Signature-Input", more)


def use_the_signature_of_another(request: Request, chance: random.Random) -> Request:
    other = chance.choice(
        [
            signed(request.algorithm, created=NOW - 1),
            signed(request.algorithm, body=b"{}"),
            signed(request.algorithm, OpenClaw_Replay="1"),
            signed(request.algorithm, OpenClaw_Sequence="1770000000000.8"),
        ]
    )
    names = chance.choice([["Signature"], ["Signature", "Signature-Input"]])
    for name in names:
        request = request.with_field(name, other.get(name))
    # Nothing may be left by which this is still the first request.
    return request if names == ["Signature"] else request.with_field("OpenClaw-Interval", "61")


def sign_with_another_key(request: Request, chance: random.Random) -> Request:
    other = chance.choice([algorithm for algorithm in KEYS if algorithm != request.algorithm])
    return dataclasses.replace(signed(other), algorithm=request.algorithm)


MUTATIONS = (
    change_a_field,
    take_a_field_away,
    repeat_a_field,
    swap_two_fields,
    add_a_field_of_ours,
    rename_a_field,
    change_the_body,
    change_body_and_digest,
    change_the_call,
    change_what_is_covered,
    change_a_parameter,
    use_the_signature_of_another,
    sign_with_another_key,
)
