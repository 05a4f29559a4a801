"""What authors have in their tools: sets to begin with, schemas for editors, one form, hooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from gatebook.cli import main
from gatebook.policy.scaffold import KINDS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
every_kind = pytest.mark.parametrize("kind", KINDS)


def run(*arguments: object) -> Result:
    """Returns how `gatebook policy` ends."""
    return CliRunner().invoke(main, ["policy", *map(str, arguments)])


@every_kind
def test_a_set_to_begin_with_passes_at_once(kind: str, tmp_path: Path) -> None:
    """What `init` makes has no finding, passes its tests, and is in form."""
    folder = tmp_path / "fresh"

    assert run("init", folder, "--kind", kind).exit_code == 0
    linted, tested, checked = run("lint", folder), run("test", folder), run("fmt", folder, "--check")
    assert "0 errors, 0 warnings" in linted.stdout
    assert "0 errors, 0 warnings" in tested.stdout
    assert " 0 failed" in tested.stdout
    assert "0 expectations" not in tested.stdout
    assert checked.exit_code == 0, checked.output


@every_kind
def test_its_files_name_schemas_that_accept_them(kind: str, tmp_path: Path) -> None:
    """The first line of each YAML file leads an editor to a schema, which accepts the file."""
    folder = tmp_path / "fresh"
    run("init", folder, "--kind", kind)
    files = sorted(path for path in folder.rglob("*.yaml"))

    assert files
    for path in files:
        place = path.read_text().split("\n")[0].removeprefix("# yaml-language-server: $schema=")
        document = json.loads(json.dumps(YAML(typ="safe").load(path.read_text()), default=lambda it: f"{it:%FT%TZ}"))
        jsonschema.validate(document, json.loads((path.parent / place).read_text()))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder with anything in it, and a name that no set can have, are refused, and nothing is made."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".note").write_text("mine")

    assert run("init", tmp_path / "full").exit_code == 2
    assert run("init", tmp_path / "Ünfit").exit_code == 2
    assert [".note"] == [path.name for path in (tmp_path / "full").iterdir()]
    assert not (tmp_path / "Ünfit").exists()


def test_schemas_are_listed_printed_and_written(tmp_path: Path) -> None:
    """Each schema of the list is printed by its name, and all are written at once."""
    assert run("schema", "--out", tmp_path / "schemas").exit_code == 0
    written = {path.name.partition(".")[0]: path.read_text() for path in (tmp_path / "schemas").iterdir()}
    listed = run("schema").stdout
    for name, text in written.items():
        jsonschema.Draft202012Validator.check_schema(json.loads(text))
        assert name in listed
        assert text == run("schema", name).stdout
    assert run("schema", "nothing").exit_code == 2
    assert {"gatebook", "gatebook_governed", "catalogue", "purposes", "policy_test", "callers"} <= written.keys()


def test_fmt_shows_checks_and_writes(tmp_path: Path) -> None:
    """--diff and --check write nothing; then it is written, keeps the rights of the file, and is in form."""
    folder = tmp_path / "fresh"
    run("init", folder, "--kind", "rbac")
    rules = folder / "policy.csv"
    worse = rules.read_text().replace(", ", ",")
    rules.write_text(worse)
    rules.chmod(0o640)

    shown, checked = run("fmt", folder, "--diff"), run("fmt", folder, "--check")
    assert (1, 1) == (shown.exit_code, checked.exit_code)
    assert "\n-p,role:reader,report,read,allow\n" in shown.stdout
    assert "\n+p, role:reader, report, read, allow\n" in shown.stdout
    assert worse == rules.read_text()
    assert run("fmt", folder).exit_code == 0
    assert worse != rules.read_text()
    assert rules.stat().st_mode & 0o777 == 0o640
    assert run("fmt", folder, "--check").exit_code == 0
    assert not list(folder.glob(".*.new"))


def test_fmt_leaves_a_set_with_errors_alone(tmp_path: Path) -> None:
    """What does not load means nothing that could be kept: not even another file of the set is written."""
    folder = tmp_path / "fresh"
    run("init", folder, "--kind", "rbac")
    (folder / "policy.csv").write_text("p,role:reader,report,read,allow # a remark\n")
    (folder / "model.conf").write_text((folder / "model.conf").read_text() + "\n\n\n")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    ended = run("fmt", folder)

    assert ended.exit_code == 1
    assert "TRAILING_COMMENT" in ended.output
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hooks(language: str) -> dict[str, Any]:
    """Returns the hooks of this repository as those of a local configuration."""
    manifest = YAML(typ="safe").load((ROOT / ".pre-commit-hooks.yaml").read_text())
    for hook in manifest:
        hook["language"] = language
        hook["entry"] = f"{BIN}/{hook['entry']}"
        del hook["additional_dependencies"]
    return {"repos": [{"repo": "local", "hooks": manifest}]}


def commit(repository: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Commits everything, which runs the hooks."""
    subprocess.run(["git", "add", "--all"], cwd=repository, env=environment, check=True)
    named = ["-c", "user.name=ana", "-c", "user.email=ana@example.org"]
    return subprocess.run(
        ["git", *named, "commit", "--quiet", "--message", "change"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_hooks_judge_the_sets_of_a_commit(tmp_path: Path) -> None:
    """pre-commit itself: a commit that is wrong is refused with the finding, one out of form is put into form."""
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    repository = tmp_path / "repository"
    run("init", repository / "access" / "team", "--kind", "rbac")
    (repository / "notes.yaml").write_text("of: no set\n")
    (repository / ".pre-commit-config.yaml").write_text(json.dumps(hooks("system")))
    for command in (["git", "init", "--quiet"], [str(BIN / "pre-commit"), "install"]):
        subprocess.run(command, cwd=repository, env=environment, check=True, capture_output=True)
    rules = repository / "access/team/policy.csv"

    first = commit(repository, environment)
    assert first.returncode == 0, first.stdout + first.stderr

    good = rules.read_text()
    rules.write_text(good + "p, role:reader, report, read\n")
    wrong = commit(repository, environment)
    assert wrong.returncode == 1
    assert "WRONG_FIELD_COUNT" in wrong.stdout + wrong.stderr

    rules.write_text(good + "p,role:reader,minutes,read,allow\n")
    out_of_form = commit(repository, environment)
    assert out_of_form.returncode == 1
    assert rules.read_text() == good + "p, role:reader, minutes, read, allow\n"
    assert commit(repository, environment).returncode == 0


def test_the_manifest_of_hooks_is_one() -> None:
    """pre-commit reads `.pre-commit-hooks.yaml`."""
    subprocess.run([BIN / "pre-commit", "validate-manifest", ROOT / ".pre-commit-hooks.yaml"], check=True)
