"""In CI a skip is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SKIPS = {
    "test_call": "import pytest\ndef test(): pytest.skip('call')\n",
    "test_mark": "import pytest\n@pytest.mark.skip(reason='mark')\ndef test(): pass\n",
    "test_fixture": "import pytest\n@pytest.fixture\ndef x(): pytest.skip('fixture')\ndef test(x): pass\n",
    "test_known": "import pytest\n@pytest.mark.xfail(reason='known')\ndef test(): assert False\n",
}
MODULE_SKIP = {"test_module": "import pytest\npytest.skip('module', allow_module_level=True)\n"}


def _run(pytester: pytest.Pytester, files: dict[str, str]) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(**files)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:asyncio")


def test_skips_fail_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip by call, mark or fixture fails in CI, with its reason; an expected failure does not."""
    monkeypatch.setenv("CI", "true")

    result = _run(pytester, SKIPS)

    result.assert_outcomes(failed=1, errors=2, xfailed=1)
    for reason in ("call", "mark", "fixture"):
        result.stdout.fnmatch_lines([f"*every test must run: *{reason}*"])


def test_skipped_module_fails_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The skip of a whole module fails in CI."""
    monkeypatch.setenv("CI", "true")

    _run(pytester, MODULE_SKIP).assert_outcomes(errors=1)


def test_skips_pass_elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside CI a skip is a skip."""
    monkeypatch.delenv("CI", raising=False)

    _run(pytester, SKIPS | MODULE_SKIP).assert_outcomes(skipped=4, xfailed=1)
