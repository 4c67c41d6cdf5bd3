"""The plan of a merge that is solved on the live base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimizer.adapters import Adapter
from optimizer.calibration.live_model import LiveModel
from optimizer.calibration.solve import Progress, solve
from optimizer.errors import RecipeError, UsageError
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import MergePlan, output_path, plan
from optimizer.merging import Recipe
from optimizer.rendering import GENERAL, Loading, Renderer, RenderSettings, Vocabulary, compose, load_renderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.evaluation.prompt_sets import read_words
from studies.demo.world import GUIDANCE, PREFIX, STEPS, demo_base, demo_words

# Far from every seed that a study composes its own prompts with.
_PROMPTS = 2_000_003
_OWN, _JOINT = 16, 24
_METHOD = "routed"


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
    ones = (1.0,) * len(options.sources)
    own = options.model_copy(update={"method": "linear", "weights": ones})
    first = plan(None, own)
    adapters = first.adapters
    renderer = _renderer(options, adapters, demo=demo)
    subjects = [source.subject for source in first.sources]
    prompts = compose(subjects, _vocabulary(demo=demo), own=_OWN, joint=_JOINT, seed=_PROMPTS + (options.seed or 0))
    model = LiveModel.of(renderer, adapters, subjects)
    found = solve(options.method, model, adapters, prompts, steps=options.solve_steps, seed=options.seed or 0, progress=progress)
    recipe = _recipe(options, ones, found.router.hash, adapters)
    path = output_path(options, [source.name for source in first.sources], recipe)
    told = tuple(warning for warning in first.warnings if "all weights are 1" not in warning)
    made = replace(first, recipe=recipe, path=path, routers=(found.router,), warnings=told)
    return SolvedMerge(made, options.method, len(prompts), found.loss, found.seconds)


def _recipe(options: MergeOptions, weights: tuple[float, ...], calibration: str, adapters: Sequence[Adapter]) -> Recipe:
    fields = {name: value for name, value in options.fields().items() if name not in ("method", "seed")}
    fields.setdefault("dtype", "fp32")  # factors of a full router cancel each other: fp16 may lose more of a small module than is allowed
    try:
        return Recipe(method=_METHOD, weights=weights, calibration=calibration, **fields).bound_to(adapters)
    except RecipeError as error:
        raise RecipeError(error.problem.replace(repr(_METHOD), repr(options.method)), where=error.where, remedy=error.remedy) from error


def _renderer(options: MergeOptions, adapters: Sequence[Adapter], *, demo: bool) -> Renderer:
    settings = RenderSettings(STEPS, GUIDANCE, batch=16) if demo else RenderSettings()
    base = options.base or str(demo_base())
    renderer = load_renderer(base, settings, Loading(device=options.device), adapters=adapters)
    assert isinstance(renderer, Renderer)
    return renderer


def _vocabulary(*, demo: bool) -> Vocabulary:
    return read_words(demo_words()) if demo else GENERAL
