"""Where a draft is judged: what is to be proved, in a process that can be ended, whoever asks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from tests.property.whole_sets import files_of

from gatebook.governance.lineage import NO_LINEAGE
from gatebook.policy import bundle
from gatebook.revisions.active import Revisions
from gatebook.revisions.judging import Judging
from gatebook.revisions.publisher import THE_SERVICE, Publisher
from gatebook.revisions.validate import Validation

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SOMEBODY = Publisher("ana", lambda _what, _set: True, lambda _program: True)
POLICY = "p, role:a, t.rows, read, *, True, allow\n"
GUARDRAILS = b"guardrails:\n  it:\n    never: {actions: [export]}\n"
FILES = {**files_of(POLICY), "guardrails.yaml": GUARDRAILS}


@pytest.mark.parametrize("publisher", [None, SOMEBODY, THE_SERVICE])
def test_only_a_start_proves_in_place(publisher: Publisher | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof that somebody asks for by a call can be ended, also where nothing is active yet; a start waits for it."""
    aside: list[str] = []

    def judged_aside(_self: Judging, files: dict[str, bytes], name: str, *_more: object) -> Validation:
        aside.append(name)
        return Validation(name, bundle.digest(files), ())

    nothing = SimpleNamespace(policy_sets={}, directory=None, directory_revision=None, lineage=NO_LINEAGE)
    monkeypatch.setattr("gatebook.revisions.judging.must_be_proved", lambda *_: True)
    monkeypatch.setattr(Judging, "_found_aside", judged_aside)
    judging = Judging(cast("Revisions", SimpleNamespace(state=nothing)))
    found = asyncio.run(judging.judge(FILES, "whole", NOW, publisher))

    assert found.name == "whole"
    assert aside == ([] if publisher is THE_SERVICE else ["whole"])
