"""The front door: the commands of `openclaw-exporter`."""
