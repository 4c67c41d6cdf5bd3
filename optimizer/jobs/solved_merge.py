"""The plan of a merge that is solved on the live base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.adapters import Adapter
from optimizer.calibration.live_model import LiveModel
from optimizer.calibration.solve import Progress, solve
from optimizer.errors import RecipeError, UsageError
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import MergePlan, output_path, read_sources, warnings_about
from optimizer.merging import Recipe
from optimizer.rendering import GENERAL, Loading, Renderer, RenderSettings, Vocabulary, compose, load_renderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import check_count
from optimizer.search.evaluation.prompt_sets import read_words
from studies.demo.world import GUIDANCE, PREFIX, STEPS, demo_base, demo_words

# Far from every seed that a study composes its own prompts with.
_PROMPTS = 2_000_003
_OWN, _JOINT = 48, 48  # with 16 and 24, what is learnt holds for the words of these prompts alone
_METHOD, _UNSOLVED = "routed", "0" * 64


@dataclass(frozen=True)
class SolvedMerge:
    """A merge whose router was solved on the live base model.

    Attributes:
        plan: plan of the merge, with the router.
        method: name of the method that solved it.
        prompts: number of prompts that it was solved on.
        loss: mean squared difference of guided outputs from the composition's, smoothed, at the end; NaN for closed forms.
        seconds: time that solving took.
    """

    plan: MergePlan
    method: str
    prompts: int
    loss: float
    seconds: float


def solved_merge(options: MergeOptions, progress: Progress) -> SolvedMerge:
    """Loads sources and base, solves the router, and plans the merge that applies it.

    The recipe is one of the method ``routed``, which needs neither the base nor a GPU to be replayed.

    Args:
        options: command line options; the method is one of those that are solved.
        progress: called as the work goes on; an exception that it raises stops it.

    Raises:
        UsageError: no base model is given, or an option does not fit a solved merge.
        BaseModelError: the base cannot be loaded, or a source does not fit it.
        RecipeError: the recipe does not fit the sources.
        TrialError: pictures or the loss are not finite, or memory does not suffice.
    """
    assert options.method is not None
    if options.weights or options.blocks:
        where = "--weights" if options.weights else "--blocks"
        raise UsageError(f"{options.method} finds the weights itself", where=where, remedy="leave it out")
    demo = not options.base and all(spec.startswith(PREFIX) for spec in options.sources)
    if not demo and (not options.base or is_fake(options.base)):
        problem = f"{options.method} solves the merge on the base model, and none is given"
        raise UsageError(problem, where="--base", remedy="name the diffusers folder or the file that the sources were trained on")
    check_count(len(options.sources), force=options.force)
    sources = read_sources(options.sources, None, options)
    adapters, names = [source.adapter for source in sources], [source.name for source in sources]
    recipe = _recipe(options, adapters)
    output_path(options, names, recipe)  # refuses a path that cannot be written before the work begins
    model = LiveModel.of(_renderer(options, adapters, demo=demo), adapters, [source.subject for source in sources])
    prompts = compose(model.subjects, _vocabulary(demo=demo), own=_OWN, joint=_JOINT, seed=_PROMPTS + (options.seed or 0))
    found = solve(options.method, model, adapters, prompts, steps=options.solve_steps, seed=options.seed or 0, progress=progress)
    recipe = recipe.replaced(calibration=found.router.hash)
    made = MergePlan(
        sources=tuple(sources),
        specs=options.sources,
        recipe=recipe,
        dialect=options.dialect or "kohya",
        path=output_path(options, names, recipe),
        warnings=tuple(warnings_about(sources, recipe, suggested=False)),
        routers=(found.router,),
    )
    return SolvedMerge(made, options.method, len(prompts), found.loss, found.seconds)


def _recipe(options: MergeOptions, adapters: Sequence[Adapter]) -> Recipe:
    """Returns the recipe but for its calibration, which is not known yet."""
    fields = {name: value for name, value in options.fields().items() if name not in ("method", "seed")}
    try:
        return Recipe(method=_METHOD, weights=(1.0,) * len(adapters), calibration=_UNSOLVED, **fields).bound_to(adapters)
    except RecipeError as error:
        problem, remedy = (text.replace(repr(_METHOD), repr(options.method)) for text in (error.problem, error.remedy))
        raise RecipeError(problem, where=error.where, remedy=remedy) from error


def _renderer(options: MergeOptions, adapters: Sequence[Adapter], *, demo: bool) -> Renderer:
    settings = RenderSettings(STEPS, GUIDANCE, batch=16) if demo else RenderSettings()
    base = options.base or str(demo_base())
    renderer = load_renderer(base, settings, Loading(device=options.device), adapters=adapters)
    assert isinstance(renderer, Renderer)
    return renderer


def _vocabulary(*, demo: bool) -> Vocabulary:
    return read_words(demo_words()) if demo else GENERAL
