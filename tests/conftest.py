"""Rules that hold for every test.

1. In CI (`CI` is set) a skip is a failure: what is not run is not known to work.
2. Property tests have no time limit per example, since the machine may be shared, and are
   repeatable in CI.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import hypothesis
import pytest

IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}

hypothesis.settings.register_profile("gatebook", deadline=None, derandomize=IN_CI)
hypothesis.settings.load_profile("gatebook")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where every test must run: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns the skip of a test into a failure in CI."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turns the skip of a module into a failure in CI."""
    report = yield
    _refuse_skip(report)
    return report
