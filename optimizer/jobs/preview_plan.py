"""What a preview draws: base, sources, stack and merge, or a merge at a grid of weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from optimizer.adapters import Adapter, load_adapter
from optimizer.adapters.files.container import read_header
from optimizer.errors import UsageError
from optimizer.export import RECIPE_KEY
from optimizer.jobs.base_renderer import all_of_demo
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import plan, read_sources
from optimizer.jobs.preview_grid import GRID, Axis, parse_grid
from optimizer.merging import Recipe, Router
from optimizer.rendering import Prompt, compose
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.evaluation.prompt_sets import vocabulary
from optimizer.search.sources.accelerators import Accelerator, load_accelerators
from optimizer.search.sources.loras import LoraSource, weights_of

_RECIPES = (".yaml", ".yml", ".json")
_JOINT = 3  # prompts for all sources, where none are given


@dataclass(frozen=True)
class PreviewOptions:
    """What a preview is asked for.

    Attributes:
        files: LoRA files, ``demo:NAME``, or one recipe or merged LoRA.
        sources: files or folders that hold the sources of a recipe.
        prompts: prompt texts; empty for prompts that are composed of the sources' triggers.
        seed: seed of the first picture of each prompt.
        count: pictures a prompt, with consecutive seeds.
        grid: texts ``NAME=LOW:HIGH:STEP``.
        base: model that the sources were trained on; empty for the demo world's.
        eval_base: model that draws instead; empty for the base.
        with_: LoRAs that everything is drawn with.
    """

    files: tuple[str, ...]
    sources: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    seed: int = 0
    count: int = 1
    grid: tuple[str, ...] = ()
    base: str = ""
    eval_base: str = ""
    with_: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """One thing that a preview draws every prompt with; the base alone if it has neither recipe, source nor file.

    Attributes:
        label: name of the column.
        recipe: recipe of the merge; None for none.
        source: index of the source that is drawn alone; None for none.
        file: whether the merged LoRA is drawn as it is.
        composed: whether the composition of the sources that a prompt names draws.
    """

    label: str
    recipe: Recipe | None = None
    source: int | None = None
    file: bool = False
    composed: bool = False


@dataclass(frozen=True)
class PreviewPlan:
    """A planned preview.

    Attributes:
        sources: sources that were found; empty if only the file itself can be drawn.
        recipe: recipe of the merge, a weighted sum where none is given; None without sources.
        routers: router that the recipe names.
        file: merged LoRA that is drawn as it is; None if there is none.
        prompts: prompts.
        axes: axes of the grid; empty for a comparison.
        accelerators: LoRAs that everything is drawn with.
        demo: whether the demo world's base draws.
        composes: whether the model that draws can compose outputs, which a stand-in cannot.
        notes: notes for the user.
    """

    sources: tuple[LoraSource, ...]
    recipe: Recipe | None
    routers: tuple[Router, ...]
    file: Adapter | None
    prompts: tuple[Prompt, ...]
    axes: tuple[Axis, ...]
    accelerators: tuple[Accelerator, ...]
    demo: bool
    composes: bool = True
    notes: tuple[str, ...] = ()

    @property
    def adapters(self) -> list[Adapter]:
        """Adapters of the sources, then the file's."""
        return [*(source.adapter for source in self.sources), *([self.file] if self.file else [])]

    @property
    def shown(self) -> tuple[Shown, ...]:
        """What is drawn, in the order of the columns; of a grid of two axes, row by row."""
        return tuple(self._on_grid()) if self.axes else tuple(self._compared())

    def _compared(self) -> Iterator[Shown]:
        """Yields the base, each source alone, composition, stack and merge, where there are such."""
        names, recipe = [source.name for source in self.sources], self.recipe
        yield Shown("base")
        for index, name in enumerate(names):
            yield Shown(f"{name} alone" if len(names) > 1 else name, source=index)
        stack = Recipe(method="linear", weights=(1.0,) * len(names)) if len(names) > 1 else None
        if stack and self.composes:
            yield Shown("composition", composed=True)
        if stack:
            yield Shown("stack", stack)
        if self.file:
            yield Shown(self.file.name, file=True)
        elif recipe and stack and recipe.replaced(sources=()) != stack:
            yield Shown("merge", recipe)

    def _on_grid(self) -> Iterator[Shown]:
        """Yields the merge at every pair of weights of the axes."""
        assert self.recipe is not None
        for values in product(*(axis.values for axis in self.axes)):
            weights = list(self.recipe.weights)
            for axis, value in zip(self.axes, values, strict=True):
                weights[axis.source] = value
            named = zip(self.axes, values, strict=True)
            yield Shown(", ".join(f"{axis.name} {value:g}" for axis, value in named), self.recipe.replaced(weights=tuple(weights)))


