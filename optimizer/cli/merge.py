"""``optimize merge``: one merge, without a search."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.quiet import hush
from optimizer.errors import UsageError
from optimizer.jobs.merge_options import MergeOptions

if TYPE_CHECKING:
    from optimizer.jobs.merge_plan import MergePlan

_DEFAULTS = MergeOptions.model_validate({})


def merge(recipe: Path | None = None, /, *, options: Annotated[MergeOptions, Parameter(name="*")] = _DEFAULTS) -> int:
    """Merge LoRAs, or full models with --kind model, once, as the options or a recipe say.

    Beside the file its recipe (.yaml) and a model card (.md) are written; of models what says how they were made (merge.yaml).

    Args:
        recipe: a recipe (YAML, JSON) or a merged LoRA, which holds its own; options change it. Or the merge.yaml of a merged model.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    if options.kind == "model" or _of_models(recipe):
        from optimizer.cli.merge_models import merge_full

        return merge_full(recipe, options, errors)
    if options.alpha is not None:
        raise UsageError("LoRAs have no alpha to merge at", where="--alpha", remedy="give --weights, or --kind model")
    with errors.status("reading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.merge_tables import merge_facts, print_merge
        from optimizer.jobs.merge_plan import plan
        from optimizer.jobs.merge_write import written

        job = plan(recipe, options)
    _warn(job, errors)
    with errors.status("merging…") if errors.is_terminal else nullcontext():
        found = written(job, options)
    for source, names in zip(job.sources, found.report.idle_blocks, strict=True):
        if names:
            errors.print(f"warning: {source.name}: no module is in {', '.join(names)}", soft_wrap=True, markup=False)
    if options.json_:
        print(json.dumps(merge_facts(job, found), allow_nan=False))
    else:
        print_merge(job, found, Console(highlight=False))
    return 0


def _of_models(recipe: Path | None) -> bool:
    if recipe is None or recipe.suffix not in (".yaml", ".yml"):
        return False
    from optimizer.jobs.model_merge_plan import parsed
    from optimizer.merging.models import is_account

    return is_account(parsed(recipe))


def _warn(job: MergePlan, errors: Console) -> None:
    for line in job.warnings:
        errors.print(f"warning: {line}", soft_wrap=True, markup=False)
