"""Forks: a new study that starts with the trials of another one that are still valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial

from optimizer.errors import RecipeError, StudyError, UsageError
from optimizer.merging import METHODS, Recipe
from optimizer.search.config import Config
from optimizer.search.evaluation.fingerprint import changes
from optimizer.search.images.contact_sheets import sheet_name
from optimizer.search.labels import KEY, is_baseline
from optimizer.search.proposals.initial_trials import Start
from optimizer.search.proposals.space import SearchSpace
from optimizer.search.trials.frozen_trials import finished_trial, waiting_trial
from optimizer.search.trials.ledger import Ledger, entry_of, inputs_of
from studies import EvaluationCache, StudyDirectory
from studies.atomic import TEMPORARY
from studies.records import Evaluation
from studies.store import FolderStore, Store
from studies.trial_log import TrialLog


@dataclass(frozen=True)
class Origin:
    """The study that is forked.

    Attributes:
        path: directory of the study.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name by which forks, which lie beside it, refer to it."""
        return self.path.name


def forked(config: Config) -> tuple[Config, Origin | None]:
    """Returns the configuration of the new study and the study to fork; the configuration is unchanged if nothing is forked.

    Raises:
        UsageError: the name is invalid, or the study is in a database.
        StudyError: there is no study to fork, or the fork's directory already contains other files.
    """
    name, out = config.search.fork, config.places.out
    if not name:
        return config, None
    origin, place = Origin(out), out.parent / name
    if name == ".." or Path(name).name != name or "\\" in name or place == origin.path:
        remedy = "give a name of its own: the new study is made beside --out"
        raise UsageError(f"{name!r} does not name a new study", where="--fork", remedy=remedy)
    if config.places.storage:
        raise UsageError("a study in a database cannot be forked", where="--fork", remedy="give another --study instead")
    if not StudyDirectory(origin.path).is_study:
        raise StudyError("there is no study here to fork", where=origin.path, remedy="name the directory of one with --out")
    beginning = TrialLog(FolderStore(place)).beginning
    if beginning.fork != origin.name if beginning else _holds_something(place):
        problem = f"is no fork of {origin.path}, and not empty"
        raise StudyError(problem, where=place, remedy="choose another name for --fork")
    return config.replaced(out=place, fork=""), origin


def _holds_something(place: Path) -> bool:
    """Returns whether a directory contains more than the files of a fork that was interrupted before it started."""
    if not place.is_dir():
        return place.exists()
    return any(p.is_file() and not p.name.startswith((TEMPORARY, "journal.log")) for p in place.rglob("*"))


def take_over(origin: Origin, ledger: Ledger, space: SearchSpace, starts: list[Start]) -> str:
    """Starts a study with the initial trials and all valid trials of another study; returns a message for the user.

    A trial is valid if its recipe can be proposed in the new space, and the old cache has its evaluation under its key in the new study.
    The key includes all inputs that determine the result. An interrupted take-over is continued.

    Args:
        origin: the study that is forked.
        ledger: ledger of the new study.
        space: search space of the new study.
        starts: initial trials of the new study.
    """
    store = FolderStore(origin.path)
    found = dict(_still_valid(store, ledger))
    begun = ledger.study.get_trials(deepcopy=False)
    for start in starts[len(begun) :]:
        key = ledger.key(space.recipe(start.values))
        if key in found:
            _tell(ledger, space, key, _copied(found[key], store, ledger), start)
        else:
            ledger.study.add_trial(waiting_trial(start.label, start.values))
    told = {ledger.key(space.recipe(start.values)) for start in starts} | {t.user_attrs.get(KEY) for t in begun}
    for key, evaluation in found.items():
        values = _values(space, Recipe.from_data(evaluation.recipe))
        if key not in told and values is not None:
            _tell(ledger, space, key, _copied(evaluation, store, ledger), Start("", values))
    count = len(ledger.records())
    if count:
        return f"{count} trials of {origin.name} are still valid and taken over"
    beginning = TrialLog(store).beginning
    changed = changes(beginning.inputs, inputs_of(ledger.study)) if beginning else []
    why = f" ({'; '.join(changed)})" if changed else ""
    return f"no trial of {origin.name} is valid any more{why}: all are evaluated anew"


def _still_valid(store: Store, ledger: Ledger) -> Iterator[tuple[str, Evaluation]]:
    """Yields the key in the new study and the evaluation of the old study's valid trials, by number."""
    cache = EvaluationCache(store)
    for entry in TrialLog(store).entries():
        old = cache.get(entry.key) if entry.key else None
        try:
            recipe = Recipe.from_data(old.recipe) if old else None
        except RecipeError:
            continue
        if recipe and (evaluation := cache.get(ledger.key(recipe))):
            yield ledger.key(recipe), evaluation


def _values(space: SearchSpace, recipe: Recipe) -> dict[str, Any] | None:
    """Returns the parameter values that produce a recipe in a space, or None if there are none."""
    if len(recipe.weights) != len(space.names):
        return None
    values: dict[str, Any] = {"method": recipe.method}
    for index, (name, groups) in enumerate(zip(space.names, space.groups, strict=True)):
        blocks = recipe.blocks[index] if recipe.blocks else {}
        values[f"weight:{name}"] = recipe.weights[index]
        values |= {f"block:{name}:{group}": blocks.get(group, 1.0) for group in groups}
    read = {p.name for p in METHODS[recipe.method].parameters}
    values |= {p.name: getattr(recipe, p.name) if p.name in read else p.default for p in space.parameters}
    try:
        same = space.suggest(FixedTrial(values)) == recipe
    except (ValueError, RecipeError):
        return None
    return values if same else None


def _tell(ledger: Ledger, space: SearchSpace, key: str, evaluation: Evaluation, start: Start) -> None:
    """Records a finished trial: the evaluation first, then the log entry, then the Optuna trial."""
    ledger.cache.put(key, evaluation)
    proposal = FixedTrial(dict(start.values), number=len(ledger.study.get_trials(deepcopy=False)))
    space.suggest(proposal)
    entry = entry_of(proposal, key=key).model_copy(update={"label": start.label, "imported": not is_baseline(start.label)})
    ledger.log.add(entry)
    ledger.study.add_trial(finished_trial(entry, evaluation, datetime.now(), ledger.store))


def _copied(evaluation: Evaluation, old: Store, ledger: Ledger) -> Evaluation:
    """Copies the contact sheet and, if complete and kept, the pictures to the new study's store; returns the evaluation that lists them."""
    sheet = sheet_name(evaluation.recipe_hash)
    if ledger.gallery.keep != "none" and (data := old.read(sheet)):
        ledger.store.write(sheet, data)
    pictures = [old.read(file) for file in evaluation.images]
    if ledger.gallery.keep == "none" or not all(pictures):
        return evaluation.model_copy(update={"images": ()})
    for file, data in zip(evaluation.images, pictures, strict=True):
        ledger.store.write(file, data or b"")
    return evaluation
