"""The one error of this plugin."""

from __future__ import annotations


class FileError(Exception):
    """One file is not used; the text names it and never shows what it holds."""
