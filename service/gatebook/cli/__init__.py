"""The command line: one module per command group."""

from __future__ import annotations

import click

from gatebook import __version__
from gatebook.cli.audit import audit
from gatebook.cli.check import check
from gatebook.cli.directory import directory
from gatebook.cli.keys import keys
from gatebook.cli.policy import policy
from gatebook.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gatebook")
def main() -> None:
    """Gatebook: who may read which columns for which purpose, decided by rules and written down first.

    Exit codes: 0 yes, 1 no (denied, findings, not verified), 2 usage, 3 could not ask.
    """


for command in (serve, check, policy, directory, audit, keys):
    main.add_command(command)
