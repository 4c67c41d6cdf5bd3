"""Merges that are solved on the live base model, before they are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.prompts import prompts_to_solve_on
from optimizer.calibration.solve import COMPLETE, Progress, Solver, Watch
from optimizer.errors import UsageError
from optimizer.jobs.base_renderer import Drawing, all_of_demo
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import MergePlan
from optimizer.rendering import PromptSet, Renderer, RenderSettings
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake_spec import is_fake
from optimizer.rendering.memory.oom import Note
from optimizer.search.config.inputs import check_eval_base
from optimizer.search.evaluation.prompt_sets import vocabulary
from optimizer.search.images.contact_sheets import sheet
from optimizer.search.sources.accelerators import about_eval_base, drawn_with
from studies.atomic import replacing, write_bytes

_SHOWN = 6  # joint prompts in a preview


@dataclass(frozen=True)
class SolvedMerge:
    """A merge whose router was solved on the live base model.

    Attributes:
        plan: plan of the merge, with the router.
        prompts: number of prompts that it was solved on.
        loss: mean squared difference of guided outputs from the composition's, smoothed, at the end; None for closed forms.
        seconds: time that solving took.
        stopped: whether the training was ended early, so that the recipe names an earlier checkpoint.
    """

    plan: MergePlan
    prompts: int
    loss: float | None
    seconds: float
    stopped: bool


def solved_merge(job: MergePlan, options: MergeOptions, progress: Progress, note: Note) -> SolvedMerge:
    """Loads the base, solves the router of a recipe, and returns the plan of the merge that applies it.

    The recipe then names its router, and needs neither the base nor a GPU to be replayed.

    Args:
        job: plan of the merge, whose recipe has no calibration yet.
        options: command line options, with the base model and the words of the prompts.
        progress: called as the work goes on. An exception that it raises stops it; ``Enough`` ends the training early.
        note: called with one line about the memory that solving needs, and with one for each step that memory enforces.

    Raises:
        UsageError: no base model is given.
        BaseModelError: the base cannot be loaded, or a source does not fit it.
        TrialError: pictures or the loss are not finite, or memory does not suffice.
    """
    demo = not options.base and all_of_demo(job.specs)
    method, recipe = job.recipe.method, job.recipe
    if not demo and (not options.base or is_fake(options.base)):
        problem = f"{method} solves the merge on the base model, and none is given"
        raise UsageError(problem, where="--base", remedy="name the diffusers folder or the file that the sources were trained on")
    check_eval_base(options.base, options.eval_base)
    words = vocabulary(options.prompts, [source.subject for source in job.sources], demo=demo)
    settings = RenderSettings(options.steps, options.guidance)
    renderer = Drawing(options.base, options.eval_base, settings, options.device, job.accelerators).renderer(job.adapters, note)
    assert isinstance(renderer, Renderer)
    with about_eval_base(options.eval_base):
        model = LiveModel.of(renderer, job.adapters, [source.subject for source in job.sources])
    prompts = prompts_to_solve_on(model.subjects, words, recipe)
    watch = _preview(model, prompts, options.preview) if options.preview else lambda *_: None
    found = Solver(model, job.adapters, prompts, fallback=GradientFallback(note)).solve(recipe, progress=progress, watch=watch)
    router, reached = found.routers[found.last], {}
    if stopped := found.last < (recipe.checkpoint if recipe.method_record.reads("checkpoint") else COMPLETE):
        reached = {"checkpoint": found.last}
    beside = drawn_with(job.accelerators, options.eval_base, renderer.settings)
    solved = replace(job, recipe=recipe.replaced(calibration=router.hash, **reached), routers=(router,), drawn_with=beside)
    return SolvedMerge(solved, found.prompts, found.losses.get(found.last), found.seconds, stopped)


def _preview(model: LiveModel, prompts: PromptSet, file: Path) -> Watch:
    """Returns a function that writes what the composition and the merge draw for some joint prompts."""
    try:
        write_bytes(file, b"")
    except OSError as error:
        remedy = "name a picture file, such as preview.png, in a folder that can be written"
        raise UsageError(f"cannot be written: {error.strerror}", where=f"--preview {file}", remedy=remedy) from error
    shown = [prompts.prompts[index] for index in prompts.indices(None)][:_SHOWN]
    above: list[Tensor] = []

    def write(step: int, merge: Candidate) -> None:
        if not above:
            above.append(model.renderer.render(shown, model.composed(model.teacher)))
        below = model.renderer.render(shown, merge)
        with replacing(file) as temporary:
            sheet(torch.cat([*above, below]), columns=len(shown)).save(temporary, "PNG")

    return write
