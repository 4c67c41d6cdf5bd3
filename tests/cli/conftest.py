"""Fixtures for the command line."""

from __future__ import annotations

import pytest

from optimizer.cli.commands import search
from optimizer.search.config import Config


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that the main job was started with, instead of running it."""
    configs: list[Config] = []

    def run_and_tell(config: Config) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(search, "run_and_tell", run_and_tell)
    return configs
