"""Files as people write them: read by Casbin in some way, and refused by a strict loader.

Owns the faults that a tidy text gets: spaces, comments, lines that stand there twice, fields too many.
"""

from __future__ import annotations

from hypothesis import strategies as st

RULE_FAULTS = (
    "spaces",
    "tabs",
    "twice",
    "comment behind",
    "one more",
    "one less",
    "quoted",
    "no effect",
    "unknown type",
    "blank",
    "comment",
    "carriage return",
)
"""What people write into rule files, and Casbin reads in some way."""
MODEL_FAULTS = ("comment", "blank", "spaces", "tabs", "carriage return", "comment behind")


@st.composite
def untidy(draw: st.DrawFn, text: str, faults: tuple[str, ...]) -> str:
    """Draws a text with a few things that a tidy one has not."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[at] if lines else ""
        lines[at : at + 1] = _untidied(line, draw(st.sampled_from(faults)))
    return "".join(f"{line}\n" for line in lines)


def _untidied(line: str, fault: str) -> list[str]:
    """Returns what stands in the place of a line."""
    changed = {
        "spaces": "  " + line.replace(", ", " ,   ").replace(" = ", "  =   ") + "  ",
        "tabs": line.replace(", ", ",\t"),
        "comment behind": f"{line} # why",
        "one more": f"{line}, more",
        "one less": line.rpartition(", ")[0] or line,
        "quoted": ", ".join(f'"{field}"' if at == 1 else field for at, field in enumerate(line.split(", "))),
        "no effect": line.replace("allow", "Allow").replace("deny", "none"),
        "carriage return": f"{line}\r",
    }
    beside = {
        "twice": line,
        "unknown type": "q, ana, data1, read",
        "blank": "",
        "comment": "# p, ana, data1, read",
    }
    return [changed[fault]] if fault in changed else [line, beside[fault]]
