"""The ledger: what is written to disk for every trial, and in which order, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from torch import Tensor

from optimizer.errors import OptimizerError, StudyError
from optimizer.merging import Recipe
from studies import EvaluationCache, StudyDirectory, evaluation_key
from studies.atomic import replacing
from studies.records import Evaluation, TrialRecord

_KEY, _LABEL, _ERROR = "evaluation", "label", "error"
_BUDGET, _INPUTS = "budget", "inputs"


@dataclass(frozen=True)
class Ledger:
    """One study on disk: Optuna's journal, the evaluation cache, the pictures.

    Attributes:
        directory: where everything lies.
        study: the Optuna study.
        context: everything besides the recipe that an evaluation depends on.
    """

    directory: StudyDirectory
    study: optuna.Study
    context: Mapping[str, object]

    @property
    def cache(self) -> EvaluationCache:
        """The evaluations, the source of truth."""
        return EvaluationCache(self.directory.evaluations)

    @property
    def planned_budget(self) -> int:
        """The budget that the study began with. Search space and first trials follow from it, and stay when the budget grows."""
        return int(self.study.user_attrs[_BUDGET])

    @property
    def inputs(self) -> Mapping[str, str]:
        """Digests of the files that the study began with."""
        return dict(self.study.user_attrs[_INPUTS])

    def known(self, recipe: Recipe) -> Evaluation | None:
        """The evaluation of a recipe that was evaluated before, by this or an interrupted run."""
        return self.cache.get(self._key(recipe))

    def keep(self, recipe: Recipe, evaluation: Evaluation, images: Tensor) -> Evaluation:
        """Write the pictures, then the evaluation that names them; when this returns both are durable."""
        files = save_images(self.directory, f"trials/{recipe.hash[:16]}", images)
        stored = evaluation.model_copy(update={"images": files})
        self.cache.put(self._key(recipe), stored)
        return stored

    def tell(self, trial: optuna.Trial, recipe: Recipe, evaluation: Evaluation) -> TrialRecord:
        """Tell Optuna of an evaluation that is in the cache."""
        trial.set_user_attr(_KEY, self._key(recipe))
        self.study.tell(trial, evaluation.score)
        return TrialRecord(number=trial.number, label=trial.user_attrs.get(_LABEL, ""), evaluation=evaluation)

    def fail(self, trial: optuna.Trial, error: Exception) -> TrialRecord:
        """Record a failed trial with its reason."""
        reason = reason_of(error)
        trial.set_user_attr(_ERROR, reason)
        self.study.tell(trial, state=TrialState.FAIL)
        return TrialRecord(number=trial.number, label=trial.user_attrs.get(_LABEL, ""), state="FAIL", error=reason)

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        return [self._record(t) for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]

    def pending(self) -> FrozenTrial | None:
        """The trial that an interrupted run left behind, if there is one."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return running[0] if running else None

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        label = trial.user_attrs.get(_LABEL, "")
        evaluation = self.cache.get(trial.user_attrs[_KEY]) if trial.state == TrialState.COMPLETE else None
        if evaluation is None:
            reason = trial.user_attrs.get(_ERROR, "the evaluation is missing from the cache")
            return TrialRecord(number=trial.number, label=label, state="FAIL", error=reason)
        return TrialRecord(number=trial.number, label=label, evaluation=evaluation)

    def _key(self, recipe: Recipe) -> str:
        return evaluation_key(recipe=recipe.data(), **self.context)


def open_ledger(directory: StudyDirectory, context: Mapping[str, object], *, budget: int, inputs: Mapping[str, str]) -> Ledger:
    """Open the study's journal, or begin it with this budget and these inputs.

    Call it only inside ``alone_in``: it repairs what a process that was killed while writing has left.
    """
    directory.journal.with_name(f"{directory.journal.name}.lock").unlink(missing_ok=True)
    _cut_torn_line(directory.journal)
    storage = JournalStorage(JournalFileBackend(str(directory.journal)))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)
    if _INPUTS not in study.user_attrs:
        study.set_user_attr(_BUDGET, budget)
        study.set_user_attr(_INPUTS, dict(inputs))
    return Ledger(directory, study, context)


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


def enqueue(ledger: Ledger, starts: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Queue the labelled trials that a study begins with; those that an interrupted call has queued are not queued again."""
    queued = len(ledger.study.get_trials(deepcopy=False))
    for label, values in starts[queued:]:
        ledger.study.enqueue_trial(dict(values), user_attrs={_LABEL: label})


def save_images(directory: StudyDirectory, name: str, images: Tensor) -> tuple[str, ...]:
    """Write pictures, uint8 (n, 3, height, width), durably as ``images/NAME/INDEX.png``; returns the names relative to the study."""
    folder = Path(directory.images) / name
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(images):
        with replacing(folder / f"{index:03d}.png") as temporary:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary)
    return tuple(f"images/{name}/{index:03d}.png" for index in range(len(images)))


def reason_of(error: Exception) -> str:
    """One line that says why something failed; errors that this software did not raise on purpose are named by their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, OptimizerError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _cut_torn_line(journal: Path) -> None:
    """Remove a last line without an end, as a power cut leaves it: Optuna would append to it and could read neither."""
    if journal.is_file():
        data = journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with journal.open("r+b") as file:
                file.truncate(whole)
