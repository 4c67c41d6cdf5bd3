"""The ledger: what is written for every trial, where, and in which order, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from torch import Tensor

from optimizer.errors import OptimizerError, StudyError
from optimizer.merging import Recipe
from optimizer.search.images.contact_sheets import sheet_links
from optimizer.search.images.retention import Gallery
from optimizer.search.labels import BUDGET, ERROR, FIXED, IMPORTED, INPUTS, KEY, LABEL, TOTAL
from optimizer.search.trials.optuna_notes import ending, introduce
from optimizer.search.workers.claims import Claims, Idle, Turn, counted
from optimizer.search.workers.heartbeat import Presence
from optimizer.search.workers.retry import OUTAGES, Patience
from optimizer.search.workers.trial_writes import Ending, Writes
from optimizer.text import one_line
from studies import EvaluationCache, StudyDirectory, evaluation_key
from studies.records import Evaluation, TrialRecord
from studies.store import Store
from studies.trial_log import StudyEntry, TrialEntry, TrialLog


@dataclass(frozen=True)
class Ledger:
    """One study: Optuna's storage, the evaluation cache, the trial log, the pictures.

    An evaluation is written to the store before Optuna is told of it. Every call to Optuna may be repeated, and is, when a database is
    away for a while.

    Attributes:
        study: the Optuna study.
        store: evaluations, trial log, pictures.
        context: everything besides the recipe that an evaluation depends on.
        claims: who evaluates what.
        writes: of trials.
        presence: this worker, as others see it.
        patience: waits for the storage.
        gallery: whose pictures stay.
    """

    study: optuna.Study
    store: Store
    context: Mapping[str, object]
    claims: Claims
    writes: Writes
    presence: Presence
    patience: Patience
    gallery: Gallery
    _known: dict[int, TrialRecord] = field(default_factory=dict)

    @property
    def cache(self) -> EvaluationCache:
        """The evaluations, the source of truth."""
        return EvaluationCache(self.store)

    @property
    def planned_budget(self) -> int:
        """The budget that the study began with. Search space and first trials follow from it, and stay when the budget grows."""
        return int(self.patience(lambda: self.study.user_attrs)[BUDGET])

    @property
    def total(self) -> int:
        """Trials that the study may have at present, baselines included."""
        return int(self.patience(lambda: self.study.user_attrs).get(TOTAL, 0))

    @property
    def imported(self) -> int:
        """Trials beyond the baselines that came from another study, and do not count as part of the budget."""
        return sum(bool(t.user_attrs.get(IMPORTED)) for t in self.patience(lambda: counted(self.study)))

    def allow(self, total: int) -> None:
        """Let the study have so many trials."""
        self.patience(lambda: self.study.set_user_attr(TOTAL, total))

    def known(self, recipe: Recipe) -> Evaluation | None:
        """The evaluation of a recipe that was evaluated before, by this or another worker, or by an interrupted run."""
        return self.cache.get(self.key(recipe))

    def keep(self, recipe: Recipe, evaluation: Evaluation, images: Tensor, label: str = "") -> Evaluation:
        """Write the pictures, unless better trials have displaced them already, then the evaluation that names them; when this returns
        both are durable.

        Where another worker, which took this one for dead, was first, its evaluation stands, and is returned.
        """
        files = self.gallery.hang(self.store, recipe, images, stay=self.gallery.has_room(self._known, label, evaluation))
        stands = self.cache.add(self.key(recipe), evaluation.model_copy(update={"images": files}))
        for file in set(files) - set(stands.images):  # it was taken down meanwhile
            self.store.remove(file)
        return stands

    def enqueue(self, starts: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Queue the labelled trials that a study begins with; those that an interrupted call has queued are not queued again.

        One that a repair has found unfinished, and could not name, gets its label and its values back.
        """
        with self.claims.gate.passing():
            queued = self.study.get_trials(deepcopy=False)
            for trial, (label, values) in zip(queued, starts, strict=False):
                if trial.state == TrialState.WAITING and FIXED not in trial.system_attrs:
                    self._name(trial, label, values)
            for label, values in starts[len(queued) :]:
                self.study.enqueue_trial(dict(values), user_attrs={LABEL: label})

    def _name(self, trial: FrozenTrial, label: str, values: Mapping[str, Any]) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, LABEL, label)
        self.study._storage.set_trial_system_attr(trial._trial_id, FIXED, dict(values))

    def take(self) -> Turn:
        """The next trial of this worker; see ``Claims.take``. Before the run has queued the first trials, there is a wait for them."""
        total = self.total
        return self.patience(lambda: self.claims.take(total)) if total else Turn(Idle.WAIT)

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Write down a proposal; see ``Writes.propose``."""
        return self.patience(lambda: self.writes.propose(trial))

    def tell(self, trial: FrozenTrial, recipe: Recipe, evaluation: Evaluation) -> TrialRecord:
        """Write down that a trial has ended with an evaluation that is in the cache, and tell Optuna.

        Where another worker, which took this one for dead, was first, its result stands.
        """
        key = self.key(recipe)
        self.log.add(entry_of(trial, key=key))
        record = TrialRecord(number=trial.number, label=label_of(trial), evaluation=evaluation)
        return self._end(trial, ending(trial, key, evaluation, sheet_links(self.store, recipe.hash)), record)

    def fail(self, trial: FrozenTrial, error: Exception) -> TrialRecord:
        """Record a failed trial with its reason."""
        reason = reason_of(error)
        self.log.add(entry_of(trial, error=reason))
        record = TrialRecord(number=trial.number, label=label_of(trial), state="FAIL", error=reason)
        return self._end(trial, Ending(None, {ERROR: reason}), record)

    def ended(self, trial: FrozenTrial) -> TrialRecord:
        """Record a trial as another worker has ended it."""
        found = self.patience(lambda: self.study._storage.get_trial(trial._trial_id))
        self.log.add(entry_of(found))
        return self._known.setdefault(trial.number, self._record(found))

    def give_back(self, trial: FrozenTrial) -> None:
        """Leave a trial to whoever claims it next, this run or another."""
        with suppress(*OUTAGES, OSError):
            self.claims.give_back(trial)

    def _end(self, trial: FrozenTrial, told: Ending, record: TrialRecord) -> TrialRecord:
        if not self.patience(lambda: self.writes.end(trial, told)):
            return self.ended(trial)
        return self._known.setdefault(trial.number, record)

    @property
    def log(self) -> TrialLog:
        """What became of every trial."""
        return TrialLog(self.store)

    def records(self, known: Sequence[FrozenTrial] | None = None) -> list[TrialRecord]:
        """All finished trials, by number, after those pictures are gone that newer ones have displaced.

        Args:
            known: the study's trials, where they have just been read.
        """
        finished = [t for t in known or self.patience(lambda: counted(self.study)) if t.state.is_finished()]
        for trial in finished:
            if trial.number not in self._known:
                self._known[trial.number] = self._record(trial)
        keys = {trial.number: trial.user_attrs.get(KEY, "") for trial in finished}
        for record in self.gallery.fallen({number: self._known[number] for number in keys}):
            self._known[record.number] = self._take_down(keys[record.number], record)
        return [self._known[trial.number] for trial in finished]

    def _take_down(self, key: str, record: TrialRecord) -> TrialRecord:
        """Remove a trial's pictures, after its evaluation has ceased to name them; harmless when others do so, too."""
        assert record.evaluation is not None
        bare = record.evaluation.model_copy(update={"images": ()})
        self.cache.put(key, bare)
        for file in record.evaluation.images:
            self.store.remove(file)
        return record.model_copy(update={"evaluation": bare})

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        label = label_of(trial)
        evaluation = self.cache.get(trial.user_attrs[KEY]) if trial.state == TrialState.COMPLETE else None
        if evaluation is None:
            reason = trial.user_attrs.get(ERROR, "its evaluation is missing or damaged — optimize repair has it evaluated again")
            return TrialRecord(number=trial.number, label=label, state="FAIL", error=reason)
        return TrialRecord(number=trial.number, label=label, evaluation=evaluation)

    def key(self, recipe: Recipe) -> str:
        """Of the recipe's evaluation in this study."""
        return evaluation_key(recipe=recipe.data(), **self.context)


