"""`callers.yaml`: what it may say, where it is wrong, and that its JSON schema says the same."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace
from ruamel.yaml import YAML

from gatebook.config import LOCAL_QUOTA, Quota
from gatebook.door.callers_file import parse_callers

ROOT = Path(__file__).parents[3]
CASES: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "tests/cases/callers_files.yaml").read_text())
SCHEMA = json.loads((resources.files("gatebook.door") / "schemas/callers.schema.json").read_text())
FOLDER = Path("/etc/gatebook")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_finding_is_told_with_its_place(case: dict[str, Any]) -> None:
    """A file is taken as a whole, or refused with every finding by line and column."""
    read, findings = parse_callers(case["text"].encode(), "callers.yaml", FOLDER)
    expected = case.get("findings", [])

    assert [f"{f.line}:{f.column}" for f in findings] == [text.split(" ")[0] for text in expected], findings
    assert all(text.partition(" ")[2] in f.message for text, f in zip(expected, findings, strict=True)), findings
    assert (read is None) == bool(expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_schema_describes_the_form(case: dict[str, Any]) -> None:
    """The shipped JSON schema accepts what is well formed, and refuses what it can express."""
    yaml = YAML(typ="safe")
    yaml.allow_duplicate_keys = True
    accepts = jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.load(case["text"]))

    assert ("accepts" if accepts else "refuses") == case.get("schema", "refuses" if "findings" in case else "accepts")


def test_paths_are_from_the_folder_of_the_file() -> None:
    """A file of keys is found from where callers.yaml is, wherever the server was started."""
    text = "issuers: {corp: {issuer: a, audiences: [b], algorithms: [ES256], jwks: keys.json, jwks_ca: /ca.pem}}"
    read, _ = parse_callers(text.encode(), "callers.yaml", FOLDER)

    assert read is not None
    assert (read.issuers[0].jwks, read.issuers[0].jwks_ca) == (FOLDER / "keys.json", Path("/ca.pem"))


@pytest.mark.parametrize("content", [b"\xff", b"\xef\xbb\xbfissuers: {}", b"issuers: {\xc2\xad}", b""])
def test_what_is_no_text_is_refused(content: bytes) -> None:
    """Bytes that are no UTF-8, invisible characters and an empty file are findings."""
    read, findings = parse_callers(content, "callers.yaml", FOLDER)

    assert read is None
    assert findings


def test_a_caller_may_have_a_quota_of_its_own() -> None:
    """What a quota names replaces what everybody has; the rest stays, and what is no quota is refused by its place."""
    good = b"quotas:\n  spiffe://corp.example/batch: {checks_per_second: 50000}\n  local: {streams: 3}\n"
    bad = b"quotas:\n  cn:a: {checks_per_second: 0}\n  cn:b: {checks: 1}\n"
    read, findings = parse_callers(good, "callers.yaml", Path())
    refused, places = parse_callers(bad, "callers.yaml", Path())

    assert findings == []
    assert read is not None
    assert read.quotas == {
        "spiffe://corp.example/batch": Quota(checks_per_second=50_000),
        "local": replace(LOCAL_QUOTA, streams=3),
    }
    assert refused is None
    assert [finding.line for finding in places] == [2, 3]
