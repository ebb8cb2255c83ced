"""The configuration: one TOML file, environment variables over it, flags over those.

It is made of the settings class of each room. What is wrong is reported all at once: every unknown, missing
or wrong key of the file, of the environment and of the flags, each with its dotted key and the remedy.
"""

from __future__ import annotations

from openclaw_exporter.config.keys import Key, variable_of
from openclaw_exporter.config.loading import Config, Examined, examine, load
from openclaw_exporter.config.tables import LogSettings, Service, all_keys, table_keys

__all__ = [
    "Config",
    "Examined",
    "Key",
    "LogSettings",
    "Service",
    "all_keys",
    "examine",
    "load",
    "table_keys",
    "variable_of",
]
