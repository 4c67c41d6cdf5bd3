"""What the sources add, and drawings that are drawn again: against the software's own loader and diffusers' own pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from optimizer.adapters import live_modules, load_adapter
from optimizer.rendering.pipeline_class import models_of
from studies.demo.probes.redrawing import Noise, Redrawer, load_redrawer
from studies.demo.probes.source_deltas import active
from studies.demo.world import ASSETS, GUIDANCE, STEPS, demo_base, demo_sources

PROMPTS = ["a red ball, left, night", "inko, middle, beach"]


@pytest.fixture(scope="module")
def redrawer() -> Redrawer:
    return load_redrawer(demo_base(), ASSETS / "sources")


def test_what_a_source_adds_is_what_the_loader_reads(redrawer: Redrawer) -> None:
    modules = live_modules(models_of(redrawer.pipeline))
    for name, source in demo_sources().items():
        adapter = load_adapter(source.path)
        assert len(adapter.modules) == len(redrawer.deltas[name])
        for path, factors in adapter.modules.items():
            weight = modules[path].weight
            assert isinstance(weight, nn.Parameter)
            assert torch.allclose(redrawer.deltas[name][weight], factors.delta().reshape(weight.shape), atol=1e-6), path


def test_sources_are_added_and_taken_away(redrawer: Redrawer) -> None:
    weights = list(redrawer.pipeline.unet.parameters())
    before = [w.detach().clone() for w in weights]
    changed = next(iter(redrawer.deltas["owl"]))
    plain = changed.detach().clone()
    with active({"owl": 0.5, "neon": 2.0}, redrawer.deltas):
        wanted = plain + 0.5 * redrawer.deltas["owl"][changed] + 2.0 * redrawer.deltas["neon"].get(changed, torch.zeros(()))
        assert torch.allclose(changed, wanted)
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


@torch.no_grad()
def test_all_steps_draw_what_the_pipeline_draws(redrawer: Redrawer) -> None:
    noise = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(8))
    found = redrawer.redraw(torch.zeros(2, 4, 16, 16), PROMPTS, Noise(STEPS, STEPS, 8), {})
    wanted = redrawer.pipeline(PROMPTS, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=noise, output_type="latent").images
    assert torch.allclose(found, wanted, atol=1e-3)


def test_less_noise_keeps_more(redrawer: Redrawer) -> None:
    latents = redrawer.redraw(torch.zeros(2, 4, 16, 16), PROMPTS, Noise(STEPS, STEPS, 8), {})
    changes = [float((redrawer.redraw(latents, PROMPTS, Noise(steps, 20, 1), {}) - latents).abs().mean()) for steps in (1, 3, 12)]
    assert changes == sorted(changes)


def test_a_composition_of_one_source_is_that_source(redrawer: Redrawer) -> None:
    start, noise = torch.zeros(2, 4, 16, 16), Noise(STEPS, STEPS, 8)
    alone, composed = (draw(start, PROMPTS, noise, {"octopus": 1.0}) for draw in (redrawer.redraw, redrawer.redraw_composed))
    assert torch.allclose(alone, composed, atol=1e-4)
    none = redrawer.redraw_composed(start, PROMPTS, noise, {"octopus": 0.0})
    assert torch.allclose(none, redrawer.redraw(start, PROMPTS, noise, {}), atol=1e-4)


def test_pictures_go_through_the_autoencoder_and_come_back_alike(redrawer: Redrawer) -> None:
    pictures = redrawer.decode(redrawer.redraw(torch.zeros(2, 4, 16, 16), PROMPTS, Noise(STEPS, STEPS, 8), {}))
    again = redrawer.decode(redrawer.encode(pictures))
    assert again.dtype == np.uint8
    assert np.abs(again.astype(int) - pictures.astype(int)).mean() < 12
