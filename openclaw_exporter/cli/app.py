"""The command group: commands are imported when they run, and mistakes are told without a traceback."""

from __future__ import annotations

import difflib
import importlib
import os
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_exporter import __version__
from openclaw_exporter.cli.mistakes import INTERRUPTED, MISTAKE, text_of
from openclaw_exporter.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMANDS: Final[Mapping[str, str]] = {
    "agent": "Collect on this node, export metrics and publish heartbeats.",
    "receiver": "Receive heartbeats and keep the registry of nodes.",
    "demo": "Show everything at work on this machine, in a temporary directory.",
    "collect": "Run the collectors once and show what they yield.",
    "plugins": "List the plugins and their collectors.",
    "check-config": "Check a configuration file and report all its errors at once.",
    "nodes": "List the nodes of a receiver's registry.",
    "loadtest": "Simulate many nodes against a receiver on this machine.",
    "pki": "Make certificates and token keys.",
    "dashboards": "Write the Grafana dashboards and the Prometheus rules.",
}
"""Each command with its help in one line, so that `--help` imports none of them."""


class MistakeError(click.ClickException):
    """A user's mistake, told as text; the process ends with 2."""

    exit_code = MISTAKE

    def __init__(self, error: UserError) -> None:
        super().__init__(text_of(error))

    def show(self, file: Any = None) -> None:
        """Print the text to standard error."""
        click.echo(f"openclaw-exporter: {self.message}", file=file, err=file is None)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, the ones that people start with first."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = importlib.import_module(f"openclaw_exporter.cli.commands.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name.

        Raises:
            click.UsageError: There is none of that name; the text suggests the nearest.
        """
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            nearest = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise click.UsageError(f"No such command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a user's mistake and Ctrl-C end it without a traceback."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise MistakeError(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def app(context: click.Context) -> None:
    """Observability exporter for Chimera nodes: metrics and authenticated OpenClaw heartbeats."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org; click does not know it
        context.color = False
