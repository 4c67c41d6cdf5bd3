"""Records of finished trials, each made once from Optuna's trial and its stored evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from optimizer.search.labels import ERROR, KEY
from optimizer.search.trials.evaluations import StudyEvaluations
from optimizer.search.trials.frozen_trials import label_of
from studies.records import TrialRecord

_LOST = "its evaluation is missing or damaged — optimize repair has it evaluated again"


class KnownRecords:
    """The records of a study's finished trials that this process has seen; a record that is known stays as it is.

    Args:
        evaluations: evaluations and pictures of the study.
    """

    def __init__(self, evaluations: StudyEvaluations) -> None:
        self._evaluations = evaluations
        self._known: dict[int, TrialRecord] = {}

    @property
    def by_number(self) -> Mapping[int, TrialRecord]:
        """Known records by the number of the trial."""
        return self._known

    def keep(self, record: TrialRecord) -> TrialRecord:
        """Returns the known record of a trial; if there is none, this one becomes it."""
        return self._known.setdefault(record.number, record)

    def of(self, trial: FrozenTrial) -> TrialRecord:
        """Returns the record of a finished trial, made from its evaluation unless it is known."""
        known = self._known.get(trial.number)
        return self.keep(self._made(trial)) if known is None else known

    def update(self, finished: Sequence[FrozenTrial]) -> list[TrialRecord]:
        """Returns the records of all finished trials, in order; pictures that better trials have displaced are removed first."""
        records = {trial.number: self.of(trial) for trial in finished}
        keys = {trial.number: trial.user_attrs.get(KEY, "") for trial in finished}
        for record in self._evaluations.retention.displaced(records):
            self._known[record.number] = self._evaluations.remove_pictures(keys[record.number], record)
        return [self._known[number] for number in records]

    def _made(self, trial: FrozenTrial) -> TrialRecord:
        label = label_of(trial)
        evaluation = self._evaluations.get(trial.user_attrs[KEY]) if trial.state == TrialState.COMPLETE else None
        if evaluation is None:
            return TrialRecord(number=trial.number, label=label, state="FAIL", error=trial.user_attrs.get(ERROR, _LOST))
        return TrialRecord(number=trial.number, label=label, evaluation=evaluation)
