"""Repair: rebuilds the journal of a study in a directory from its trial log and its evaluations."""

from __future__ import annotations

import json
import shlex
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from optimizer.errors import StudyError
from optimizer.search.labels import ERROR, FIXED, KEY, LABEL
from optimizer.search.trials.frozen_trials import entry_of, finished_trial, study_attributes, waiting_trial
from optimizer.search.trials.run_lock import lock_run
from optimizer.search.workers.journal import Journal
from optimizer.search.workers.registry import FolderRegistry
from optimizer.search.workers.storage import LOCAL, create_study_in
from studies import BrokenEvaluationWarning, EvaluationCache, StudyDirectory
from studies.atomic import replacing
from studies.records import Evaluation
from studies.store import FolderStore
from studies.trial_log import TrialEntry, TrialLog


@dataclass(frozen=True)
class Repaired:
    """Result of a repair.

    Attributes:
        directory: study directory.
        trials: number of ended trials.
        damaged: number of damaged evaluations, which were moved aside.
        repeated: trials that the next run evaluates again or for the first time.
        kept: path of the old journal's copy; None if there was no journal or it is unchanged.
        rebuilt: whether the journal was rewritten.
        relogged: number of trials whose log entry was restored from the journal.
        pictureless: trials whose pictures are missing.
    """

    directory: Path
    trials: int
    damaged: int = 0
    repeated: int = 0
    kept: Path | None = None
    rebuilt: bool = False
    relogged: int = 0
    pictureless: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Returns the result as text, one or two lines."""
        parts = [f"{_counted(self.trials, 'trial')} found"]
        if self.damaged:
            parts[0] += f", {_counted(self.damaged, 'evaluation')} damaged (moved aside)"
        if self.relogged:
            parts.append(f"{_counted(self.relogged, 'entry', 'entries')} of the trial log written again")
        if self.rebuilt:
            if self.repeated:
                parts.append(f"{_counted(self.repeated, 'trial')} will be repeated")
            parts.append(f"journal rebuilt, the old one is kept as {self.kept.name}" if self.kept else "journal rebuilt")
        if self.rebuilt or self.relogged or self.damaged:
            parts.append(f"optimize resume {shlex.quote(str(self.directory))} goes on")
        else:
            parts.append("nothing to repair")
        pictures = f"pictures are missing of {', '.join(self.pictureless)}; the scores do not need them"
        return ["; ".join(parts), *([pictures] if self.pictureless else [])]


@dataclass(frozen=True)
class _OldJournal:
    """Readable content of the existing journal."""

    readable: bool = False
    trials: Sequence[FrozenTrial] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)


def repair(directory: StudyDirectory) -> Repaired:
    """Checks every evaluation, and rebuilds the journal if it differs from the trial log and the evaluations.

    An ended trial keeps its number, its values and its result. A trial that was running, or whose evaluation is lost, is queued for
    evaluation, with its label and values if these are known. Nothing is deleted.

    Args:
        directory: directory of a study on this machine.

    Raises:
        StudyError: a run or a worker is active in the directory.
        OSError: the directory cannot be read or written.
    """
    with lock_run(directory):
        _refuse_workers(directory)
        store, old = FolderStore(directory.path), _read(directory.journal)
        damaged = _damaged(EvaluationCache(store))
        relogged = _relog(TrialLog(store), old)
        entries = {entry.number: entry for entry in TrialLog(store).entries()}
        found = {n: e for n, entry in entries.items() if entry.key and (e := EvaluationCache(store).get(entry.key))}
        pictureless = [_name(entries[n]) for n, e in found.items() if not all(directory.inside(f).is_file() for f in e.images)]
        result = Repaired(directory.path, len(entries), damaged, relogged=relogged, pictureless=pictureless)
        if _agrees(old, entries, found):
            return result
        trials = [_trial(number, entries, found, old, store) for number in range(max(entries, default=-1) + 1)]
        kept = _replace(directory.journal, trials, study_attributes(TrialLog(store)) | dict(old.attributes))
    waiting = sum(t.state == TrialState.WAITING for t in trials)
    return Repaired(directory.path, len(entries), damaged, waiting, kept, True, relogged, pictureless)


def _refuse_workers(directory: StudyDirectory) -> None:
    registry = FolderRegistry(directory.path / "workers")
    if busy := [entry.pid for entry in registry.entries() if registry.alive(entry.name)]:
        remedy = "wait until it ends, or stop it"
        raise StudyError(f"a worker is at work on the study here (process {busy[0]})", where=directory.path, remedy=remedy)


def _read(journal: Path) -> _OldJournal:
    if not journal.is_file():
        return _OldJournal()
    try:
        _check_lines(journal)
        study = optuna.load_study(study_name=LOCAL, storage=JournalStorage(Journal(journal)))
    except OSError:
        raise
    except Exception:  # any error that Optuna raises on an invalid journal
        return _OldJournal()
    return _OldJournal(True, study.get_trials(deepcopy=False), study.user_attrs)


def _check_lines(journal: Path) -> None:
    """Raises ValueError unless every complete line is a journal entry; Optuna ignores an invalid last line until another one follows."""
    with journal.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and not isinstance(json.loads(line), dict):
                raise ValueError("a line is no entry")


def _damaged(cache: EvaluationCache) -> int:
    """Reads every evaluation, and returns how many were moved aside as damaged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", BrokenEvaluationWarning)
        for key in list(cache.keys()):
            cache.get(key)
    return sum(issubclass(w.category, BrokenEvaluationWarning) for w in caught)


