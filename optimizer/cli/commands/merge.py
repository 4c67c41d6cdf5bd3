"""``optimize merge``: one merge, without a search."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.progress import progress_bar
from optimizer.cli.quiet import hush
from optimizer.errors import UsageError
from optimizer.jobs.merge_options import MergeOptions

_DEFAULTS = MergeOptions.model_validate({})


def merge(recipe: Path | None = None, /, *, options: Annotated[MergeOptions, Parameter(name="*")] = _DEFAULTS) -> int:
    """Merge LoRAs, or full models with --kind model, once, as the options or a recipe say.

    Beside the file its recipe (.yaml) and a model card (.md) are written; of models what says how they were made (merge.yaml).

    Args:
        recipe: a recipe (YAML, JSON) or a merged LoRA, which holds its own; options change it. Or the merge.yaml of a merged model.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    if options.kind == "model" or _is_of_models(recipe):
        return _merge_models(recipe, options, errors)
    if options.alpha is not None:
        raise UsageError("LoRAs have no alpha to merge at", where="--alpha", remedy="give --weights, or --kind model")
    with errors.status("reading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.tables.merge import idle_blocks, merge_facts, print_merge
        from optimizer.jobs.merge_plan import plan
        from optimizer.jobs.merge_write import write_merge

        job = plan(recipe, options)
    _warn(job.warnings, errors)
    with progress_bar("merging…", errors) as tick:
        found = write_merge(job, options, tick=tick)
    _warn(idle_blocks(job, found), errors)
    if options.json_:
        print(json.dumps(merge_facts(job, found), allow_nan=False))
    else:
        print_merge(job, found, Console(highlight=False))
    return 0


def _merge_models(recipe: Path | None, options: MergeOptions, errors: Console) -> int:
    from optimizer.cli.tables.model_merge import model_merge_facts, print_model_merge
    from optimizer.jobs.model_merge_plan import model_job
    from optimizer.jobs.model_merge_write import write_model_merge

    job = model_job(recipe, options)
    with progress_bar("merging…", errors) as tick:
        found = write_model_merge(job, options.out, tick=tick)
    if options.json_:
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