def begin(study: optuna.Study, log: TrialLog, *, budget: int, inputs: Mapping[str, str], fork: str = "") -> None:
    """Write down, once, what a study begins with; what an older version has not written down is added."""
    known = inputs_of(study)
    if inputs.keys() <= known.keys():
        return
    introduce(study)
    budget, inputs = budget_of(study, budget), {**inputs, **known}
    beginning = log.beginning
    log.begin(StudyEntry(budget=budget, inputs=inputs, fork=fork or (beginning.fork if beginning else "")))
    study.set_user_attr(BUDGET, budget)
    study.set_user_attr(INPUTS, inputs)


def budget_of(study: optuna.Study, asked: int) -> int:
    """The budget that a study began with, or the one that is asked for where it has not begun."""
    return int(study.user_attrs.get(BUDGET, asked))


def inputs_of(study: optuna.Study) -> Mapping[str, str]:
    """Digests and versions of what the study began with."""
    return dict(study.user_attrs.get(INPUTS, {}))


@contextmanager
def alone_in(directory: StudyDirectory) -> Iterator[None]:
    """Keep every other run out of a study until the block, or the process, ends.

    Raises:
        StudyError: another run is in there.
    """
    lock = FileLock(directory.journal.with_name(f"{directory.journal.name}.run"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "wait until it ends, or choose another --out"
        raise StudyError("another run is working on the study here", where=directory.path, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()


def reason_of(error: Exception) -> str:
    """One line that says why something failed; errors that this software did not raise on purpose are named by their class."""
    text = one_line(error)
    return text if isinstance(error, OptimizerError) else f"{type(error).__name__}: {text}".rstrip(": ")


def label_of(trial: BaseTrial) -> str:
    """A baseline's or a default recipe's name; of a proposed trial nothing."""
    return str(trial.user_attrs.get(LABEL, ""))


def entry_of(trial: BaseTrial, *, key: str = "", error: str = "") -> TrialEntry:
    """A trial as the log has it; with the evaluation's key or the error that the trial itself names, unless they are given."""
    spaces = {name: distribution_to_json(space) for name, space in trial.distributions.items()}
    attributes = trial.user_attrs if not (key or error) else {KEY: key, ERROR: error}
    return TrialEntry(
        number=trial.number,
        label=label_of(trial),
        values=trial.params,
        spaces=spaces,
        key=attributes.get(KEY, ""),
        error=attributes.get(ERROR, ""),
        imported=trial.user_attrs.get(IMPORTED, False),
    )