def _relog(log: TrialLog, old: _OldJournal) -> int:
    """Writes log entries for finished trials that only the journal contains, and returns their number."""
    known = {entry.number for entry in log.entries()}
    ended = [t for t in old.trials if t.state.is_finished() and (KEY in t.user_attrs or ERROR in t.user_attrs)]
    lost = [t for t in ended if t.number not in known]
    for trial in lost:
        log.add(entry_of(trial))
    return len(lost)


def _agrees(old: _OldJournal, entries: Mapping[int, TrialEntry], found: Mapping[int, Evaluation]) -> bool:
    """Returns whether the journal agrees with the log on every logged trial; a trial still running in the journal counts as agreeing."""
    if not old.readable or max(entries, default=-1) >= len(old.trials):
        return False
    return all(_same(old.trials[n], entry, found.get(n)) for n, entry in entries.items())


def _same(trial: FrozenTrial, entry: TrialEntry, evaluation: Evaluation | None) -> bool:
    if trial.state == TrialState.RUNNING:
        return True
    ended = TrialState.WAITING if evaluation is None else TrialState.COMPLETE
    if trial.state != (ended if entry.key else TrialState.FAIL):
        return False
    if evaluation is None:
        return True
    return trial.params == entry.values and trial.value == evaluation.score and trial.user_attrs.get(KEY) == entry.key


def _trial(
    number: int, entries: Mapping[int, TrialEntry], found: Mapping[int, Evaluation], old: _OldJournal, store: FolderStore
) -> FrozenTrial:
    entry = entries.get(number)
    if entry is None:
        return _unfinished(old, number)
    if entry.key and number not in found:
        return waiting_trial(entry.label, entry.values)
    ended = datetime.fromtimestamp((store.path / TrialLog.name(number)).stat().st_mtime)
    return finished_trial(entry, found[number] if entry.key else None, ended, store)


def _unfinished(old: _OldJournal, number: int) -> FrozenTrial:
    """Returns an unfinished trial as a queued one, with its label and queued values; proposed values are dropped and proposed again."""
    if number >= len(old.trials):
        return waiting_trial("", {})
    trial = old.trials[number]
    return waiting_trial(trial.user_attrs.get(LABEL, ""), trial.system_attrs.get(FIXED, {}))


def _replace(journal: Path, trials: Sequence[FrozenTrial], attributes: Mapping[str, object]) -> Path | None:
    """Writes the new journal completely, then replaces the old one, of which a copy is kept; returns the copy's path."""
    with replacing(journal) as temporary:
        backend = Journal(temporary)
        try:
            _fill(JournalStorage(backend), trials, attributes)
        finally:
            temporary.with_name(f"{temporary.name}.lock").unlink(missing_ok=True)
        kept = _copied(journal)
    return kept


def _fill(storage: BaseStorage, trials: Sequence[FrozenTrial], attributes: Mapping[str, object]) -> None:
    study = create_study_in(storage)
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    study.add_trials(trials)


def _copied(journal: Path) -> Path | None:
    if not journal.exists():
        return None
    number = 1
    while (kept := journal.with_name(f"{journal.name}.{number}.broken")).exists():
        number += 1
    with replacing(kept) as temporary:
        shutil.copy2(journal, temporary)
    return kept


def _name(entry: TrialEntry) -> str:
    return entry.label or f"trial {entry.number}"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
