"""What ``optimize merge --kind model`` prints for people and for machines."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from optimizer.jobs.model_merge_write import WrittenModel
from optimizer.merging.models import Job

_LISTED = 10


def model_merge_facts(job: Job, found: WrittenModel) -> dict[str, Any]:
    """Everything about a merge of models, as JSON-ready data."""
    return found.facts | {"file" if job.models[0].suffix else "folder": str(found.place)}


def print_model_merge(job: Job, found: WrittenModel, console: Console) -> None:
    """What was merged and how, what was not, and where the model is."""
    names = ", ".join(entry["name"] for entry in found.facts["models"])
    how = f"{job.formula} at α = {job.alpha:g}" if job.formula else _method(found.facts)
    console.print(f"{names}: {how}, {found.tensors} tensors", soft_wrap=True, markup=False)
    for line in found.apart[:_LISTED]:
        console.print(f"not merged: {line}", soft_wrap=True, markup=False)
    if len(found.apart) > _LISTED:
        console.print(f"not merged: {len(found.apart) - _LISTED} more, see {found.record.name}", soft_wrap=True, markup=False)
    console.print(f"model   {found.place}", soft_wrap=True, markup=False)


def _method(facts: dict[str, Any]) -> str:
    weights = " : ".join(f"{weight:g}" for weight in facts["recipe"]["weights"])
    return f"{facts['method']} at {weights}" + (f" over {facts['base']['name']}" if "base" in facts else "")
