"""Fixtures for workers: a PostgreSQL server, and files to merge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import ABSENT, Server, programs, running
from tests.workers.runs import Sources, make_sources


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server for this process's tests; those that use it carry the mark ``postgres``."""
    if programs() is None:
        pytest.skip(ABSENT)
    with running() as found:
        yield found


@pytest.fixture
def database(server: Server) -> str:
    """The address of a fresh database."""
    return server.database()


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two small LoRA files."""
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A study directory to be."""
    return tmp_path / "out"
