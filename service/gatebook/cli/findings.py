"""What is wrong with a policy set, as text for people, JSON for programs or SARIF for code hosts.

Owns `told`, with which each command that judges a set ends, and the options that say how.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from gatebook.cli import sarif
from gatebook.cli.output import NO, YES, F, counted, json_option, stdout, to_json
from gatebook.revisions.validate import Validation
from gatebook.rpc import encode
from gatebook.values import Severity

TEXT, JSON, SARIF = "text", "json", "sarif"


def format_options(function: F) -> F:
    """Adds `--format`, `--out`, `--docs-url` and `--json` to a command that ends with `told`."""
    described = "How findings are told: for people, for programs, or for code hosts (SARIF 2.1.0)."
    form = click.option("--format", "form", type=click.Choice((TEXT, JSON, SARIF)), default=TEXT, help=described)
    out = click.option(
        "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON or SARIF into this file."
    )
    docs = click.option("--docs-url", default="", help="Where the pages of Gatebook are read, for links in SARIF.")
    return form(out(docs(json_option(function))))


def told(found: Validation, folder: Path, *, form: str, out: Path | None, docs_url: str, as_json: bool) -> NoReturn:
    """Tells what is known of a draft, and ends the command with 0 if it can be published.

    With `--out` people read the text, and the file is for programs.
    """
    chosen = JSON if as_json else form
    if out is not None and chosen == TEXT:
        raise click.UsageError("`--out` is for `--format json` or `--format sarif`: name one")
    if chosen != TEXT:
        log = sarif.sarif_log(found.findings, found.test_failures, folder, docs_url) if chosen == SARIF else None
        text = to_json(encode.validation(found)) + "\n" if log is None else sarif.as_text(log)
        if out is None:
            click.echo(text, nl=False)
        else:
            out.write_text(text)
    if chosen == TEXT or out is not None:
        show(stdout(), found)
    sys.exit(YES if found.passed else NO)


def show(console: Console, found: Validation) -> None:
    """Prints what is known of a draft for people."""
    plain: dict[str, Any] = {"markup": False, "soft_wrap": True}
    for finding in found.findings:
        level = "error" if finding.severity is Severity.ERROR else "warning"
        place = f"{finding.file}:{finding.line}:{finding.column}"
        console.print(f"{place}: {level}: {finding.message} ({finding.invariant})", **plain)
    for failure in found.test_failures:
        console.print(f"{failure.file}:{failure.line}: {failure.test}", **plain)
        console.print(f"    {failure.question}", **plain)
        console.print(f"    - expected {failure.expected}", style="red", **plain)
        console.print(f"    + actual   {failure.actual}", style="green", **plain)
    errors = sum(f.severity is Severity.ERROR for f in found.findings)
    words = [counted(errors, "error"), counted(len(found.findings) - errors, "warning")]
    if found.tests_run:
        words.append(f"{counted(found.tests_run, 'expectation')}, {len(found.test_failures)} failed")
    console.print(f"{found.name} {found.digest[:12]}: {', '.join(words)}", markup=False)