def plan_preview(options: PreviewOptions) -> PreviewPlan:
    """Reads the files and resolves what is drawn.

    Raises:
        UsageError: an option is invalid, or a file cannot be used.
        RecipeError: the recipe is invalid, or its merge has yet to be solved.
    """
    if options.count < 1:
        raise UsageError(f"got {options.count}", where="--count", remedy="give 1 or more")
    held = _with_recipe(options.files)
    found = _of_recipe(held, options) if held else _of_files(options)
    if options.grid and not found.sources:
        raise UsageError("the sources are not known, whose weights are to vary", where=GRID, remedy="name their folder with --sources")
    subjects = [source.subject for source in found.sources]
    return replace(
        found,
        prompts=_prompts(options, found, tuple(options.prompts)) if options.prompts or subjects else _no_prompts(),
        axes=parse_grid(options.grid, [source.name for source in found.sources]),
        composes=not is_fake(options.eval_base or options.base),
        accelerators=load_accelerators(options.with_, found.sources, base=options.eval_base or options.base),
    )


def _with_recipe(files: Sequence[str]) -> Path | None:
    """Returns the file if it is a recipe, or a merged LoRA that holds one."""
    if len(files) != 1:
        return None
    path = Path(files[0])
    if path.suffix.lower() in _RECIPES:
        return path
    return path if path.is_file() and path.suffix.lower() == ".safetensors" and RECIPE_KEY in read_header(path).metadata else None


def _of_recipe(path: Path, options: PreviewOptions) -> PreviewPlan:
    merged = path.suffix.lower() not in _RECIPES
    file = load_adapter(path, base=weights_of(options.base)) if merged else None
    try:
        job = plan(path, MergeOptions(sources=options.sources, base=options.base))
    except UsageError as error:
        if not merged or options.sources:
            raise
        return PreviewPlan((), None, (), file, (), (), (), _is_demo(options, ()), notes=(f"the file alone is drawn: {error}",))
    if job.unsolved and not merged:
        remedy = f"solve it first: optimize merge {path} --base MODEL"
        raise UsageError(f"the merge by {job.recipe.method} has yet to be solved", where=path, remedy=remedy)
    return PreviewPlan(job.sources, job.recipe, job.routers, file, (), (), (), _is_demo(options, job.specs))


def _of_files(options: PreviewOptions) -> PreviewPlan:
    sources = tuple(read_sources(options.files, None, MergeOptions(base=options.base)))
    adapters = [source.adapter for source in sources]
    recipe = Recipe(method="linear", weights=(1.0,) * len(sources)).bound_to(adapters)
    return PreviewPlan(sources, recipe, (), None, (), (), (), _is_demo(options, options.files))


def _is_demo(options: PreviewOptions, specs: Sequence[str]) -> bool:
    if options.base or options.eval_base:
        return False
    if not specs or not all_of_demo(specs):
        raise UsageError("no base model is given", where="--base", remedy="name the model that the sources were trained on")
    return True


def _prompts(options: PreviewOptions, found: PreviewPlan, texts: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Returns each prompt with its seeds; without texts, one prompt for each source and some for all of them."""
    subjects = [source.subject for source in found.sources]
    if not texts:
        several = len(subjects) > 1
        words = vocabulary("", subjects, demo=found.demo)
        drawn = compose(subjects, words, own=1 if several else _JOINT, joint=_JOINT if several else 0, seed=options.seed)
        texts = tuple(dict.fromkeys(prompt.text for prompt in drawn.prompts))
    return tuple(Prompt(text, options.seed + index) for text in texts for index in range(options.count))


def _no_prompts() -> tuple[Prompt, ...]:
    raise UsageError("the triggers of the sources are not known", where="--prompt", remedy="give prompts, in quotes")
