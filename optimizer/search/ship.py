"""Shipping: the winner becomes ``best/``: LoRA file, recipe, model card, preview."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from torch import Tensor

from optimizer.adapters.container import read_header
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
    title,
    verify_export,
    write_card,
)
from optimizer.merging import DTYPES, Recipe
from optimizer.search.confirm import Confirmation, Contender
from optimizer.search.summarise import Story
from studies import StudyDirectory
from studies.atomic import replacing, write_text

_PREVIEW = 8


def ship(story: Story, directory: StudyDirectory) -> Path:
    """Write ``best/`` and check the file by reading it back; returns the LoRA file's path.

    A winner that was exported before is written over; another winner gets a name of its own, and the model card says which file it
    is about.

    Raises:
        AdapterError: the file cannot be written, or a value does not fit its dtype.
        ExportError: the file, read back, is not the merge that was scored.
    """
    assert story.confirmation is not None
    winner = story.confirmation.shipped
    assert winner.recipe is not None
    assert winner.merged is not None
    name = file_name([s.name for s in story.sources], winner.recipe.weights, winner.recipe.method, 1)
    path, metadata = _place(directory.best, name, winner.recipe), merge_metadata(winner.recipe, _origins(story))
    export_adapter(winner.merged, path, dialect=story.config.dialect, dtype=DTYPES[winner.recipe.dtype], metadata=metadata)
    verify_export(path, winner.merged)
    write_text(directory.best / "recipe.yaml", winner.recipe.to_yaml())
    write_card(_card(story, story.confirmation, path), directory.best)
    with replacing(directory.best / "preview.webp") as temporary:
        _preview(winner.images).save(temporary, lossless=True)
    return path


def _place(folder: Path, name: str, recipe: Recipe) -> Path:
    """Where the recipe was exported before, else the first free version of the name."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            if json.loads(read_header(path).metadata.get(RECIPE_KEY, "null")) == recipe.data():
                return path
        except (AdapterError, ValueError):  # torn, or not ours
            continue
    return next_free(folder / name)


def _card(story: Story, found: Confirmation, path: Path) -> ModelCard:
    winner = found.shipped
    assert winner.recipe is not None
    rest = [c for c in found.contenders if c is not winner]
    joint = next((p.text for p in story.prompts.prompts if p.source is None), "")
    return ModelCard(
        title=title(_origins(story)),
        file_name=path.name,
        base_model=base_name(story.config.base),
        method=winner.recipe.method,
        sources=card_sources(winner.recipe, _origins(story)),
        scores=(_score("this file", winner), *(_score(c.label, c) for c in rest)),
        recipe=winner.recipe.data(),
        prompt=joint,
        license=heritage_of(_origins(story)).licence,
        comfyui_only=story.config.dialect == "comfyui",
        demo=not story.config.base,
    )


def _origins(story: Story) -> list[Origin]:
    return [source.origin for source in story.sources]


def _score(label: str, contender: Contender) -> CardScore:
    weakest = contender.weakest
    return CardScore(label, weakest.value, contender.each, contender.artifacts, (weakest.low, weakest.high))


def _preview(images: Tensor) -> Image.Image:
    """The last pictures, those of the joint prompts, in one row; small ones enlarged without smoothing."""
    row = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in images[-_PREVIEW:]]
    width, height = row[0].size
    sheet = Image.new("RGB", (width * len(row), height))
    for index, picture in enumerate(row):
        sheet.paste(picture, (index * width, 0))
    factor = max(1, 192 // height)
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)
