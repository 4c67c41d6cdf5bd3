"""Forks: a new study that starts with the trials of another one that are still valid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial

from optimizer.errors import RecipeError, StudyError, UsageError
from optimizer.merging import ROUTERS, Recipe
from optimizer.search.config import Config
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.fingerprint import changes
from optimizer.search.labels import is_baseline
from optimizer.search.proposals.initial_trials import Start
from optimizer.search.proposals.space import SearchSpace, block_key, weight_key
from optimizer.search.trials.frozen_trials import entry_of
from optimizer.search.trials.ledger import Ledger
from studies import EvaluationCache, StudyDirectory
from studies.atomic import TEMPORARY
from studies.records import Evaluation
from studies.store import FolderStore, Store
from studies.trial_log import TrialLog


@dataclass(frozen=True)
class ForkOrigin:
    """The study that is forked.

    Attributes:
        path: directory of the study.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name by which forks, which lie beside it, refer to it."""
        return self.path.name


def resolve_fork(config: Config) -> tuple[Config, ForkOrigin | None]:
    """Returns the configuration of the new study and the study to fork; the configuration is unchanged if nothing is forked.

    Raises:
        UsageError: the name is invalid, or the study is in a database.
        StudyError: there is no study to fork, or the fork's directory already contains other files.
    """
    name, out = config.search.fork, config.places.out
    if not name:
        return config, None
    origin, place = ForkOrigin(out), out.parent / name
    if name == ".." or Path(name).name != name or "\\" in name or place == origin.path:
        remedy = "give a name of its own: the new study is made beside --out"
        raise UsageError(f"{name!r} does not name a new study", where="--fork", remedy=remedy)
    if config.places.storage:
        raise UsageError("a study in a database cannot be forked", where="--fork", remedy="give another --study instead")
    if not StudyDirectory(origin.path).is_study:
        raise StudyError("there is no study here to fork", where=origin.path, remedy="name the directory of one with --out")
    beginning = TrialLog(FolderStore(place)).beginning
    if beginning.fork != origin.name if beginning else _contains_files(place):
        problem = f"is no fork of {origin.path}, and not empty"
        raise StudyError(problem, where=place, remedy="choose another name for --fork")
    return config.replaced(out=place, fork=""), origin


def _unsolved(recipe: Recipe) -> Recipe:
    """Returns the recipe as it was proposed, before its router was solved."""
    return recipe.replaced(calibration=None) if recipe.method_record.solved else recipe


def _contains_files(place: Path) -> bool:
    """Returns whether a directory contains more than the files of a fork that was interrupted before it started."""
    if not place.is_dir():
        return place.exists()
    return any(p.is_file() and not p.name.startswith((TEMPORARY, "journal.log")) for p in place.rglob("*"))


def take_over(origin: ForkOrigin, ledger: Ledger, space: SearchSpace, starts: list[Start], aims: Aims) -> str:
    """Starts a study with the initial trials and all valid trials of another study; returns a message for the user.

    A trial is valid if its recipe can be proposed in the new space, and the old cache has its evaluation under its key in the new study.
    A trial that was pruned is not: whether a merge lags behind the best one depends on the study.
    The key includes all inputs that determine the result, but the old study may have had other aims: no measurement depends on them, so
    scores and constraints are computed anew. An interrupted take-over is continued.

    Args:
        origin: the study that is forked.
        ledger: ledger of the new study.
        space: search space of the new study.
        starts: initial trials of the new study.
        aims: aims of the new study.
    """
    store = FolderStore(origin.path)
    for name in store.names(ROUTERS):
        ledger.store.create(name, store.read(name) or b"")
    found = dict(_valid_evaluations(origin, ledger, space.names, aims))
    begun = ledger.evaluated()
    for number, start in enumerate(starts):
        key = ledger.key(space.recipe(start.values))
        if number < len(begun):
            continue
        if key in found:
            _import(ledger, space, number, start, key, found[key], store)
        else:
            ledger.enqueue([(s.label, s.values) for s in starts[: number + 1]])
    known, number = {ledger.key(space.recipe(start.values)) for start in starts} | {*begun}, max(len(starts), len(begun))
    for key, evaluation in found.items():
        values = _values(space, Recipe.from_data(evaluation.recipe))
        if key not in known and values is not None:
            _import(ledger, space, number, Start("", values), key, evaluation, store)
            number += 1
    count = len(ledger.records())
    if count:
        return f"{count} trials of {origin.name} are still valid and taken over"
    beginning = TrialLog(store).beginning
    changed = changes(beginning.inputs, ledger.inputs) if beginning else []
    why = f" ({'; '.join(changed)})" if changed else ""
    return f"no trial of {origin.name} is valid any more{why}: all are evaluated anew"


def _valid_evaluations(origin: ForkOrigin, ledger: Ledger, names: Sequence[str], aims: Aims) -> Iterator[tuple[str, Evaluation]]:
    """Yields the key and the evaluation in the new study of the old study's valid trials, by number.

    Args:
        origin: the study that is forked.
        ledger: ledger of the new study.
        names: names of the sources in the new study.
        aims: aims of the new study, by these names.
    """
    store, protocol = FolderStore(origin.path), Config.from_yaml(StudyDirectory(origin.path).settings).protocol
    cache = EvaluationCache(store)
    for entry in TrialLog(store).entries():
        old = cache.get(entry.key) if entry.key else None
        try:
            recipe = Recipe.from_data(old.recipe) if old else None
        except RecipeError:
            continue
        if old is None or recipe is None:
            continue
        before = Aims.of(protocol, tuple(old.sources))
        evaluation = cache.get(ledger.key(recipe, before))
        if evaluation and (before == aims or tuple(old.sources) == tuple(names)):
            yield ledger.key(recipe), aims.rejudged(evaluation, before)


def _values(space: SearchSpace, recipe: Recipe) -> dict[str, Any] | None:
    """Returns the parameter values that produce a recipe in a space, or None if there are none."""
    if len(recipe.weights) != len(space.names):
        return None
    values: dict[str, Any] = {"method": recipe.method}
    for index, (name, groups) in enumerate(zip(space.names, space.groups, strict=True)):
        blocks = recipe.blocks[index] if recipe.blocks else {}
        values[weight_key(name)] = recipe.weights[index]
        values |= {block_key(name, group): blocks.get(group, 1.0) for group in groups}
    values |= {p.name: getattr(recipe, p.name) if recipe.method_record.reads(p.name) else p.start for p in space.parameters}
    try:
        same = space.covers(values) and space.suggest(FixedTrial(values), values) == _unsolved(recipe)
    except (ValueError, RecipeError):
        return None
    return values if same else None


def _import(ledger: Ledger, space: SearchSpace, number: int, start: Start, key: str, evaluation: Evaluation, store: Store) -> None:
    """Appends a finished trial of the old study, with this number, as one with the values of ``start``."""
    proposal = FixedTrial(dict(start.values), number=number)
    space.suggest(proposal, start.values)
    entry = entry_of(proposal, key=key).model_copy(update={"label": start.label, "imported": not is_baseline(start.label)})
    ledger.import_trial(entry, evaluation, store)
