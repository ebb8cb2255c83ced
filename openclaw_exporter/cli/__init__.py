"""The front door: the commands of `openclaw-exporter`."""

# ruff: noqa: PLC0415 - the authority alone needs no click, and neither does an agent
import sys


def main() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    try:
        from openclaw_exporter.cli import standard

        standard.hold_open()
        if sys.argv[1:2] == ["agent"]:
            from openclaw_exporter.cli.short_cut import agent_arguments, run

            arguments = agent_arguments(sys.argv[2:])
            if arguments is not None:
                run(arguments)
        from openclaw_exporter.cli.app import app

        standard.set_up_output()
        app(prog_name="openclaw-exporter")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        from openclaw_exporter.cli import standard

        standard.end_without_output(error)
