"""The trial log: results of all trials, stored beside the evaluations, from which the optimizer's own storage can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from studies.records import Text
from studies.store import Store

FOLDER = "evaluations/trials"


class TrialEntry(BaseModel):
    """One ended trial.

    Attributes:
        number: trial number.
        label: name of a baseline, empty for a proposed trial.
        values: parameter name → value.
        spaces: parameter name → distribution, as Optuna's JSON.
        key: cache key of the evaluation; empty for a failed trial.
        error: reason of the failure; empty for a complete trial.
        imported: whether a trial that is no baseline was copied, finished, from the study that this one was forked from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    label: Text = ""
    values: dict[str, float | int | str | bool | None] = {}
    spaces: dict[str, str] = {}
    key: str = ""
    error: Text = ""
    imported: bool = False


class StudyEntry(BaseModel):
    """Initial settings and inputs of the study.

    Attributes:
        budget: number of recipes besides the baselines; the search space depends on it.
        inputs: digests and versions of the inputs.
        fork: name of the sibling directory with the study that this one was forked from; empty if it is no fork.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int
    inputs: dict[str, str]
    fork: Text = ""


@dataclass(frozen=True)
class TrialLog:
    """Log entries in a store: ``evaluations/trials/study.json`` and one ``evaluations/trials/000012.json`` per trial.

    Attributes:
        store: store of the entries.
    """

    store: Store

    def begin(self, entry: StudyEntry) -> None:
        """Writes the study entry; raises OSError."""
        self.store.write(f"{FOLDER}/study.json", entry.model_dump_json(indent=1).encode())

    def add(self, entry: TrialEntry) -> None:
        """Writes the entry of an ended trial, before it is reported to the optimizer; raises OSError."""
        self.store.write(self.name(entry.number), entry.model_dump_json(indent=1).encode())

    @staticmethod
    def name(number: int) -> str:
        """Returns the store name of a trial's entry."""
        return f"{FOLDER}/{number:06d}.json"

    @property
    def beginning(self) -> StudyEntry | None:
        """Study entry, or None if it is missing or not valid."""
        data = self.store.read(f"{FOLDER}/study.json")
        try:
            return None if data is None else StudyEntry.model_validate_json(data)
        except ValidationError:
            return None

    def entries(self) -> Iterator[TrialEntry]:
        """Yields all valid entries, by number; incomplete ones are left out, like trials that never ended."""
        for name in self.store.names(FOLDER):
            if name.endswith("study.json"):
                continue
            try:
                yield TrialEntry.model_validate_json(self.store.read(name) or b"")
            except ValidationError:
                continue
