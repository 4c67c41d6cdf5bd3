"""Executing a merge plan: merging, writing the output files, and reporting what the merge preserved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from optimizer.adapters import Adapter
from optimizer.adapters.families import FAMILIES
from optimizer.checkpoints.model import Tick
from optimizer.export import (
    ExportCheck,
    ModelCard,
    base_name,
    card_sources,
    export_adapter,
    heritage_of,
    merge_metadata,
    setup_of,
    title,
    verify_export,
    write_card,
)
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import BESIDE, MergePlan
from optimizer.merging import DTYPES, ROUTERS, MergeReport, Pruned, merge, merge_report, prune_curve, save_router
from studies.atomic import write_text
from studies.demo.world import PREFIX

_SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Written:
    """Result of an executed merge plan.

    Attributes:
        merged: merged adapter, in fp32.
        check: result of reading the output file back.
        recipe, card: paths of the recipe file and the model card beside the output file.
        report: merge report.
        curve: file size savings at other pruning shares; empty if nothing was pruned.
        router: path of the recipe's router beside the output file; None if the recipe names no calibration.
    """

    merged: Adapter
    check: ExportCheck
    recipe: Path
    card: Path
    report: MergeReport
    curve: tuple[Pruned, ...]
    router: Path | None = None


def write_merge(job: MergePlan, options: MergeOptions, *, tick: Tick | None = None) -> Written:
    """Merges, writes the output file, verifies it by reading it back, and writes the recipe and the model card to the same folder.

    The router of a recipe that names a calibration is written to ``routers/`` there, so that the recipe can be replayed.

    Args:
        job: plan of the merge.
        options: command line options.
        tick: called with the number of merged modules and of all. An exception that it raises stops the merge and leaves no file.

    Raises:
        RecipeError: no module is left to merge, or the requested size cannot be reached.
        AdapterError: the output file cannot be written.
        ExportError: the file, read back, differs from the merge.
    """
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    merged = merge(job.adapters, job.recipe, device=device, routers=job.routers, tick=tick)
    origins = [source.origin for source in job.sources]
    export_adapter(merged, job.path, dialect=job.dialect, dtype=DTYPES[job.recipe.dtype], metadata=merge_metadata(job.recipe, origins))
    check = verify_export(job.path, merged)
    recipe = job.path.with_suffix(BESIDE[0])
    write_text(recipe, _recipe_text(job))
    return Written(
        merged=merged,
        check=check,
        recipe=recipe,
        card=write_card(_card(job, merged.base, options.base), job.path.parent, job.path.with_suffix(BESIDE[1]).name),
        report=merge_report(job.adapters, job.recipe, merged, device=device, routers=job.routers),
        curve=tuple(_curve(job, device)) if job.recipe.prune else (),
        router=next((save_router(router, job.path.parent / ROUTERS) for router in job.routers), None),
    )


def _recipe_text(job: MergePlan) -> str:
    """Returns the YAML text of the recipe, with the source names, the dialect and the source paths."""
    files = tuple(
        spec if spec.startswith(PREFIX) else os.path.relpath(source.file, job.path.parent)
        for spec, source in zip(job.specs, job.sources, strict=True)
    )
    setup = setup_of(job.dialect, [source.origin for source in job.sources], job.drawn_with)
    return job.recipe.to_yaml() + yaml.safe_dump({"setup": setup.data(files)}, sort_keys=False, allow_unicode=True, width=120)


def _card(job: MergePlan, family: str, base: str) -> ModelCard:
    origins = [source.origin for source in job.sources]
    demo = not base and all(spec.startswith(PREFIX) for spec in job.specs)
    return ModelCard(
        title=title(origins),
        file_name=job.path.name,
        base_model=base_name(base) if base or demo else "",
        method=job.recipe.method,
        sources=card_sources(job.recipe, origins),
        recipe=job.recipe.data(),
        prompt=", ".join(origin.trigger for origin in origins if origin.trigger),
        license=heritage_of(origins).licence,
        comfyui_only=job.dialect == "comfyui",
        demo=demo,
        family=FAMILIES[family].title if family in FAMILIES else "",
        drawn_with=job.drawn_with,
    )


def _curve(job: MergePlan, device: str) -> list[Pruned]:
    """Returns the savings at several shares of pruned energy, including the plan's own, before any other size bound is applied."""
    whole = merge(job.adapters, job.recipe.replaced(prune=0.0, target_mb=None, rank_energy=None), device=device, routers=job.routers)
    return prune_curve(whole, sorted({*_SHARES, job.recipe.prune}))
