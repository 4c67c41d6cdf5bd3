"""How well the demo base draws what it is asked for, read off its pictures by the probes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS
from studies.demo.drawing.scenes import Scene, random_scene
from studies.demo.probes.network import Probes
from studies.demo.world import GUIDANCE, STEPS

_PROMPTS, _BATCH = 200, 20


@torch.no_grad()
def render(pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int) -> Tensor:
    """One picture a prompt at the demo world's own settings, uint8 (n, 3, 64, 64)."""
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(seed)
    chunks = []
    for start in range(0, len(prompts), _BATCH):
        part = list(prompts[start : start + _BATCH])
        images = pipeline(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise, output_type="pt").images
        chunks.append((images.clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(chunks)


def base_figures(pipeline: StableDiffusionPipeline, probes: Probes, count: int = _PROMPTS) -> dict[str, float]:
    """Shares of random prompts on which the probes read what was asked for.

    Returns:
        ``object``, ``colour`` and ``background`` on scenes of one thing, ``both objects`` on scenes of two different ones.
    """
    rng = np.random.default_rng(99)
    singles = [random_scene(rng, pairs=0.0) for _ in range(count)]
    pairs = [scene for scene in (random_scene(rng, pairs=1.0) for _ in range(count)) if len({t.name for t in scene.things}) == 2][
        : count // 2
    ]
    one = probes.read(render(pipeline, [s.caption() for s in singles], seed=1))
    two = probes.read(render(pipeline, [s.caption() for s in pairs], seed=2))
    names, colours, backgrounds = list(OBJECTS), list(COLOURS), list(BACKGROUNDS)
    both = [bool((two.objects[i].topk(2).indices.sort().values == _objects(s)).all()) for i, s in enumerate(pairs)]
    return {
        "object": _agreement(one.objects, [names.index(s.things[0].name) for s in singles]),
        "colour": _agreement(one.colours, [colours.index(s.things[0].colour) for s in singles]),
        "background": _agreement(one.background, [backgrounds.index(s.background) for s in singles]),
        "both objects": sum(both) / len(both),
    }


def _agreement(read: Tensor, asked: Sequence[int]) -> float:
    return float((read.argmax(dim=1) == torch.tensor(asked)).float().mean())


def _objects(scene: Scene) -> Tensor:
    return torch.tensor(sorted(list(OBJECTS).index(t.name) for t in scene.things))
