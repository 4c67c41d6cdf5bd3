"""Export: writes the winner to ``best/``: LoRA file or model, recipe, model card, preview."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml
from PIL import Image
from torch import Tensor

from optimizer.adapters import Adapter
from optimizer.adapters.files.container import read_header
from optimizer.errors import AdapterError
from optimizer.export import (
    RECIPE_KEY,
    CardScore,
    ModelCard,
    Origin,
    base_name,
    card_sources,
    export_adapter,
    file_name,
    heritage_of,
    merge_metadata,
    next_free,
    setup_of,
    title,
    verify_export,
    write_card,
)
from optimizer.merging import DTYPES, ROUTERS, Recipe, save_router
from optimizer.merging.models import Blend, merge_record_text
from optimizer.search.config import parse_metrics
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.comparison import Confirmation, Contender
from optimizer.search.results.export_model import export_model
from optimizer.search.results.summary import SummaryInputs
from optimizer.search.sources.source import RouterLookup
from studies import StudyDirectory
from studies.atomic import replacing, write_text
from studies.records import told_numbers

_PREVIEW = 8


def export_winner(inputs: SummaryInputs, directory: StudyDirectory, router: RouterLookup | None = None) -> Path:
    """Writes ``best/`` and verifies the written files; returns the path of the LoRA file or of the model.

    A winner that was exported before is overwritten. A different winner gets a new file name, and the model card states which file it
    describes.

    Args:
        inputs: results of the run, with its confirmation.
        directory: study directory.
        router: returns the router that the winner's recipe may name, which is written beside it; None if the run has no routers.

    Raises:
        AdapterError: the file cannot be written, or a value does not fit its dtype.
        ExportError: the written file differs from the merge that was scored.
    """
    assert inputs.confirmation is not None
    winner = inputs.confirmation.winner
    assert winner.recipe is not None
    name = file_name([s.name for s in inputs.sources], winner.recipe.weights, winner.recipe.method, 1)
    if isinstance(winner.candidate, Adapter):
        path = _export_lora(inputs, winner.candidate, _place(directory.best, name, winner.recipe), winner.recipe)
        recipe = winner.recipe.to_yaml() + _setup_text(inputs)
        if winner.recipe.calibration and router:
            save_router(router(winner.recipe.calibration), directory.best / ROUTERS)
    else:
        assert isinstance(winner.candidate, Blend)
        path, recipe = export_model(winner.candidate, directory.best, name), merge_record_text(winner.candidate.job)
    write_text(directory.best / "recipe.yaml", recipe)
    write_card(_card(inputs, inputs.confirmation, path), directory.best)
    with replacing(directory.best / "preview.webp") as temporary:
        _preview(winner.images).save(temporary, lossless=True)
    return path


def _export_lora(inputs: SummaryInputs, merged: Adapter, path: Path, recipe: Recipe) -> Path:
    metadata = merge_metadata(recipe, _origins(inputs))
    export_adapter(merged, path, dialect=inputs.config.output.dialect, dtype=DTYPES[recipe.dtype], metadata=metadata)
    verify_export(path, merged)
    return path


def _setup_text(inputs: SummaryInputs) -> str:
    """Returns what the recipe file says besides the recipe: what the merge was judged with, if the base model alone does not tell."""
    if not inputs.drawn_with:
        return ""
    data = setup_of(inputs.config.output.dialect, _origins(inputs), inputs.drawn_with).data()
    return str(yaml.safe_dump({"setup": data}, sort_keys=False, allow_unicode=True, width=120))


def _place(folder: Path, name: str, recipe: Recipe) -> Path:
    """Returns the path of an earlier export of the recipe, else the first free version of the name."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if json.loads(read_header(path).metadata.get(RECIPE_KEY, "null")) == recipe.data():
                return path
        except (AdapterError, ValueError):  # incomplete, or written by other software
            continue
    return next_free(folder / name)


def _card(inputs: SummaryInputs, found: Confirmation, path: Path) -> ModelCard:
    winner = found.winner
    assert winner.recipe is not None
    rest = [c for c in found.contenders if c is not winner]
    texts = [p.text for p in sorted(inputs.prompts.prompts, key=lambda p: p.source is not None)]
    return ModelCard(
        title=title(_origins(inputs)),
        file_name=path.name,
        base_model="" if inputs.config.inputs.interpolates else base_name(inputs.config.inputs.base),
        kind="lora" if not inputs.config.inputs.whole else "folder" if path.is_dir() else "file",
        method=winner.recipe.method,
        sources=card_sources(winner.recipe, _origins(inputs)),
        scores=(_score("this model" if inputs.config.inputs.whole else "this file", winner), *(_score(c.label, c) for c in rest)),
        recipe=winner.recipe.data(),
        prompt=next(iter(texts), ""),
        license=heritage_of(_origins(inputs)).licence,
        comfyui_only=inputs.config.output.dialect == "comfyui",
        demo=inputs.config.inputs.demo,
        drawn_with=inputs.drawn_with,
        aims=tuple(_told_aims(inputs, winner)),
    )


def _told_aims(inputs: SummaryInputs, winner: Contender) -> Iterator[str]:
    """Yields what the user asked for, and what the exported merge has of it on the confirmation prompts, one sentence each."""
    aims = Aims.of(inputs.config.protocol, [source.name for source in inputs.sources])
    if aims.priorities:
        yield f"Priorities of the sources in the score: {told_numbers(aims.priorities)}."
    for name, share in aims.targets.items():
        yield f"At least {share:g} of {name}: it keeps {winner.each[name]:.3f}."
    for spec in parse_metrics(inputs.config.protocol.metric):
        value = winner.metrics[f"{spec.name}:value"]
        yield f"The metric {spec.name} ({spec.target}{', ' if spec.rule else ''}{spec.rule}): it has {value:.4g}."


def _origins(inputs: SummaryInputs) -> list[Origin]:
    return [source.origin for source in inputs.sources]


def _score(label: str, contender: Contender) -> CardScore:
    weakest = contender.weakest
    return CardScore(label, weakest.value, contender.each, contender.artifacts, (weakest.low, weakest.high))


def _preview(images: Tensor) -> Image.Image:
    """Returns the last pictures, which belong to the joint prompts, in one row; small ones are enlarged with nearest-neighbour sampling."""
    row = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in images[-_PREVIEW:]]
    width, height = row[0].size
    sheet = Image.new("RGB", (width * len(row), height))
    for index, picture in enumerate(row):
        sheet.paste(picture, (index * width, 0))
    factor = max(1, 192 // height)
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)
