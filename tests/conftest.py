"""Fixtures that several suites share, and the rule that continuous integration skips no browser test."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.studio import Studio, build_studio


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A tiny base model, adapters that fit it, and words to ask for them."""
    return build_studio(tmp_path_factory.mktemp("studio"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where MULTILORA_CI is set, a browser test that is skipped has failed: a missing browser must not look like a sound report."""
    report = yield
    if report.skipped and item.get_closest_marker("browser") and os.environ.get("MULTILORA_CI"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped, and MULTILORA_CI is set: {report.longrepr}"
    return report
