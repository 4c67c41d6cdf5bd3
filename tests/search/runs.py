"""Helpers for tests of whole runs: what to compare, and ways to break off."""

from __future__ import annotations

import pytest

from optimizer.merging import Recipe
from optimizer.search.evaluation.evaluator import Evaluator, Measured
from optimizer.search.observer import Silent, Stopped
from studies.records import Evaluation, SourceScore, TrialRecord

Trials = list[tuple[int, str, str, dict[str, object], float]]


def trials(records: tuple[TrialRecord, ...]) -> Trials:
    """All of a run that a resumed one has to repeat: number, label, state, recipe, score."""
    return [
        (r.number, r.label, r.state, r.evaluation.recipe if r.evaluation else {}, r.evaluation.score if r.evaluation else float("-inf"))
        for r in records
    ]


def record(number: int, score: float | None, label: str = "", recipe: str = "") -> TrialRecord:
    """A trial with this score, or a failed one."""
    if score is None:
        return TrialRecord(number=number, label=label, state="FAIL", error="why")
    share = SourceScore(preservation=score, own=score, joint=score)
    found = Evaluation(recipe={}, recipe_hash=recipe or str(number), score=score, sources={"a": share}, artifacts=0.0)
    return TrialRecord(number=number, label=label, evaluation=found)


def watch_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that are evaluated from now on, rendered and scored, in order; the list grows with every one."""
    found: list[Recipe] = []
    real = Evaluator.evaluate

    def evaluate(evaluator: Evaluator, recipe: Recipe, best: Evaluation | None = None) -> Measured:
        found.append(recipe)
        return real(evaluator, recipe, best)

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    return found


class After(Silent):
    """Stops when this many trials have ended: at once, or while the next one is rendered."""

    def __init__(self, ended: int, *, rendering: bool) -> None:
        self.left, self.rendering = ended, rendering

    def trial(self, record: TrialRecord) -> None:
        self.left -= 1
        if self.left == 0 and not self.rendering:
            raise Stopped

    def solving(self, what: str, done: int, total: int, loss: float) -> None:
        self.pictures(done, total)

    def pictures(self, done: int, total: int) -> None:
        if self.left <= 0:
            raise Stopped
