"""Skipping a test whose server is not installed."""

from __future__ import annotations

import shutil

import pytest


def binary(name: str, package: str) -> str:
    """Return the path of an installed program, or skip the test and name the Debian package that has it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path
