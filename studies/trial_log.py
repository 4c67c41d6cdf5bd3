"""The trial log: what became of every trial, beside the evaluations, so that the optimiser's own storage can be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from studies.records import Text
from studies.store import Store

FOLDER = "evaluations/trials"


class TrialEntry(BaseModel):
    """One trial that has ended.

    Attributes:
        number: the trial's number.
        label: a baseline's name, empty for a proposed trial.
        values: what was proposed, by parameter.
        spaces: each parameter's distribution, as Optuna's JSON.
        key: of the evaluation; empty for a failed trial.
        error: why it failed.
        imported: it came, finished, from the study that this one was forked from, and is none of the baselines.
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
    """What the study began with.

    Attributes:
        budget: recipes beyond the baselines; the search space follows from it.
        inputs: digests and versions of what it rests on.
        fork: name of the directory beside it that holds the study from which this one was forked; empty for all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int
    inputs: dict[str, str]
    fork: Text = ""


@dataclass(frozen=True)
class TrialLog:
    """Entries in a store: ``evaluations/trials/study.json`` and one ``evaluations/trials/000012.json`` a trial.

    Attributes:
        store: where they lie.
    """

    store: Store

    def begin(self, entry: StudyEntry) -> None:
        """Write down what the study began with; raises OSError."""
        self.store.write(f"{FOLDER}/study.json", entry.model_dump_json(indent=1).encode())

    def add(self, entry: TrialEntry) -> None:
        """Write down a trial's end, before the optimiser is told; raises OSError."""
        self.store.write(self.name(entry.number), entry.model_dump_json(indent=1).encode())

    @staticmethod
    def name(number: int) -> str:
        """Where the entry of a trial lies in the store."""
        return f"{FOLDER}/{number:06d}.json"

    @property
    def beginning(self) -> StudyEntry | None:
        """What the study began with, or None where that is not known."""
        data = self.store.read(f"{FOLDER}/study.json")
        try:
            return None if data is None else StudyEntry.model_validate_json(data)
        except ValidationError:
            return None

    def entries(self) -> Iterator[TrialEntry]:
        """All whole entries, by number; what is torn is left out, as a trial that never ended."""
        for name in self.store.names(FOLDER):
            if name.endswith("study.json"):
                continue
            try:
                yield TrialEntry.model_validate_json(self.store.read(name) or b"")
            except ValidationError:
                continue
