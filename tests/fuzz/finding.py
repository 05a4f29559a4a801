"""What a long run found, as a file that repeats it.

Owns the form of the case files in `tests/vectors/casbin`: a claim, the texts of the model and the rules, and requests
with the effect that is right.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString
from tests.property.agreement import Finding


class Found(msgspec.Struct, frozen=True):
    """Where a target was refuted: its text tells how, `finding` has the request where there is one."""

    target: str
    seed: int
    text: str
    finding: Finding | None


def write(found: Found, folder: Path) -> Path:
    """Writes a case file, or a text where the target knows no cases; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(found.text.encode("utf-8", "replace")).hexdigest()[:12]
    if found.finding is None:
        path = folder / f"{name}.txt"
        path.write_text(f"{found.target}, seed {found.seed}\n\n{found.text}\n", encoding="utf-8", errors="replace")
        return path
    path = folder / f"{name}.yaml"
    with path.open("w", encoding="utf-8") as file:
        _yaml().dump(_case(found.finding), file)
    return path


def _case(finding: Finding) -> dict[str, object]:
    return {
        "claim": f"{finding.between} part here: say why they must not, and correct `effect`",
        "answers": dict(finding.answers),
        "model": LiteralScalarString(finding.model),
        "policy": LiteralScalarString(finding.policy),
        "matcher": finding.matcher,
        "patterns": msgspec.to_builtins(finding.patterns),
        "requests": [
            {
                "values": list(finding.request),
                "attributes": {token: dict(own) for token, own in finding.attributes.items()},
                "effect": "DENY",
            }
        ],
    }


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = 120
    yaml.default_flow_style = None
    return yaml
