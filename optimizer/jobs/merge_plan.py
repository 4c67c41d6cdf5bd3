"""The plan of one merge: its sources, its recipe, and its output path."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from optimizer.adapters import Adapter, Dialect, clean_name
from optimizer.errors import RecipeError, UsageError
from optimizer.export import BASE_ALONE, DrawnWith, file_name, next_free
from optimizer.jobs.merge_options import SOLVING, MergeOptions
from optimizer.jobs.replay import SavedRecipe, read_saved_recipe, sources_of
from optimizer.merging import (
    METHODS,
    PARAMETERS,
    ROUTERS,
    Recipe,
    Router,
    common_base,
    default_rank,
    load_router,
    read_blocks,
    read_blocks_file,
    router_path,
    shared_modules,
    solved_from,
    sum_of_ranks,
)
from optimizer.search.config import Config, check_count
from optimizer.search.config.values import option_name
from optimizer.search.evaluation.given_prompts import with_given_prompts
from optimizer.search.evaluation.prompt_file import read_prompt_file
from optimizer.search.evaluation.prompt_sets import warnings_about_prompts
from optimizer.search.sources.accelerators import Accelerator, load_accelerators
from optimizer.search.sources.loras import LoraSource, load_loras, remarks

BESIDE = (".yaml", ".md")
"""Suffixes of the recipe file and the model card that are written beside a merged file."""

_SUFFIX = ".safetensors"
_STEP = 0.05


@dataclass(frozen=True)
class MergePlan:
    """A planned merge: sources, recipe, output file and warnings for the user.

    Attributes:
        sources: sources, in the recipe's order.
        specs: source names as given by the user or the recipe file.
        recipe: recipe, bound to the sources.
        dialect: key format of the output file.
        path: path of the output file.
        warnings: warnings for the user, one line each.
        routers: router that the recipe names as its calibration; empty if it names none.
        accelerators: LoRAs that are active while the merge is solved.
        drawn_with: what pictures were drawn with that the merge was solved on, or judged by, besides the base model.
    """

    sources: tuple[LoraSource, ...]
    specs: tuple[str, ...]
    recipe: Recipe
    dialect: Dialect
    path: Path
    warnings: tuple[str, ...]
    routers: tuple[Router, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    drawn_with: DrawnWith = BASE_ALONE

    @property
    def unsolved(self) -> bool:
        """Whether the router of the recipe has yet to be solved on the live base model."""
        return self.recipe.method_record.solved and self.recipe.calibration is None

    @property
    def adapters(self) -> list[Adapter]:
        """The sources' adapters."""
        return [source.adapter for source in self.sources]


def plan(file: Path | None, options: MergeOptions, routers: Iterable[Router] = ()) -> MergePlan:
    """Reads the sources and resolves all options that were not given.

    The router of a recipe that names a calibration is one of those given, or the file ``routers/HASH.safetensors`` beside the recipe.

    Args:
        file: a recipe, or a merged LoRA that contains one; the options override its values.
        options: command line options.
        routers: routers that the recipe may name.

    Raises:
        UsageError: an option is invalid, or a source cannot be used.
        RecipeError: the recipe is invalid, or does not fit the sources, or its router is missing or damaged.
    """
    saved = read_saved_recipe(file) if file else None
    specs = sources_of(saved, options.sources) if saved else options.sources
    check_count(len(specs), force=options.force)
    sources = read_sources(specs, saved, options)
    recipe = _recipe([s.adapter for s in sources], saved, options)
    _check_solved(recipe, saved, options)
    sources = _with_prompts(sources, options)
    before = saved.setup.drawn_with if saved else BASE_ALONE
    return MergePlan(
        sources=tuple(sources),
        specs=specs,
        recipe=recipe,
        dialect=options.dialect or (saved.setup.dialect if saved else "kohya"),
        path=_apart_from(sources, output_path(options, [s.name for s in sources], recipe)),
        warnings=(
            *warnings_about(sources, recipe, suggested=not options.weights and not (saved and "weights" in saved.fields)),
            *warnings_about_prompts(options.prompts, sources),
            *([_solved_otherwise(before)] if before and options.resolve and not options.with_ and not options.eval_base else []),
        ),
        routers=_router(recipe.calibration, saved.folder if saved else Path(), routers) if recipe.calibration else (),
        accelerators=_accelerators(sources, options),
        drawn_with=before if recipe.calibration or _unchanged(recipe, saved) else BASE_ALONE,
    )


def _accelerators(sources: Sequence[LoraSource], options: MergeOptions) -> tuple[Accelerator, ...]:
    base = options.eval_base or options.base
    return load_accelerators(options.with_, sources, base=base, allow_unknown=options.allow_unknown)


