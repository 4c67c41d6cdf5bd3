"""Live status: the status of a study from what its storage holds while workers run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from optimizer.search.labels import LABEL, NAIVE, STACK, is_alone, is_baseline, source_of
from optimizer.search.status.records import State, StudyStatus, WorkerStatus
from optimizer.search.workers.registry import WorkerEntry


@dataclass(frozen=True)
class Observed:
    """What the storage of a study holds at one moment.

    Attributes:
        trials: trials of the study that count, by number.
        total: maximum number of trials, baselines included; 0 if not known yet.
        entries: entries of the workers in the registry.
        workers: status of the workers, in the order of their entries.
    """

    trials: Sequence[FrozenTrial]
    total: int
    entries: Sequence[WorkerEntry]
    workers: tuple[WorkerStatus, ...]

    @property
    def ended(self) -> list[FrozenTrial]:
        """Trials that have ended."""
        return [t for t in self.trials if t.state.is_finished()]

    @property
    def running(self) -> int:
        """Number of trials being evaluated."""
        return sum(t.state == TrialState.RUNNING for t in self.trials)

    @property
    def spent(self) -> bool:
        """Whether all trials have ended."""
        return 0 < self.total <= len(self.ended) and not self.running


def live_status(observed: Observed, *, name: str, alone: bool, resume: str) -> StudyStatus:
    """Returns the status of a study from its storage.

    Args:
        observed: content of the storage.
        name: name of the study, used before it has a title.
        alone: whether no study directory is known, so that confirmation and exports cannot be observed.
        resume: command that resumes the study if it is stopped.
    """
    ended = observed.ended
    labels = [str(t.user_attrs.get(LABEL, "")) for t in observed.trials]
    count = sum(map(is_baseline, labels))
    scores = {str(t.user_attrs.get(LABEL) or f"trial {t.number}"): t.value for t in ended if t.state == TrialState.COMPLETE}
    feasible = {str(t.user_attrs.get(LABEL) or f"trial {t.number}") for t in ended if all(x <= 0 for x in t.constraints.values())}
    merges = {label: value for label, value in scores.items() if value is not None and not is_alone(label) and label in feasible}
    best = max(merges, key=lambda label: merges[label], default="")
    state = _state(observed, alone=alone)
    return StudyStatus(
        study=" + ".join(source_of(label) for label in labels if is_alone(label)) or name,
        recipes=max(0, len(ended) - count),
        budget=max(0, observed.total - count),
        failed=sum(t.state == TrialState.FAIL for t in ended),
        finished=state == "done",
        best=merges.get(best),
        stack=scores.get(STACK),
        naive=scores.get(NAIVE),
        file="",
        resume=resume if state == "stopped" else "",
        state=state,
        trials=observed.total,
        ended=len(ended),
        running=observed.running,
        best_label=best,
        eta=_eta(observed) if state == "searching" else None,
        workers=observed.workers,
    )


def _state(observed: Observed, *, alone: bool) -> State:
    active = {worker.state for worker in observed.workers} - {"lost"}
    if observed.spent and alone:
        return "done"
    if not active:
        return "stopped"
    if observed.spent:
        return "confirming"
    return "loading" if active == {"loading"} or not observed.total else "searching"


def _eta(observed: Observed) -> float | None:
    """Returns the estimated seconds for the remaining trials at the average rate of the active workers, or None.

    Time for solving merges does not count: each is solved once.
    """
    active = {worker.name for worker in observed.workers if worker.state != "lost"}
    times = [(entry.finished, entry.seconds - entry.solving) for entry in observed.entries if entry.name in active]
    rate = sum(finished / seconds for finished, seconds in times if seconds > 0)
    return (observed.total - len(observed.ended)) / rate if rate else None
