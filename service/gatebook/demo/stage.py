"""The stage: where the story is told, calmly, on a terminal or into a file.

Owns the look: headings, sentences, tables, and what is shown while something takes time. On anything but a
terminal it writes plain lines, without control characters, and shows nothing that moves.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

WIDTH = 100
INDENT = 3
DEEP = 9
"""How far what belongs to one answer is indented."""
GAP = 2
BAR_WIDTH = 30
CUT = "..."
Cell = str | Text


class Stage:
    """Tells the story on a console."""

    def __init__(self, console: Console) -> None:
        """Takes the console and keeps within 100 columns."""
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
        self._console = console
        self._chapters = 0

    @classmethod
    def open(cls, *, quiet: bool = False) -> Stage:
        """Returns a stage on standard output; a quiet one shows nothing."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a dash that an old locale lacks is no reason to stop
        return cls(Console(highlight=False, emoji=False, quiet=quiet, file=sys.stdout))

    def chapter(self, title: str, why: str) -> None:
        """Begins a chapter: its number, its title, and why it is told."""
        self._chapters += 1
        self.gap()
        self._console.rule(Text(f"{self._chapters}  {title}", "bold"), align="left", style="dim")
        self.say(why, "italic")
        self.gap()

    def say(self, text: Cell, style: str = "", *, indent: int = INDENT) -> None:
        """Says something, indented."""
        self._show(_text(text, style), indent)

    def gap(self) -> None:
        """Leaves a line empty."""
        self._console.print()

    def verbatim(self, lines: Iterable[str], *, indent: int = INDENT) -> None:
        """Shows lines of a file or of another program, as they are."""
        for line in lines:
            self.say(Text(line or " ", "dim", overflow="fold"), indent=indent)

    def pairs(self, pairs: Iterable[tuple[Cell, Cell]]) -> None:
        """Shows names, each with what belongs to it, which may take several lines."""
        made = Table.grid(padding=(0, 1, 0, 0))
        made.add_column(no_wrap=True, min_width=DEEP - INDENT - 1)
        made.add_column(overflow="fold")
        for name, content in pairs:
            made.add_row(_text(name), _text(content))
        self._show(made, INDENT)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        right: Sequence[str] = (),
        whole: Sequence[str] = (),
        indent: int = INDENT,
    ) -> None:
        """Shows a table on one line per row; where it is too wide, the widest columns are cut.

        The columns named in `right` are aligned to the right, and the texts in those named in `whole` are not cut:
        they take several lines.
        """
        cells = [[_text(cell) for cell in row] for row in rows]
        natural = [max(map(len, texts)) for texts in zip(columns, *(map(str, row) for row in cells), strict=True)]
        widths = fitted(natural, self._console.width - indent - (GAP + 1) * (len(columns) - 1))
        made = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            header_style="dim",
            border_style="dim",
            padding=(0, GAP, 0, 0),
        )
        for column, width in zip(columns, widths, strict=True):
            justify = "right" if column in right else "left"
            cuts = column not in whole
            made.add_column(Text(column), justify=justify, no_wrap=cuts, width=width)  # type: ignore[arg-type]  # rich's own literal
        for row in cells:
            made.add_row(
                *(
                    text if column in whole else cut(text, width)
                    for column, text, width in zip(columns, row, widths, strict=True)
                )
            )
        self._show(made, indent)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Shows progress within the block, on a terminal; yields what to tell of it: done, and of how many."""
        bar = BarColumn(BAR_WIDTH, complete_style="green", finished_style="green", pulse_style="bar.back")
        columns = (TextColumn(" " * (INDENT - 1) + "{task.description}"), bar, TimeElapsedColumn())
        terminal = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not terminal) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    def _show(self, shown: RenderableType, indent: int) -> None:
        padded = Padding(shown, (0, 0, 0, indent), expand=False)
        if self._console.is_terminal:
            self._console.print(padded)
            return
        with self._console.capture() as captured:
            self._console.print(padded)
        lines = captured.get().splitlines()
        self._console.out("\n".join(line.rstrip() for line in lines), highlight=False)


def fitted(widths: Sequence[int], available: int) -> list[int]:
    """Returns widths that fit together, the widest made narrower."""
    fit = list(widths)
    while sum(fit) > available and max(fit) > 1:
        fit[fit.index(max(fit))] -= 1
    return fit


def cut(text: Text, width: int) -> Text:
    """Returns a text that is not wider than a column."""
    if len(text.plain) <= width:
        return text
    return Text(text.plain[: max(width - len(CUT), 0)] + CUT[:width], text.style)


def verdict(*, allowed: bool) -> Text:
    """Returns an answer in its colour."""
    return Text("ALLOW", "bold green") if allowed else Text("DENY", "bold red")


def mark(*, kept: bool) -> Text:
    """Returns the mark of a promise."""
    return Text("kept", "bold green") if kept else Text("BROKEN", "bold red")


def count(number: int, of: str = "") -> str:
    """Returns a number with its thousands apart, and what is counted: `1 row`, `2,000 rows`."""
    if not of:
        return f"{number:,}"
    return f"{number:,} {of}" if number == 1 else f"{number:,} {of}s"


def _text(cell: Cell, style: str = "") -> Text:
    return cell if isinstance(cell, Text) else Text(cell, style)
