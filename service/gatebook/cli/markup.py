"""Builds elements of a page, so that no text of a policy set or directory is ever read as markup.

Owns the only way from text to markup of a report: every text and attribute goes through the serialiser of
`xml.etree`, which escapes it; and what no page may hold becomes the replacement character.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from xml.etree import ElementTree as ET

Element: TypeAlias = ET.Element
Child: TypeAlias = "ET.Element | str"

_ODD = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
"""Control characters, halves of characters, non-characters, and those that turn the direction of what follows."""


def element(tag: str, *children: Child, **attributes: str | float) -> ET.Element:
    """Returns an element; the name of an attribute has `_` for `-`, and may end in one."""
    made = ET.Element(tag, {name.rstrip("_").replace("_", "-"): clean(str(it)) for name, it in attributes.items()})
    last: ET.Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                made.text = (made.text or "") + clean(child)
            else:
                last.tail = (last.tail or "") + clean(child)
        else:
            made.append(child)
            last = child
    return made


def page(title: str, style: str, *body: ET.Element) -> str:
    """Returns a whole page that loads nothing and runs nothing. `style` is constant text of ours."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    root = element("html", head, element("body", *body), lang="en")
    return "<!doctype html>\n" + ET.tostring(root, encoding="unicode", method="html") + "\n"


def clean(text: str) -> str:
    """Returns a text without characters that no page may hold."""
    return _ODD.sub("\ufffd", text)
