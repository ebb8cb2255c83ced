"""RFC 9440: the field that carries a certificate, read without tolerance."""

from __future__ import annotations

import contextlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_exporter.errors import IdentityError
from openclaw_exporter.wire.client_cert import (
    MAX_CHAIN,
    client_cert,
    parse_client_cert,
    parse_client_cert_chain,
)


@given(st.binary(min_size=1, max_size=2000))
def test_what_is_written_is_read(der: bytes) -> None:
    value = client_cert(der).encode()
    assert parse_client_cert(value) == der
    assert parse_client_cert_chain([value + b" , " + value, b"", value]) == [der] * 3


@given(st.binary(max_size=300))
def test_nothing_else_is(value: bytes) -> None:
    with contextlib.suppress(IdentityError):
        assert client_cert(parse_client_cert(value)).encode() == value


DER = b64encode(b"certificate!").decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "::",
        DER,
        f":{DER}",
        f"{DER}:",
        f" :{DER}:",
        f":{DER}: ",
        f":{DER}:;a=1",
        f":{DER}:, :{DER}:",
        f"::{DER}::",
        f'":{DER}:"',
        f":{DER[:-1]}:",
        f":{DER[:4]}={DER[4:]}:",
        f":{DER[:4]}\n{DER[4:]}:",
        f":{DER[:4]} {DER[4:]}:",
        ":QQ==:QQ==:",
        ":QR==:",
        ":QQ=:",
        ":QQ:",
        ":-_-_:",
        "-----BEGIN CERTIFICATE-----",
        "%3AQUFB%3A",
        ":" + "A" * 40_000 + ":",
    ],
)
def test_other_forms_are_refused(value: str) -> None:
    with pytest.raises(IdentityError):
        parse_client_cert(value.encode())


def test_a_chain_is_a_list_of_such_values_and_not_a_long_one() -> None:
    assert parse_client_cert_chain([]) == []
    value = client_cert(b"x").encode()
    assert len(parse_client_cert_chain([b",".join([value] * MAX_CHAIN)])) == MAX_CHAIN
    for wrong in ([value] * (MAX_CHAIN + 1), [value + b","], [b"," + value], [value + b";q=1"], [b"x"]):
        with pytest.raises(IdentityError):
            parse_client_cert_chain(wrong)
