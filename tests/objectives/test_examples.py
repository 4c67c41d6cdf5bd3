"""The examples in the docstrings of this package run, and every public function and objective has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import objectives
from objectives import Objective

MODULES = [module.name for module in pkgutil.walk_packages(objectives.__path__, "objectives.")]
FUNCTIONS = [name for name in objectives.__all__ if inspect.isfunction(getattr(objectives, name))]
CLASSES = [name for name in objectives.__all__ if inspect.isclass(found := getattr(objectives, name)) and issubclass(found, Objective)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, "Scorer", "FakeEmbedder"])
def test_there_is_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(objectives, name)) or "")


def test_the_lists_are_not_empty() -> None:
    assert {"score", "moments", "resamples"} <= set(FUNCTIONS)
    scored = {"PreservationObjective", "SeparationObjective", "ArtifactObjective", "FamiliarityObjective"}
    assert scored | {"Objective", "MetricObjective", "KernelDistanceObjective", "SimilarityObjective"} == set(CLASSES)
    assert "objectives.table" in MODULES