def _unchanged(recipe: Recipe, saved: SavedRecipe | None) -> bool:
    return saved is not None and "weights" in saved.fields and Recipe(**saved.fields).hash == recipe.hash


def _solved_otherwise(before: DrawnWith) -> str:
    """Returns a warning that a recipe, which is solved again, was solved on something else than the base model alone."""
    known = [f"on {before.base}"] if before.base else []
    known += [f"with {before.text} beside the base model"] if before.accelerators else []
    return f"the recipe's router was solved {' '.join(known)}, and now is not; --eval-base and --with say so again"


def _router(calibration: str, folder: Path, given: Iterable[Router]) -> tuple[Router]:
    for router in given:
        if router.hash == calibration:
            return (router,)
    path = router_path(folder / ROUTERS, calibration)
    if not path.is_file():
        raise RecipeError("the router that the recipe names is missing", where=path, remedy="copy it there, from beside the first recipe")
    return (load_router(path),)


def suggestion(adapters: Sequence[Adapter]) -> float:
    """Returns the suggested weight per source.

    It is 1/√N in steps of 0.05, which preserves the norm of a sum of N unrelated sources, or 1 if no two of them share a module.
    """
    if not any(shared_modules(pair) for pair in combinations(adapters, 2)):
        return 1.0
    return round(round(1 / math.sqrt(len(adapters)) / _STEP) * _STEP, 2)


def read_sources(specs: Sequence[str], saved: SavedRecipe | None, options: MergeOptions) -> list[LoraSource]:
    """Reads the sources of a merge.

    Args:
        specs: source names as given by the user or the recipe file.
        saved: recipe file, whose names, roles and triggers are used unless the options give others; None for none.
        options: command line options.

    Raises:
        UsageError: a source cannot be used, or the number of triggers differs from that of the sources.
    """
    setup = saved.setup if saved else None
    triggers = options.triggers or (setup.triggers if setup else ())
    roles = setup.roles if setup and all(setup.roles) else ()
    for name, given in (("--triggers", triggers), ("roles", roles)):
        if given and len(given) != len(specs):
            raise UsageError(f"{len(given)} given for {len(specs)} sources", where=name, remedy="give one per source, in the same order")
    asked = Config.of(sources=specs, base=options.base, triggers=triggers, roles=roles, allow_unknown=options.allow_unknown)
    sources = load_loras(asked.inputs)
    told_names = [clean_name(name) for name in setup.names] if setup else []  # a stranger's header must not steer a terminal
    names = told_names if len(set(told_names)) == len(specs) else [s.name for s in sources]
    return [_named(source, name) for source, name in zip(sources, names, strict=True)]


def _with_prompts(sources: Sequence[LoraSource], options: MergeOptions) -> list[LoraSource]:
    """Returns the sources with what the prompt file says about them, if one is given."""
    if not options.prompts:
        return list(sources)
    path = Path(options.prompts)
    return with_given_prompts(sources, read_prompt_file(path), path, triggers=not options.triggers)


def _named(source: LoraSource, name: str) -> LoraSource:
    return replace(source, adapter=replace(source.adapter, name=name), subject=replace(source.subject, name=name))


def _recipe(adapters: Sequence[Adapter], saved: SavedRecipe | None, options: MergeOptions) -> Recipe:
    fields = _saved_fields(saved, options.method) | options.fields()
    fields.setdefault("method", "linear")
    if not saved or fields["method"] != saved.fields.get("method"):
        fields = (METHODS[fields["method"]].starting_values() if fields["method"] in METHODS else {}) | fields
    if options.weights:
        fields["weights"] = options.weights
    calibrated = fields["method"] in METHODS and METHODS[fields["method"]].calibrated
    fields.setdefault("weights", (1.0 if calibrated else suggestion(adapters),) * len(adapters))
    if options.resolve:
        fields.pop("calibration", None)
    if options.blocks:
        fields["blocks"] = _blocks(options.blocks, adapters)
    return _ranked(Recipe(**fields), adapters).bound_to(adapters)


