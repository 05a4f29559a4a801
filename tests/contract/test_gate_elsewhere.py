"""The gate on a second governed set, of another world: other datasets, roles and conditions, the same verdicts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.serving import POLICIES, gatebook, serving

CLINIC = POLICIES / "clinic"
NEUTRAL = "p, role:nurse, tag:health.psychiatric, read, *, True, deny\n"

LEAKS: dict[str, tuple[str, str, str, str, int]] = {
    # file, what stands there ("" for the end), what instead, dataset whose ceiling is exceeded, and by how many
    "a grant to everybody": (
        *("policy.csv", "", "p, role:staff, clinic.lab_results.sample_id, read, treatment, True, allow\n"),
        *("clinic.lab_results", 5),
    ),
    "a role made child of another": ("policy.csv", "", "g, role:billing, role:physician\n", "clinic.lab_results", 1),
    "a wildcard": ("policy.csv", "", "p, role:billing, clinic.*, read, treatment, True, allow\n", "clinic.visits", 1),
    "a condition that everybody meets": (
        *("policy.csv", "", "p, role:staff, finance.invoices, read, billing, r.row.paid || !r.row.paid, allow\n"),
        *("finance.invoices", 8),
    ),
    "a deny removed": (
        *(
            "policy.csv",
            "p, role:intern, clinic.lab_results, read, *, True, deny\n",
            "g, role:intern, role:consultant\n",
        ),
        *("clinic.lab_results", 1),
    ),
    "own rows widened": (
        *("policy.csv", "own_records, r.row.patient_id == r.sub.id, allow\np, role:staff, clinic"),
        *("own_records, r.row.patient_id != 'nobody', allow\np, role:staff, clinic", "finance.invoices", 8),
    ),
}


def draft(folder: Path, file: str, before: str, after: str) -> Path:
    """Makes a draft with one change."""
    shutil.copytree(CLINIC, folder, ignore=shutil.ignore_patterns("tests"))
    text = (folder / file).read_text(encoding="utf-8")
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1) if before else text + after, encoding="utf-8")
    return folder


def judged(folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Returns the exit code of `policy test`, and what it finds."""
    done = gatebook("policy", "test", str(folder), "--json")
    return done.returncode, json.loads(done.stdout).get("findings", [])


def test_the_set_as_it_is_passes() -> None:
    """What is shipped is within its ceilings, and its tests hold."""
    done = gatebook("policy", "test", str(CLINIC))

    assert (done.returncode, "0 errors, 0 warnings" in done.stdout) == (0, True)


@pytest.mark.parametrize("leak", LEAKS)
def test_each_leak_is_refused_with_somebody_who_gets_in(leak: str, tmp_path: Path) -> None:
    """A grant, a link, a wildcard, a condition, a deny and own rows: each exceeds a ceiling, by the exact number."""
    file, before, after, dataset, excess = LEAKS[leak]
    code, findings = judged(draft(tmp_path / "clinic", file, before, after))
    found = next(it for it in findings if (it["invariant"], it["dataset"]) == ("AUDIENCE_CEILING", dataset))

    assert (code, found["excess"], found["counterexample"]["confirmed"]) == (1, excess, True)


def test_an_edit_that_nobody_gains_by_is_published(tmp_path: Path) -> None:
    """A deny that only repeats another is no reason to refuse."""
    code, findings = judged(
        draft(tmp_path / "clinic", "policy.csv", NEUTRAL, NEUTRAL + NEUTRAL.replace("nurse", "intern"))
    )

    assert (code, findings) == (0, [])


def test_a_draft_is_refused_by_the_command_and_the_active_revision_stays(tmp_path: Path) -> None:
    """`gatebook policy publish` of a leak ends with 1, names the place, and changes nothing."""
    file, before, after, _, _ = LEAKS["a role made child of another"]
    folder = draft(tmp_path / "clinic", file, before, after)
    with serving(tmp_path / "data", [CLINIC], "--dev") as server:
        shown = gatebook("policy", "show", "--target", server.target).stdout
        done = gatebook("policy", "publish", str(folder), "--target", server.target)
        still = gatebook("policy", "show", "--target", server.target).stdout

    assert (done.returncode, shown) == (1, still)
    assert "flora has role:billing (staff.jsonl:6); role:billing inherits role:physician (policy.csv:" in done.stderr
