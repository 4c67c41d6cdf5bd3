"""Forks: a new study that begins with the trials of another one, as far as they are still valid."""

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
        path: its directory.
    """

    path: Path

    @property
    def name(self) -> str:
        """What its forks, which lie beside it, know it by."""
        return self.path.name


def forked(config: Config) -> tuple[Config, Origin | None]:
    """The configuration of the new study, and the study to fork; the configuration as it is where nothing is forked.

    Raises:
        UsageError: the name is none, or the study is in a database.
        StudyError: there is nothing to fork, or something else in the place of the fork.
    """
    if not config.fork:
        return config, None
    origin, place = Origin(config.out), config.out.parent / config.fork
    if config.fork == ".." or Path(config.fork).name != config.fork or "\\" in config.fork or place == origin.path:
        remedy = "give a name of its own: the new study is made beside --out"
        raise UsageError(f"{config.fork!r} does not name a new study", where="--fork", remedy=remedy)
    if config.storage:
        raise UsageError("a study in a database cannot be forked", where="--fork", remedy="give another --study instead")
    if not StudyDirectory(origin.path).is_study:
        raise StudyError("there is no study here to fork", where=origin.path, remedy="name the directory of one with --out")
    beginning = TrialLog(FolderStore(place)).beginning
    if beginning.fork != origin.name if beginning else _holds_something(place):
        problem = f"is no fork of {origin.path}, and not empty"
        raise StudyError(problem, where=place, remedy="choose another name for --fork")
    return config.model_copy(update={"out": place, "fork": ""}), origin


def _holds_something(place: Path) -> bool:
    """Whether there is more than what a fork leaves that was broken off before it began."""
    if not place.is_dir():
        return place.exists()
    return any(p.is_file() and not p.name.startswith((TEMPORARY, "journal.log")) for p in place.rglob("*"))


def take_over(origin: Origin, ledger: Ledger, space: SearchSpace, starts: list[Start]) -> str:
    """Begin a study with the starts and all trials of another that are valid in it; returns what to tell.

    A trial is valid if its recipe can be proposed in the new space, and the old cache has its evaluation under the key that it gets in
    the new study, for everything that decides the result is part of the key. One that was broken off in the middle goes on.

    Args:
        origin: the other study.
        ledger: of the new one.
        space: of the new one.
        starts: the trials that the new study begins with.
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
    """Key in the new study and evaluation of the old study's trials, by number."""
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
    """The proposal in a space that means a recipe, or None."""
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
    """Write down a finished trial: the evaluation, then the log, then Optuna."""
    ledger.cache.put(key, evaluation)
    proposal = FixedTrial(dict(start.values), number=len(ledger.study.get_trials(deepcopy=False)))
    space.suggest(proposal)
    entry = entry_of(proposal, key=key).model_copy(update={"label": start.label, "imported": not is_baseline(start.label)})
    ledger.log.add(entry)
    ledger.study.add_trial(finished_trial(entry, evaluation, datetime.now(), ledger.store))


def _copied(evaluation: Evaluation, old: Store, ledger: Ledger) -> Evaluation:
    """An evaluation whose pictures, if they are all there and are kept, are in the new study's store, too, and its sheet."""
    sheet = sheet_name(evaluation.recipe_hash)
    if ledger.gallery.keep != "none" and (data := old.read(sheet)):
        ledger.store.write(sheet, data)
    pictures = [old.read(file) for file in evaluation.images]
    if ledger.gallery.keep == "none" or not all(pictures):
        return evaluation.model_copy(update={"images": ()})
    for file, data in zip(evaluation.images, pictures, strict=True):
        ledger.store.write(file, data or b"")
    return evaluation