def _check_solved(recipe: Recipe, saved: SavedRecipe | None, options: MergeOptions) -> None:
    """Raises UsageError if a recipe has a router that other options than these were solved with."""
    needless = [name for name in SOLVING if getattr(options, name) != MergeOptions.model_fields[name].default]
    if needless and recipe.method_record.solved and recipe.calibration:
        remedy = "add --resolve and --base to solve it again, or leave the option out"
        raise UsageError("the recipe's router is solved already", where=option_name(needless[0]), remedy=remedy)
    if needless and not recipe.method_record.solved:
        remedy = "leave it out, or name a method that is solved on the base model, such as distill"
        raise UsageError(f"the method {recipe.method!r} has no router to solve", where=option_name(needless[0]), remedy=remedy)
    if saved is None or recipe.calibration is None or not recipe.method_record.solved:
        return
    before, now = (solved_from(one) for one in (Recipe(**saved.fields), recipe))
    for name, value in now.items():
        if name != "sources" and before.get(name) != value:
            problem = f"the recipe's router was solved with {before.get(name)}, not {value}"
            remedy = "add --resolve and --base to solve it again, or leave the option out"
            raise UsageError(problem, where=option_name(name), remedy=remedy)


def _saved_fields(saved: SavedRecipe | None, method: str | None) -> dict[str, Any]:
    """Returns the recipe fields from the file; if another method is requested, only the fields that apply to every method."""
    if saved is None:
        return {}
    if method in (None, saved.fields.get("method")):
        return dict(saved.fields)
    return {name: value for name, value in saved.fields.items() if name in Recipe.model_fields and name not in (*PARAMETERS, "calibration")}


def _blocks(texts: Sequence[str], adapters: Sequence[Adapter]) -> tuple[dict[str, float], ...]:
    base, names = common_base(adapters), [a.name for a in adapters]
    if len(texts) == 1 and Path(texts[0]).suffix.lower() in (".yaml", ".yml", ".json"):
        return read_blocks_file(texts[0], names, base)
    if len(texts) != len(adapters):
        remedy = "give one per source, in the same order (ALL for none), or a YAML file"
        raise UsageError(f"{len(texts)} given for {len(adapters)} sources", where="--blocks", remedy=remedy)
    return tuple(read_blocks(text, base, where=f"--blocks {index}") for index, text in enumerate(texts, start=1))


def _ranked(recipe: Recipe, adapters: Sequence[Adapter]) -> Recipe:
    """Returns the recipe, with the default rank if neither a rank nor an energy threshold bounds its size."""
    if recipe.rank is not None or recipe.rank_energy is not None:
        return recipe
    return recipe.replaced(rank=default_rank(recipe.method, sum_of_ranks(adapters)))


def output_path(options: MergeOptions, names: Sequence[str], recipe: Recipe) -> Path:
    """Returns the path of the file to write: the one that ``--out`` names, or one named after sources, method and weights.

    Raises:
        UsageError: ``--out`` is neither a safetensors file's name nor a directory, or its directory does not exist.
    """
    out = options.out or Path()
    if out.suffix.lower() != _SUFFIX:
        if not out.is_dir():
            remedy = f"name a file that ends in {_SUFFIX}, or a directory that exists"
            raise UsageError("is neither a safetensors file's name nor a directory", where=f"--out {out}", remedy=remedy)
        out = out / file_name(names, recipe.weights, recipe.method, 1)
    elif not out.parent.is_dir():
        raise UsageError("the directory does not exist", where=f"--out {out}", remedy="create it, or name another file")
    return out if options.force else next_free(out, BESIDE)


def _apart_from(sources: Sequence[LoraSource], path: Path) -> Path:
    """Returns the output path; raises UsageError if it is that of a source, without which the recipe could not be replayed."""
    if path.exists() and any(path.samefile(source.file) for source in sources):
        raise UsageError("is one of the sources, which the recipe needs", where=f"--out {path}", remedy="name another file")
    return path


def warnings_about(sources: Sequence[LoraSource], recipe: Recipe, *, suggested: bool) -> Iterator[str]:
    """Yields warnings for the user about a merge, one line each.

    Args:
        sources: sources of the merge.
        recipe: description of the merge.
        suggested: whether the weights are the suggested ones, because none were given.
    """
    yield from (source.guess for source in sources if source.guess)
    yield from remarks(sources, None if recipe.rank in (None, "full") and not recipe.sized else 1)
    if recipe.method_record.calibrated:
        return  # its router balances the sources
    each = suggestion([source.adapter for source in sources])
    if each == 1:
        return  # the sources do not add up anywhere
    if suggested:
        yield f"no weights given: {' '.join([f'{each:g}'] * len(sources))}, which keeps the size of a sum of unrelated sources"
    elif all(weight == 1 for weight in recipe.weights):
        count, size = len(sources), math.sqrt(len(sources))
        yield (
            f"all weights are 1: the sum of {count} unrelated sources is {size:.1f} times as large as one of them, and more where they "
            f"have something in common, which often overdrives pictures; {each:g} each keeps the size of one"
        )
