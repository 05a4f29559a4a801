"""The pages of decisions can be cited by their numbers, and are all listed."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"


def test_each_decision_has_a_number_and_a_line() -> None:
    """Numbers are those of the files, without gaps or doubles, and the list names each page by its own title."""
    pages = sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in pages]
    listed = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)

    assert list(range(1, len(pages) + 1)) == [int(page.name[:4]) for page in pages]
    assert [f"{number}. {title}" for number, title, _ in listed] == titles
    assert [page.name for page in pages] == [name for _, _, name in listed]
