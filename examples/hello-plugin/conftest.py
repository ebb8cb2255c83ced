"""Loads the kit that openclaw-exporter brings for the authors of plugins."""

pytest_plugins = ["openclaw_exporter.plugin.testing"]
