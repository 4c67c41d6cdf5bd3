"""The ledger: what is written for every trial, where, and in which order, so that nothing is lost."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from torch import Tensor

from optimizer.errors import OptimizerError, StudyError
from optimizer.merging import Recipe
from optimizer.search.labels import ERROR as _ERROR
from optimizer.search.labels import KEY as _KEY
from optimizer.search.labels import LABEL as _LABEL
from optimizer.search.labels import TOTAL as _TOTAL
from optimizer.search.sheets import keep_sheet
from optimizer.search.telling import annotate, attributes, introduce
from optimizer.search.workers.claims import Claims, Idle, counted
from optimizer.search.workers.patience import OUTAGES, Patience
from optimizer.search.workers.presence import Presence
from studies import EvaluationCache, StudyDirectory, evaluation_key
from studies.records import Evaluation, TrialRecord
from studies.store import Store
from studies.trial_log import StudyEntry, TrialEntry, TrialLog

_BUDGET, _INPUTS = "budget", "inputs"


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
        presence: this worker, as others see it.
        patience: waits for the storage.
    """

    study: optuna.Study
    store: Store
    context: Mapping[str, object]
    claims: Claims
    presence: Presence
    patience: Patience
    _known: dict[int, TrialRecord] = field(default_factory=dict)

    @property
    def cache(self) -> EvaluationCache:
        """The evaluations, the source of truth."""
        return EvaluationCache(self.store)

    @property
    def planned_budget(self) -> int:
        """The budget that the study began with. Search space and first trials follow from it, and stay when the budget grows."""
        return int(self.patience(lambda: self.study.user_attrs)[_BUDGET])

    @property
    def total(self) -> int:
        """Trials that the study may have at present, baselines included."""
        return int(self.patience(lambda: self.study.user_attrs).get(_TOTAL, 0))

    def allow(self, total: int) -> None:
        """Let the study have so many trials."""
        self.patience(lambda: self.study.set_user_attr(_TOTAL, total))

    def known(self, recipe: Recipe) -> Evaluation | None:
        """The evaluation of a recipe that was evaluated before, by this or another worker, or by an interrupted run."""
        return self.cache.get(self._key(recipe))

    def keep(self, recipe: Recipe, evaluation: Evaluation, images: Tensor) -> Evaluation:
        """Write the pictures, then the evaluation that names them; when this returns both are durable."""
        files = save_images(self.store, f"trials/{recipe.hash[:16]}", images)
        keep_sheet(self.store, recipe.hash, images)
        stored = evaluation.model_copy(update={"images": files})
        self.cache.put(self._key(recipe), stored)
        return stored

    def enqueue(self, starts: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Queue the labelled trials that a study begins with; those that an interrupted call has queued are not queued again."""
        with self.claims.gate.passing():
            queued = len(self.study.get_trials(deepcopy=False))
            for label, values in starts[queued:]:
                self.study.enqueue_trial(dict(values), user_attrs={_LABEL: label})

    def take(self, sampler: Callable[[int], BaseSampler]) -> optuna.Trial | Idle:
        """The next trial of this worker; see ``Claims.take``."""
        return self.patience(lambda: self.claims.take(self.total, sampler))

    def tell(self, trial: optuna.Trial, recipe: Recipe, evaluation: Evaluation) -> TrialRecord:
        """Write down that a trial has ended with an evaluation that is in the cache, and tell Optuna.

        Where another worker, which took this one for dead, was first, its result stands.
        """
        key = self._key(recipe)
        self.log.add(_entry(trial, key=key))
        self.patience(lambda: self._tell(trial, {_KEY: key}, evaluation))
        return self._ended(trial)

    def give_back(self, trial: optuna.Trial) -> None:
        """Leave a trial to whoever claims it next, this run or another."""
        with suppress(*OUTAGES, OSError):
            self.claims.give_back(trial)

    def fail(self, trial: optuna.Trial, error: Exception) -> TrialRecord:
        """Record a failed trial with its reason."""
        reason = reason_of(error)
        self.log.add(_entry(trial, error=reason))
        self.patience(lambda: self._tell(trial, {_ERROR: reason}, None))
        return self._ended(trial)

    @property
    def log(self) -> TrialLog:
        """What became of every trial."""
        return TrialLog(self.store)

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        finished = [t for t in self.patience(lambda: counted(self.study)) if t.state.is_finished()]
        for trial in finished:
            if trial.number not in self._known:
                self._known[trial.number] = self._record(trial)
        return [self._known[trial.number] for trial in finished]

    def _tell(self, trial: optuna.Trial, found: dict[str, str], evaluation: Evaluation | None) -> None:
        score = evaluation.score if evaluation else None
        try:
            for name, value in (found | (attributes(evaluation) if evaluation else {})).items():
                trial.set_user_attr(name, value)
            if evaluation:
                annotate(trial, trial.user_attrs.get(_LABEL, ""), evaluation)
            self.study.tell(trial, score, state=TrialState.FAIL if score is None else None, skip_if_finished=True)
        except UpdateFinishedTrialError:
            return

    def _ended(self, trial: optuna.Trial) -> TrialRecord:
        frozen = self.patience(lambda: self.study._storage.get_trial(trial._trial_id))
        return self._known.setdefault(trial.number, self._record(frozen))

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        label = trial.user_attrs.get(_LABEL, "")
        evaluation = self.cache.get(trial.user_attrs[_KEY]) if trial.state == TrialState.COMPLETE else None
        if evaluation is None:
            reason = trial.user_attrs.get(_ERROR, "the evaluation is missing from the cache")
            return TrialRecord(number=trial.number, label=label, state="FAIL", error=reason)
        return TrialRecord(number=trial.number, label=label, evaluation=evaluation)

    def _key(self, recipe: Recipe) -> str:
        return evaluation_key(recipe=recipe.data(), **self.context)


def begin(study: optuna.Study, log: TrialLog, *, budget: int, inputs: Mapping[str, str]) -> None:
    """Write down, once, what a study begins with."""
    if _INPUTS not in study.user_attrs:
        introduce(study)
        log.begin(StudyEntry(budget=budget, inputs=dict(inputs)))
        study.set_user_attr(_BUDGET, budget)
        study.set_user_attr(_INPUTS, dict(inputs))


def inputs_of(study: optuna.Study) -> Mapping[str, str]:
    """Digests of the files that the study began with."""
    return dict(study.user_attrs.get(_INPUTS, {}))


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


def save_images(store: Store, name: str, images: Tensor) -> tuple[str, ...]:
    """Write pictures, uint8 (n, 3, height, width), durably as ``images/NAME/INDEX.png``; returns these names."""
    files = tuple(f"images/{name}/{index:03d}.png" for index in range(len(images)))
    for file, picture in zip(files, images, strict=True):
        packed = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(packed, "PNG")
        store.write(file, packed.getvalue())
    return files


def reason_of(error: Exception) -> str:
    """One line that says why something failed; errors that this software did not raise on purpose are named by their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, OptimizerError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _entry(trial: optuna.Trial, *, key: str = "", error: str = "") -> TrialEntry:
    spaces = {name: distribution_to_json(space) for name, space in trial.distributions.items()}
    label = trial.user_attrs.get(_LABEL, "")
    return TrialEntry(number=trial.number, label=label, values=trial.params, spaces=spaces, key=key, error=error)
