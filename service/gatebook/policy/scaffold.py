"""Policy sets to begin with.

Owns `scaffold`: each kind is a set that passes its tests, is in form, and says in comments what to change. The files
lie in `scaffolds/`; what comes to them here is the name, and for YAML files the line that names their schema.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from gatebook.policy.bundle import CATALOGUE_FILE, SETTINGS_FILE
from gatebook.policy.schema import SUFFIX

KINDS: Final = ("plain", "rbac", "abac", "governed")
SCHEMAS_FOLDER: Final = ".schemas"
_NAME: Final = "NAME"


def scaffold(kind: str, name: str) -> dict[str, bytes]:
    """Returns the files of a set of a kind, under a name."""
    files = dict(_files(resources.files("gatebook.policy") / "scaffolds" / kind, ""))
    governed = CATALOGUE_FILE in files
    return {path: _made(path, text, name, governed=governed) for path, text in files.items()}


def schemas_of(files: dict[str, bytes]) -> tuple[str, ...]:
    """Returns the names of the schemas that files of a set have."""
    governed = CATALOGUE_FILE in files
    return tuple(sorted({_schema(path, governed=governed) for path in files if path.endswith(".yaml")}))


def _files(folder: Traversable, within: str) -> list[tuple[str, str]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda it: it.name):
        if entry.is_dir():
            found += _files(entry, f"{within}{entry.name}/")
        else:
            found.append((f"{within}{entry.name}", entry.read_text()))
    return found


def _made(path: str, text: str, name: str, *, governed: bool) -> bytes:
    named = text.replace(_NAME, name) if path in (SETTINGS_FILE, "README.md") else text
    if not path.endswith(".yaml"):
        return named.encode()
    up = "../" * path.count("/")
    schema = f"{up}{SCHEMAS_FOLDER}/{_schema(path, governed=governed)}{SUFFIX}"
    return f"# yaml-language-server: $schema={schema}\n{named}".encode()


def _schema(path: str, *, governed: bool) -> str:
    if "/" in path:
        return "policy_test"
    name = path.removesuffix(".yaml")
    return f"{name}_governed" if path == SETTINGS_FILE and governed else name
