"""The company that the demo plays in: its people, its telemetry, and the rules that it serves.

Owns the making of them in a folder, and the narrator's own look at the store, which no reader of the demo has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from gatebook.demo.people import SEED, write_directory
from gatebook.demo.processes import BrokenOffError
from gatebook.demo.question import Question
from gatebook.demo.store import build_store, read_rows
from gatebook.policy import bundle
from gatebook.policy.catalogue import Catalogue
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import load

POLICIES = Path(__file__).resolve().parents[3] / "policies" / "telemetry"
SET_NAME = "telemetry"


class Company(msgspec.Struct, frozen=True):
    """A generated company. `tables` has the number of rows of each."""

    policies: Path
    people: Path
    store: Path
    catalogue: Catalogue
    directory: Directory
    tables: Mapping[str, int]

    @property
    def employees(self) -> int:
        """Returns how many of the subjects are people."""
        return sum(subject.type == "user" for subject in self.directory.subjects.values())

    def rows(self, question: Question, columns: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """Returns what is stored of the rows that a question is about, in clear, in the values of JSON."""
        with duckdb.connect(str(self.store), read_only=True) as connection:
            dataset = self.catalogue.datasets[question.dataset]
            found = read_rows(connection, dataset, columns, where=question.where, limit=limit)
        decoded: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(found))
        return decoded

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns what SQL of the demo's own finds in the store."""
        with duckdb.connect(str(self.store), read_only=True) as connection:
            return connection.execute(sql).fetchall()


def found_company(
    folder: Path,
    *,
    employees: int,
    scale: float,
    seed: int = SEED,
    progress: Callable[[int, int], None] | None = None,
    policies: Path = POLICIES,
) -> Company:
    """Makes the people and the store in a folder, and reads the rules.

    Raises:
        BrokenOffError: the telemetry set is not there.
    """
    require_checkout(policies)
    catalogue = load(bundle.read_folder(policies)).catalogue
    if catalogue is None:
        raise BrokenOffError(f"`{policies}` has no catalogue: run the demo from a checkout of the source")
    people, store = folder / "people", folder / "telemetry.duckdb"
    write_directory(people, policies / bundle.DIRECTORY_FOLDER / "personas.jsonl", seed=seed, count=employees)
    directory = load_directory(bundle.read_directory_folder(people))
    tables = build_store(store, catalogue, directory, seed=seed, scale=scale, progress=progress)
    return Company(policies, people, store, catalogue, directory, tables)


def require_checkout(policies: Path) -> None:
    """Refuses to play where the rules are not.

    Raises:
        BrokenOffError: the telemetry set is not there.
    """
    if not (policies / "catalogue.yaml").is_file():
        raise BrokenOffError(f"`{policies}` is missing: run the demo from a checkout of the source, with `make demo`")


def require_clock(catalogue: Catalogue, now: datetime) -> None:
    """Refuses a clock before the notices of the set, under which the story would be another one.

    Raises:
        BrokenOffError: a notice is not in force yet.
    """
    latest = max(notice.effective_time for notice in catalogue.notices.values())
    if now < latest:
        message = f"the clock says {now:%Y-%m-%d}, but the story begins on {latest:%Y-%m-%d}: set the clock"
        raise BrokenOffError(message)
