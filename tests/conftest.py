"""Fixtures that several suites share, how parallel workers share the processor, time that Hypothesis is given, and the rule that
continuous integration skips no test for want of a browser or a database server."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
import torch
from hypothesis import settings

from tests.studio import Studio, build_studio


def pytest_configure() -> None:
    """Every worker, and what it starts, gets its part of the cores: torch would take all of them in each, and wait for itself."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
    settings.load_profile("untimed")


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A tiny base model, adapters that fit it, and words to ask for them."""
    return build_studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Gives torch one thread: small tensors gain nothing from two, which would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where MULTILORA_CI is set, a test that is skipped for want of a browser or a server has failed: neither may look like success."""
    report = yield
    needed = item.get_closest_marker("browser") or item.get_closest_marker("postgres")
    if report.skipped and needed and os.environ.get("MULTILORA_CI"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was skipped, and MULTILORA_CI is set: {report.longrepr}"
    return report
