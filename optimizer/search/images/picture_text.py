"""What a picture file says of itself: text chunks of a PNG file, as A1111 and ComfyUI show them."""

from __future__ import annotations

from collections.abc import Mapping

from PIL.PngImagePlugin import PngInfo

from optimizer.merging import Recipe
from optimizer.rendering import Prompt, RenderSettings

PARAMETERS, RECIPE = "parameters", "recipe"
"""Keys of the text chunks: the one that A1111 reads, and the recipe of the merge as YAML."""


def picture_text(
    prompt: Prompt, settings: RenderSettings, size: tuple[int, int], *, model: str, components: Mapping[str, float], recipe: Recipe | None
) -> PngInfo:
    """Returns the text chunks of one picture.

    Args:
        prompt: prompt and seed.
        settings: render settings, complete.
        size: width and height in pixels.
        model: name of the base model.
        components: name of each LoRA in the picture → its weight.
        recipe: recipe of the merge; None if the picture shows none.
    """
    found = PngInfo()
    found.add_text(PARAMETERS, parameters_text(prompt, settings, size, model=model, components=components))
    if recipe:
        found.add_text(RECIPE, recipe.to_yaml())
    return found


def parameters_text(prompt: Prompt, settings: RenderSettings, size: tuple[int, int], *, model: str, components: Mapping[str, float]) -> str:
    """Returns the generation parameters as A1111 writes them: prompt with LoRA tags, negative prompt, settings.

    The seed is that of this software, whose noise depends on the text, too, so that other programs draw something else from it.
    """
    tags = "".join(f" <lora:{name}:{weight:g}>" for name, weight in components.items())
    lines = [f"{prompt.text}{tags}"]
    lines += [f"Negative prompt: {settings.negative}"] if settings.negative else []
    facts = {
        "Steps": settings.steps,
        "Sampler": settings.scheduler,
        "CFG scale": settings.guidance,
        "Seed": prompt.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model": model,
    }
    return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items() if value not in (None, ""))])
