"""The command line: one module per command group, imported when it is used."""

from __future__ import annotations

from importlib import import_module

import click

from gatebook import __version__

COMMANDS = (
    "serve",
    "check",
    "plan",
    "explain",
    "policy",
    "directory",
    "lineage",
    "audit",
    "keys",
    "backup",
    "restore",
    "witness",
    "health",
    "demo",
)


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own name, so that asking costs no import of the server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order in which a newcomer needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"gatebook.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  # each module has a command of its name
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gatebook")
def main() -> None:
    """Gatebook: who may read which columns for which purpose, decided by rules and written down first.

    Exit codes: 0 yes, 1 no (denied, findings, not verified), 2 usage, 3 could not ask.
    """
