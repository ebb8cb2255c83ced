"""Skipping a test whose server is not installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def binary(name: str, package: str) -> str:
    """Return the path of an installed program, or skip the test and name the Debian package that has it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


def library(name: str, package: str) -> str:
    """Return the path of an installed shared library, or skip the test and name the Debian package."""
    found = sorted(Path("/usr/lib").glob(f"*/{name}"))
    if not found:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return str(found[0])


def built(name: str) -> str:
    """Return the path of a program that `.ci/install-observability` builds, or skip the test and say so.

    PATH is not looked at for Prometheus: what Debian has there is version 2, without an OTLP endpoint.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tools = Path(os.environ.get("TESTS_TOOLS") or caches / "openclaw-exporter")
    path = tools / "bin" / name
    if not path.exists():
        pytest.skip(f"there is no {path}: run .ci/install-observability")
    return str(path)
