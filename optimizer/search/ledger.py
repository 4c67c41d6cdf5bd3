"""The ledger: what is written to disk for every trial, and in which order, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from torch import Tensor

from optimizer.merging import Recipe
from studies import EvaluationCache, StudyDirectory, evaluation_key
from studies.records import Evaluation, TrialRecord

_KEY, _LABEL, _ERROR = "evaluation", "label", "error"


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
        reason = " ".join(str(error).split()) or type(error).__name__
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


def open_ledger(directory: StudyDirectory, context: Mapping[str, object]) -> Ledger:
    """Open or create the study's journal."""
    storage = JournalStorage(JournalFileBackend(str(directory.journal)))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)
    return Ledger(directory, study, context)


def enqueue(ledger: Ledger, starts: Sequence[tuple[str, Mapping[str, object]]]) -> None:
    """Queue labelled trials, once: a study that has trials already is left alone."""
    if not ledger.study.get_trials(deepcopy=False):
        for label, values in starts:
            ledger.study.enqueue_trial(dict(values), user_attrs={_LABEL: label})


def save_images(directory: StudyDirectory, name: str, images: Tensor) -> tuple[str, ...]:
    """Write pictures, uint8 (n, 3, height, width), as ``images/NAME/INDEX.png``; returns the names relative to the study."""
    folder = Path(directory.images) / name
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(images):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{index:03d}.png")
    return tuple(f"images/{name}/{index:03d}.png" for index in range(len(images)))
