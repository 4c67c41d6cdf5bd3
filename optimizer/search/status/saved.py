"""Saved status: the status of a study from the summary that its last run wrote."""

from __future__ import annotations

from optimizer.search.labels import NAIVE, STACK
from optimizer.search.status.records import StudyStatus
from studies import StudySummary


def saved_status(summary: StudySummary) -> StudyStatus:
    """Returns the status of a study without active workers, from the last run's summary."""
    scores = {t.label: t.evaluation.score for t in summary.trials if t.evaluation}
    best = summary.best
    return StudyStatus(
        study=summary.title,
        recipes=max(0, len(summary.trials) - summary.baselines),
        budget=summary.budget or 0,
        failed=sum(t.evaluation is None for t in summary.trials),
        finished=summary.finished is not None,
        best=best.evaluation.score if best and best.evaluation else None,
        stack=scores.get(STACK),
        naive=scores.get(NAIVE),
        file=summary.file,
        resume=summary.resume_command,
        state="stopped" if summary.finished is None else "done",
        trials=max(len(summary.trials), summary.baselines + (summary.budget or 0)),
        ended=len(summary.trials),
        running=0,
        best_label=(best.label or f"trial {best.number}") if best else "",
    )
