"""`gatebook policy import`: an existing Casbin set becomes one that loads here, tested with pycasbin's answers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console

from gatebook.cli.output import NO, counted, errors_told, stderr, stdout
from gatebook.cli.uploading import size_of, working
from gatebook.engine.reference import Reference
from gatebook.expression.environment import Named
from gatebook.policy import bundle
from gatebook.policy.formatting import formatted
from gatebook.policy.importing import Imported, import_casbin
from gatebook.policy.oracle import Answers
from gatebook.policy.policy_set import load
from gatebook.policy.sampling import Request, Samples, sample_tests
from gatebook.policy.settings import is_set_name
from gatebook.revisions.validate import validate
from gatebook.values import Effect, TestFailure

TESTS_FILE = "tests/casbin.yaml"


@click.command("import", short_help="Make a policy set of an existing Casbin model and rules.")
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="MODEL POLICY..."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder of the new set: new or empty.")
@click.option("--name", default="", help="The name of the set; else that of the folder.")
@click.option(
    "--as-written",
    is_flag=True,
    help="Read quotes, remarks behind rules and `true` as they look, not as pycasbin does.",
)
def import_(sources: tuple[Path, ...], out: Path, name: str, as_written: bool) -> None:  # noqa: FBT001  # click's flag
    """Make a policy set of MODEL and POLICY, or of the folder that holds them.

    It answers what pycasbin answers: that is tested with requests near to the rules, and the tests are kept. What a
    server would refuse is converted where its meaning is known, each with file and line. Ends with 1 where something is
    left that you must decide, or answered otherwise; with what is left nothing is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"`{out}` is not an empty folder: name a new one")
    named = name or out.resolve().name
    if not is_set_name(named):
        raise click.UsageError(f"`{named}` is no name of a set: give one of small letters, digits, - and _ with --name")
    files = _read(sources)
    with errors_told(), working("importing", size_of(files)):
        imported = import_casbin(files, named, as_written=as_written)
    console = stdout()
    show_changes(console, imported)
    if imported.left:
        stderr().print(f"{counted(len(imported.left), 'finding')} left: nothing was written", markup=False)
        sys.exit(NO)
    made = formatted(imported.files)
    with errors_told(), working("asking pycasbin", size_of(files)):
        samples, source = _sampled(files, made, named, as_written=as_written)
        tested = formatted({**made, TESTS_FILE: samples.text.encode()})
        found = validate(tested, named)
    for path, content in tested.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    for finding in found.findings:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        console.print(f"{place}: {finding.message} ({finding.invariant})", markup=False, soft_wrap=True)
    for difference in found.test_failures:
        console.print(_difference(difference), markup=False, soft_wrap=True)
    lines = counted(len(imported.changes), "line")
    kept = f"{counted(samples.expectations, 'decision')} of {source} kept in {out / TESTS_FILE}"
    failed = f" (where it failed, {samples.failed} of them, those of Gatebook)" if samples.failed else ""
    told = f"{named}: {lines} changed; {kept}{failed}, {len(found.test_failures)} answered otherwise"
    console.print(told, markup=False, soft_wrap=True)
    sys.exit(0 if found.passed else NO)


def show_changes(console: Console, imported: Imported) -> None:
    """Prints what was done with which line, and what is left."""
    for change in imported.changes:
        console.print(f"{change.file}:{change.line}: {change.why} ({change.invariant})", markup=False, soft_wrap=True)
        console.print(f"    - {change.before.strip()}", style="red", markup=False, soft_wrap=True)
        for line in change.after.split("\n") if change.after else ("acknowledged in gatebook.yaml",):
            console.print(f"    + {line}", style="green", markup=False, soft_wrap=True)
    for finding in imported.left:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        console.print(f"{place}: left: {finding.message} ({finding.invariant})", markup=False, soft_wrap=True)


def _sampled(
    files: Mapping[str, bytes], made: Mapping[str, bytes], name: str, *, as_written: bool
) -> tuple[Samples, str]:
    """Returns tests with pycasbin's answers to the files as they were, or, as written, to those that were made."""
    policy_set = load(made, name)
    reference = Reference(policy_set)

    def ours(request: Request) -> bool:
        tokens = {token: Named(value, attributes) for token, (value, attributes) in request.items()}
        return reference.evaluate(tokens).effect is Effect.ALLOW

    if as_written:
        return sample_tests(policy_set, Answers(made).ask, ours), "pycasbin about the new files"
    # What rules would say that pycasbin never applied is asked about as well.
    other = import_casbin(files, name, as_written=True)
    beside = None if other.left else load(other.files, name)
    return sample_tests(policy_set, Answers(files).ask, ours, beside), "pycasbin"


def _difference(failure: TestFailure) -> str:
    return f"differs: {failure.question} Casbin: {failure.expected}, here: {failure.actual}"


def _read(sources: tuple[Path, ...]) -> dict[str, bytes]:
    """Returns the files under the names that a policy set gives them."""
    found = [path for source in sources for path in (sorted(source.iterdir()) if source.is_dir() else [source])]
    models = [path for path in found if path.suffix == ".conf"] or [found[0]]
    if len(models) > 1:
        raise click.UsageError(f"{len(models)} models: name one of `{'`, `'.join(str(path) for path in models)}`")
    rules = [path for path in found if path != models[0] and (path.suffix == ".csv" or not sources[0].is_dir())]
    if not rules:
        raise click.UsageError("no rules: name the file with them behind the model")
    files = {bundle.MODEL_FILE: models[0].read_bytes()}
    for path in rules:
        place = bundle.POLICY_FILE if len(rules) == 1 else f"policy/{path.stem}.csv"
        if place in files or not bundle.is_safe(place):
            raise click.UsageError(f"`{path}` cannot be called `{place}` in the set: rename it")
        files[place] = path.read_bytes()
    return files
