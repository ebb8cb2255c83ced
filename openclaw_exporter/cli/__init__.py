"""The front door: the commands of `openclaw-exporter`."""


def main() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    try:
        from openclaw_exporter.cli.app import app  # noqa: PLC0415 - the authority alone needs no click

        app(prog_name="openclaw-exporter")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
