"""Exceptions of embedders and metrics."""

from __future__ import annotations


class EmbedderError(ValueError):
    """The embedder cannot be loaded."""


class MetricError(ValueError):
    """A metric cannot be used, or its values cannot.

    Args:
        problem: what is wrong, with the name of the metric.
        remedy: what the user can do.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem} — {remedy}" if remedy else problem)
