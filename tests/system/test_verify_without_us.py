"""docs/verify-without-us.md is followed with the tools that it names: Tessera's fsck, Go, npm, protoc.

`make test` follows what needs only Python. Needs Go, Node and `make build/fsck/.ready build/npm-proofs/.ready`; the
protobuf compiler is that of `make proto`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_documents import follow
from tests.document_session import Session
from tests.serving import ROOT

DOCUMENT = ROOT / "docs" / "verify-without-us.md"
FSCK = ROOT / "build" / "fsck" / "fsck"
PACKAGES = ROOT / "build" / "npm-proofs" / "node_modules"
PROTOC = ROOT / ".venv-proto" / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(shutil.which("go") is None, reason="needs Go: install the Debian package `golang-go`"),
    pytest.mark.skipif(not FSCK.exists(), reason="needs Tessera's fsck: run `make build/fsck/.ready`"),
    pytest.mark.skipif(not PACKAGES.exists(), reason="needs packages of npm: run `make build/npm-proofs/.ready`"),
    pytest.mark.skipif(not PROTOC.exists(), reason="needs a protobuf compiler: run `make .venv-proto/.ready`"),
]


class Equipped(Session):
    """A reader who has all tools; what `make` has installed already is put in place."""

    def run(self, command: str) -> tuple[str, int]:
        """Runs a command."""
        if command.startswith("GOBIN=$PWD/bin go install "):
            (self.folder / "bin").mkdir()
            shutil.copy(FSCK, self.folder / "bin")
            return "", 0
        if command.startswith("npm install "):
            (self.folder / "node_modules").symlink_to(PACKAGES)
            return "", 0
        return super().run(command)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A reader with all tools."""
    reader = Equipped(tmp_path / "reader", outside=True, seconds=300)
    shutil.copytree(ROOT / "proto", reader.folder / "proto")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "protoc").write_text(f'#!/bin/sh\nexec {PROTOC} -m grpc_tools.protoc "$@"\n', "utf-8")
    (tools / "protoc").chmod(0o700)
    reader.environment["PATH"] = f"{tools}:{reader.environment['PATH']}"
    yield reader
    try:
        reader.stop_server()
    finally:
        reader.stop_witnesses()


@pytest.mark.timeout(700)
def test_an_outside_auditor_needs_nothing_of_ours(session: Session) -> None:
    """Every command of the document shows what it says, with programs that are not ours."""
    follow(DOCUMENT, session)


def test_the_document_names_the_versions_that_are_tested() -> None:
    """What the document has an auditor install is what the tests run."""
    text, makefile = DOCUMENT.read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    versions = dict(re.findall(r"^(\w+)_VERSION := (\S+)$", makefile, re.MULTILINE))
    [sumdb] = re.findall(r"golang.org/x/mod (v\S+)\n", (ROOT / "tests/system/go_notes/go.mod").read_text("utf-8"))

    assert f"tessera/cmd/fsck@v{versions['TESSERA']}\n" in text
    assert f"@transmute/rfc9162@{versions['RFC9162']} @sigstore/verify@{versions['SIGSTORE']}\n" in text
    assert f"go get golang.org/x/mod@{sumdb} " in text
