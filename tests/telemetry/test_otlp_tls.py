"""The certificates that the standard variables name: what is wrong with them is said at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from openclaw_exporter.errors import UserError
from openclaw_exporter.telemetry.otlp import otlp_reader
from openclaw_exporter.telemetry.otlp_tls import otlp_tls
from openclaw_exporter.telemetry.settings import OtlpSettings

if TYPE_CHECKING:
    from pathlib import Path

    from support.pki import Pki

PREFIX = "OTEL_EXPORTER_OTLP_"


def test_a_variable_for_metrics_wins_and_both_kinds_mix(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    files = pki.reader("mixed")
    monkeypatch.setenv(f"{PREFIX}CERTIFICATE", "/nowhere")
    monkeypatch.setenv(f"{PREFIX}METRICS_CERTIFICATE", str(pki.ca))
    monkeypatch.setenv(f"{PREFIX}CLIENT_CERTIFICATE", str(files.certificate))
    monkeypatch.setenv(f"{PREFIX}METRICS_CLIENT_KEY", str(files.key))
    tls = otlp_tls()
    assert (tls.ca, tls.certificate, tls.key) == (str(pki.ca), str(files.certificate), str(files.key))


def test_one_file_may_hold_certificate_and_key(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pki.reader("one-file")
    both = tmp_path / "both.pem"
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    monkeypatch.setenv(f"{PREFIX}CLIENT_CERTIFICATE", str(both))
    tls = otlp_tls()
    assert tls.ca is None
    assert tls.certificate == tls.key == str(both)
    for protocol in ("grpc", "http/protobuf"):
        otlp_reader(OtlpSettings(endpoint="https://127.0.0.1:1", protocol=protocol)).shutdown()  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    ("variables", "text"),
    [
        (
            {"CERTIFICATE": "/nowhere/ca.pem"},
            r"OTLP_CERTIFICATE: /nowhere/ca.pem cannot be read \(No such",
        ),
        ({"METRICS_CLIENT_KEY": "/nowhere/a.key"}, r"OTLP_CLIENT_KEY: /nowhere/a.key cannot be read"),
        ({"CERTIFICATE": "{key}"}, r"OTLP_CERTIFICATE: .* has no PEM certificates"),
        ({"CLIENT_KEY": "{key}"}, r"OTLP_CLIENT_KEY is set without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
        ({"CLIENT_CERTIFICATE": "{certificate}"}, r"key \(in the same file\) cannot be used"),
        ({"CLIENT_CERTIFICATE": "{certificate}", "CLIENT_KEY": "{other}"}, r"cannot be used .*MISMATCH"),
        ({"CLIENT_CERTIFICATE": "{certificate}", "CLIENT_KEY": "{encrypted}"}, r"its unencrypted key"),
    ],
)
def test_mistakes_name_the_variable_and_the_file(
    pki: Pki,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    variables: dict[str, str],
    text: str,
) -> None:
    files, others = pki.reader("first"), pki.reader("second")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        pki.token_private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    names = {
        "certificate": files.certificate,
        "key": files.key,
        "other": others.key,
        "encrypted": encrypted,
    }
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value.format(**names))
    with pytest.raises(UserError, match=text):
        otlp_reader(OtlpSettings(endpoint="https://127.0.0.1:1", protocol=protocol))  # type: ignore[arg-type]
