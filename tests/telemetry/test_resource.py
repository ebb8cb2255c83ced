"""What metrics are about: who tells what of it, and who wins."""

from __future__ import annotations

import os
import platform
import socket

import pytest

from openclaw_exporter import __version__
from openclaw_exporter.errors import UserError
from openclaw_exporter.telemetry.provider import Telemetry
from openclaw_exporter.telemetry.resource import resource_of
from openclaw_exporter.telemetry.settings import PrometheusSettings, TelemetrySettings

NODE = "0b1e8a5e-6f43-4f0c-9a55-1f1a1f6d3c11"


def about(**attributes: str) -> dict[str, object]:
    named = {name.replace("_", "."): value for name, value in attributes.items()}
    return dict(resource_of("openclaw-exporter", NODE, named).attributes)


def test_what_is_there_without_any_configuration() -> None:
    found = about()
    assert found["service.name"] == "openclaw-exporter"
    assert found["service.instance.id"] == NODE
    assert found["service.version"] == __version__
    assert found["host.name"] == socket.gethostname()
    assert found["telemetry.sdk.language"] == "python"
    assert "service.namespace" not in found


def test_the_standard_variables_win_over_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "host.name=named,k8s.pod.name=pod-7,k8s.namespace.name=swarm,cloud.region=eu%2Dwest-1,service.name=mine",
    )
    found = about()
    assert found["host.name"] == "named"
    assert found["k8s.pod.name"] == "pod-7"
    assert found["k8s.namespace.name"] == "swarm"
    assert found["cloud.region"] == "eu-west-1"
    assert found["service.name"] == "mine"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    assert about()["service.name"] == "ours"


def test_the_configuration_wins_over_the_variables_and_nothing_over_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "cloud.region=elsewhere,service.instance.id=somebody")
    found = about(cloud_region="here", service_instance_id="other")
    assert found["cloud.region"] == "here"
    assert found["service.instance.id"] == NODE


def test_detectors_by_the_configuration_and_by_the_standard_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = dict(resource_of("openclaw-exporter", NODE, {}, ["host", "process", "containerid"]).attributes)
    assert found["host.arch"] == platform.machine()
    assert found["process.pid"] == os.getpid()
    assert "process.command_args" not in found  # they may hold secrets
    assert "os.type" not in found
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "os")
    assert about()["os.type"] == "linux"


def test_an_unknown_detector_is_named_with_those_that_are_there() -> None:
    settings = TelemetrySettings(
        prometheus=PrometheusSettings(enabled=False), resource_detectors=("hots", "process")
    )
    with pytest.raises(UserError, match=r"telemetry\.resource_detectors.*'hots'.*host, os, otel, process"):
        Telemetry.start(settings, service="openclaw-exporter", node_id=NODE)


def test_a_detector_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # For want of a broken package: the SDK's own class, which needs what it is not given.
    monkeypatch.setattr("opentelemetry.sdk.resources.OsResourceDetector", None)
    with pytest.raises(UserError, match=r"the detector 'os' cannot be loaded \(TypeError"):
        resource_of("openclaw-exporter", NODE, {}, ["os"])
