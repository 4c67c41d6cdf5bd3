"""``optimize merge``: one merge, without a search.

The module is imported when the command is, because its options derive from the merge methods, which need torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.progress import progress_bar, solving_bar
from optimizer.cli.quiet import hush
from optimizer.errors import UsageError

hush(Console(stderr=True, highlight=False))  # before the next line imports torch, which may warn

from optimizer.cli.merge_options import MergeFlags, shown  # noqa: E402
from optimizer.jobs.merge_options import MergeOptions, MergePanel  # noqa: E402

if TYPE_CHECKING:
    from optimizer.jobs.merge_plan import MergePlan
    from optimizer.jobs.solved_merge import SolvedMerge

_DEFAULTS = MergeFlags()


def merge(
    recipe: Annotated[Path | None, shown(MergePanel.SOURCES)] = None,
    /,
    *,
    options: Annotated[MergeFlags, Parameter(name="*")] = _DEFAULTS,
    as_json: Annotated[bool, shown(MergePanel.OUTPUT), Parameter("--json")] = False,
) -> int:
    """Run ``optimize merge``; ``optimizer.cli.main`` has the text that its help begins with.

    Args:
        recipe: Recipe file to repeat, or a merged LoRA, which holds its own; options change it. With --method soup, a study's folder.
        as_json: Print JSON for machines, with a report on every module.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    if options.kind == "model" or _is_of_models(recipe):
        return _merge_models(recipe, options, errors, as_json=as_json)
    if options.alpha is not None:
        raise UsageError("LoRAs have no alpha to merge at", where="--alpha", remedy="give --weights, or --kind model")
    if options.method == "soup":
        return _merge_study(recipe, options, errors, as_json=as_json)
    with errors.status("reading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.tables.merge import idle_blocks, merge_facts, print_merge, print_solving, solving_facts
        from optimizer.jobs.merge_plan import plan
        from optimizer.jobs.merge_write import write_merge

        job = plan(recipe, options)
    _warn(job.warnings, errors)
    solved = _solved(job, options, errors) if job.unsolved else None
    job = solved.plan if solved else job
    with progress_bar("merging…", errors) as tick:
        found = write_merge(job, options, tick=tick)
    _warn(idle_blocks(job, found), errors)
    if as_json:
        print(json.dumps(merge_facts(job, found) | (solving_facts(solved) if solved else {}), allow_nan=False))
    else:
        out = Console(highlight=False)
        if solved:
            print_solving(solved, out)
        print_merge(job, found, out)
    return 0


def _merge_study(study: Path | None, options: MergeOptions, errors: Console, *, as_json: bool) -> int:
    if study is None:
        remedy = "name the study's directory, or use the method 'model_soup', the mean of the sources"
        raise UsageError("a soup is made of the trials of a study", where="--method soup", remedy=remedy)
    with errors.status("loading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.display import Display
        from optimizer.cli.tables.merge import merge_facts, print_merge, print_soup, soup_facts
        from optimizer.jobs.merge_write import write_merge
        from optimizer.jobs.study_soup import study_soup
        from optimizer.search.observer import Stopped
    display = Display(errors)
    with display.watching():
        try:
            made = study_soup(study, options, display)
        except Stopped:
            return 128 + (display.stopping or 0)
    with progress_bar("merging…", errors) as tick:
        found = write_merge(made.plan, options, tick=tick)
    if as_json:
        print(json.dumps(merge_facts(made.plan, found) | soup_facts(made), allow_nan=False))
    else:
        print_soup(made, Console(highlight=False))
        print_merge(made.plan, found, Console(highlight=False))
    return 0


def _solved(job: MergePlan, options: MergeOptions, errors: Console) -> SolvedMerge:
    """Solves the router of a merge on the base model; the first Ctrl-C ends the training, and what is trained so far is kept."""
    with errors.status("loading…") if errors.is_terminal else nullcontext():
        from optimizer.calibration.solve import Enough
        from optimizer.jobs.solved_merge import solved_merge
    with solving_bar(errors) as progress:
        try:
            return solved_merge(job, options, progress, lambda line: errors.print(line, soft_wrap=True, markup=False))
        except Enough:  # before there was anything to keep
            raise KeyboardInterrupt from None


def _merge_models(recipe: Path | None, options: MergeOptions, errors: Console, *, as_json: bool) -> int:
    from optimizer.cli.tables.model_merge import model_merge_facts, print_model_merge
    from optimizer.jobs.model_merge_plan import model_job
    from optimizer.jobs.model_merge_write import write_model_merge

    job = model_job(recipe, options)
    with progress_bar("merging…", errors) as tick:
        found = write_model_merge(job, options.out, tick=tick)
    if as_json:
        print(json.dumps(model_merge_facts(job, found)))
    else:
        print_model_merge(job, found, Console(highlight=False))
    return 0


def _is_of_models(recipe: Path | None) -> bool:
    if recipe is None or recipe.suffix not in (".yaml", ".yml"):
        return False
    from optimizer.jobs.model_merge_plan import describes_models

    return describes_models(recipe)


def _warn(lines: Iterable[str], errors: Console) -> None:
    for line in lines:
        errors.print(f"warning: {line}", soft_wrap=True, markup=False)
