"""What goes on under a set `gatebook` that is older than the server, and what has to be permitted anew."""

from __future__ import annotations

from pathlib import Path

from tests.authorised import gatebook_set
from tests.serving import POLICIES, gatebook, serving

from gatebook.cli.uploading import WHOLE_BYTES_MAX

NEW = ("PlanAccess", "UploadPolicySet", "UploadDirectory")
"""The calls that a set of version 0.1 does not name."""


def test_new_calls_are_permitted_by_publishing_the_shipped_set(tmp_path: Path) -> None:
    """Small sets and directories are published as ever; what takes a new call is denied until the set names it."""
    old = gatebook_set(tmp_path, without=NEW)
    large = tmp_path / "large"
    large.mkdir()
    (large / "model.conf").write_bytes((POLICIES / "basic" / "model.conf").read_bytes())
    (large / "policy.csv").write_bytes(b"# nothing but a comment that is long enough\n" * (WHOLE_BYTES_MAX // 40))
    with serving(tmp_path / "data", [old], "--dev") as server:
        to = ("--target", server.target)
        small = gatebook("policy", "publish", str(POLICIES / "basic"), *to)
        rehearsed = gatebook("policy", "publish", str(POLICIES / "basic"), "--dry-run", *to)
        directory = gatebook("directory", "publish", str(POLICIES / "telemetry" / "directory"), *to)
        denied = gatebook("policy", "publish", str(large), *to)
        shipped = gatebook("policy", "publish", str(POLICIES / "gatebook"), *to)
        permitted = gatebook("policy", "publish", str(large), *to)

    assert [0] * 3 == [it.returncode for it in (small, rehearsed, directory)], directory.stderr
    assert denied.returncode != 0
    assert "(PERMISSION_DENIED)" in denied.stderr
    assert (0, 0) == (shipped.returncode, permitted.returncode)
    assert "gatebook revision 2 " in shipped.stdout
    assert "large revision 1 " in permitted.stdout
