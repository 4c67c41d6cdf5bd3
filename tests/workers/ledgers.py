"""What has to hold of a study when it has ended, whatever happened meanwhile."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import optuna
from optuna.trial import TrialState

from optimizer.errors import OptimizerError
from optimizer.merging import Recipe
from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from optimizer.search.proposals.sampler import quiet
from optimizer.search.workers.claims import counted
from optimizer.search.workers.storage import SharedStudy, open_database_study, open_local_study
from studies import EvaluationCache, StudyDirectory, load_summary
from studies.store import FolderStore
from tests.search.runs import trials
from tests.workers.runs import BASELINES, Job


@dataclass
class Findings:
    """What became of the trials of one study or of several.

    Attributes:
        studies: how many.
        trials: finished ones on record.
        lost: trials of the budget that are not there, or whose evaluation is not in the store.
        twice: trials on record twice, or beyond the budget.
        zombies: trials that still run or wait.
        wrong: evaluations that are not what a fresh evaluation of the recipe gives, or that were overwritten with something else.
        differing: reports that are not those of an undisturbed run.
    """

    studies: int = 0
    trials: int = 0
    lost: int = 0
    twice: int = 0
    zombies: int = 0
    wrong: int = 0
    differing: int = 0

    @property
    def broken(self) -> int:
        """Promises that were not kept."""
        return self.lost + self.twice + self.zombies + self.wrong + self.differing

    def __add__(self, other: Findings) -> Findings:
        return Findings(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def opened(job: Job) -> SharedStudy:
    """The Optuna study of a job."""
    quiet()
    return open_database_study(job.storage, job.name, create=False) if job.storage else open_local_study(StudyDirectory(job.out))


def examined(job: Job, watch: Watch, *, differing: bool = False) -> Findings:
    """Check everything about a study that has ended."""
    shared = opened(job)
    everything, ours = (found := shared.study.get_trials(deepcopy=False)), counted(found)
    shared.close()
    ended = [t for t in ours if t.state.is_finished()]
    with (job.out / "trials.csv").open(newline="") as file:
        listed = Counter(int(row["number"]) for row in csv.DictReader(file))
    fresh = Fresh(job)
    complete = [t for t in ended if t.state == TrialState.COMPLETE]
    total = job.budget + BASELINES
    known = {t.number for t in ended}
    return Findings(
        studies=1,
        trials=len(ended),
        lost=max(0, total - len(ended)) + len(known - set(listed)) + sum(not fresh.kept(t) for t in complete),
        twice=max(0, len(ended) - total) + sum(n - 1 for n in listed.values()) + len(set(listed) - known),
        zombies=sum(not t.state.is_finished() for t in everything),
        wrong=sum(not fresh.right(t) for t in ended) + len(watch.changed),
        differing=int(differing),
    )


class Fresh:
    """Evaluates trials of a job anew, which the fake base does the same every time."""

    def __init__(self, job: Job) -> None:
        options = {"own": 1, "joint": 1, "confirm": 1, "finalists": 1, "out": job.out, "seed": job.seed, "budget": job.budget}
        session = prepare(Config.of(sources=job.sources, base="fake:size=4&fail=0.1", **options), Silent())
        self._evaluator = session.evaluator(search_prompts(session.config, session.sources), Silent())
        self._space = session.space(job.budget)
        self._cache = EvaluationCache(FolderStore(Path(job.artifacts) if job.storage else job.out))

    def kept(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the trial's evaluation is in the store."""
        return self._cache.get(trial.user_attrs["evaluation"]) is not None

    def right(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the trial's record is that of its parameters."""
        recipe = self._space.recipe(trial.params)
        try:
            expected = self._evaluator.evaluate(recipe).evaluation
        except OptimizerError as error:
            return bool(trial.state == TrialState.FAIL and trial.user_attrs["error"] == str(error))
        if trial.state != TrialState.COMPLETE:
            return False
        found = self._cache.get(trial.user_attrs["evaluation"])
        assert found is not None
        same = Recipe.from_data(found.recipe).hash == recipe.hash
        return bool(same and found.score == expected.score == trial.value and found.sources == expected.sources)


@dataclass
class Watch:
    """Looks at the evaluations in a folder all the time, and remembers those that were replaced by something else; a context.

    Attributes:
        folder: folder of the evaluations.
        timings: whether these, too, may not change.
        changed: names of files that changed after they were first seen.
    """

    folder: Path
    timings: bool = True
    changed: set[str] = field(default_factory=set)
    _seen: dict[str, Any] = field(default_factory=dict)
    _end: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._end.is_set():
            self._look()
            time.sleep(0.2)

    def _look(self) -> None:
        for file in self.folder.glob("*.json"):
            try:
                found = json.loads(file.read_bytes())["evaluation"] | {"images": ()}  # pictures may be taken down
            except (FileNotFoundError, ValueError):  # moved aside, because it is damaged
                continue
            if not self.timings:
                found |= {"seconds": 0, "metrics": {k: v for k, v in found["metrics"].items() if not k.startswith("seconds")}}
            if self._seen.setdefault(file.name, found) != found:
                self.changed.add(file.name)


def story(out: Path) -> Any:
    """All of a report that two runs with the same trials have in common, with the exported file's bytes."""
    summary = load_summary(StudyDirectory(out))
    best = StudyDirectory(out).inside(summary.file)
    assert summary.verdict is not None
    rows = {label: row.model_dump() for label, row in summary.verdict.rows.items()}
    errors = [trial.error for trial in summary.trials]
    return trials(summary.trials), errors, summary.verdict.sentence, rows, summary.file, best.read_bytes(), summary.warnings
