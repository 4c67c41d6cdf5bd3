"""Results of a search for a Pareto front: its members' recipes and contact sheets in ``front/``, from which each can be exported."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from optimizer.export import DrawnWith, setup_of
from optimizer.merging import ROUTERS, Recipe, save_router
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import DEMO, Config
from optimizer.search.config.inputs import MAX_SOURCES
from optimizer.search.images.contact_sheets import sheet_name
from optimizer.search.labels import is_alone
from optimizer.search.sources.source import RouterLookup, Source
from studies import FrontMember, StudyDirectory
from studies.atomic import write_bytes, write_text
from studies.front import axes_of, pareto_front
from studies.records import Evaluation, TrialRecord
from studies.store import Store

FOLDER = "front"


def front_of(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the members of the Pareto front, by descending score.

    They are the feasible merges with a score above 0 that no other of them beats on one axis without being worse on another. A recipe that
    was tried several times is one member; sources alone are none.
    """
    merges = [r for r in records if not is_alone(r.label) and r.evaluation and r.evaluation.feasible and r.evaluation.score > 0]
    found = {_evaluated(r).recipe_hash: r for r in reversed(merges) if all(map(math.isfinite, axes_of(_evaluated(r))))}
    members = pareto_front([axes_of(_evaluated(r)) for r in found.values()])
    chosen = [r for r, member in zip(found.values(), members, strict=True) if member]
    return sorted(chosen, key=lambda r: (-_evaluated(r).score, r.number))


def write_front(
    records: Sequence[TrialRecord],
    config: Config,
    sources: Sequence[Source],
    directory: StudyDirectory,
    store: Store,
    router: RouterLookup | None,
    drawn_with: DrawnWith,
) -> tuple[FrontMember, ...]:
    """Writes recipe and contact sheet of each member of the front, and removes those of trials that are no longer members.

    Args:
        records: trials of the study.
        config: configuration of the study.
        sources: sources of the study.
        directory: study directory; its folder ``front`` is written.
        store: store of the contact sheets.
        router: returns the router that a recipe names; None if the run has no routers.
        drawn_with: what the pictures were drawn with, besides the base model.

    Raises:
        OSError: the study directory cannot be written.
    """
    folder, members = directory.path / FOLDER, front_of(records)
    folder.mkdir(exist_ok=True)
    setup = _setup(config, sources, folder, drawn_with)
    written = tuple(_write_member(record, config, setup, folder, store, router) for record in members)
    kept = {Path(name).name for member in written for name in (member.recipe, member.sheet)}
    for path in [*folder.glob("trial-*.yaml"), *folder.glob("trial-*.webp")]:
        if path.name not in kept:
            path.unlink()
    return written


def _write_member(
    record: TrialRecord, config: Config, setup: Mapping[str, object], folder: Path, store: Store, router: RouterLookup | None
) -> FrontMember:
    recipe, name = Recipe.from_data(_evaluated(record).recipe), f"trial-{record.number}"
    beside = yaml.safe_dump({"setup": dict(setup)}, sort_keys=False, allow_unicode=True, width=120)
    write_text(folder / f"{name}.yaml", recipe.to_yaml() + beside)
    if recipe.calibration and router:
        save_router(router(recipe.calibration), folder / ROUTERS)
    sheet = store.read(sheet_name(recipe.hash))
    if sheet is not None:
        write_bytes(folder / f"{name}.webp", sheet)
    return FrontMember(
        number=record.number,
        recipe=f"{FOLDER}/{name}.yaml",
        sheet="" if sheet is None else f"{FOLDER}/{name}.webp",
        command=_command(folder / f"{name}.yaml", config),
    )


def _setup(config: Config, sources: Sequence[Source], folder: Path, drawn_with: DrawnWith) -> dict[str, object]:
    """Returns what a recipe file needs besides the recipe to give the same file again: where the sources are, and how they are named."""
    given = zip(config.inputs.sources, sources, strict=True)
    files = (spec if spec.startswith(DEMO) else os.path.relpath(source.file, folder) for spec, source in given)
    return setup_of(config.output.dialect, [source.origin for source in sources], drawn_with).data(tuple(files))


def _command(recipe: Path, config: Config) -> str:
    """Returns the command that merges the sources by a member's recipe."""
    inputs = config.inputs
    base = ["--base", inputs.base] if inputs.base and not is_fake(inputs.base) else []
    options = [*base, *(["--allow-unknown"] if inputs.allow_unknown else []), *(["--force"] if len(inputs.sources) > MAX_SOURCES else [])]
    return shlex.join(["optimize", "merge", str(recipe), *options])


def _evaluated(record: TrialRecord) -> Evaluation:
    assert record.evaluation is not None
    return record.evaluation
