"""Training: a run that is stopped and resumed ends where an uninterrupted one ends; latents are standardised exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from studies.demo.base_model.vae import new_vae, standardise
from studies.demo.training import Plan, fit, to_pixels, to_tensor

PLAN = Plan(steps=12, rate=1e-2, seed=3, save_every=4)


class _PowerCut(Exception):
    pass


def _model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def _train(path: Path, cut_at: int | None = None, plan: Plan = PLAN) -> nn.Linear:
    model, steps = _model(), 0

    def loss(rng: np.random.Generator) -> Tensor:
        nonlocal steps
        steps += 1
        if cut_at is not None and steps > cut_at:
            raise _PowerCut
        batch = torch.from_numpy(rng.normal(size=(4, 3))).float()
        found: Tensor = model(batch + 0.1 * torch.randn_like(batch))
        return (found - 1).square().mean()

    fit([model], loss, plan, path)
    return model


def test_resumed_run_equals_uninterrupted_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _train(tmp_path / "whole.pt")
    with pytest.raises(_PowerCut):
        _train(tmp_path / "cut.pt", cut_at=6)
    resumed = _train(tmp_path / "cut.pt")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    assert "cut: step 12/12" in capsys.readouterr().out


def test_finished_run_is_only_loaded(tmp_path: Path) -> None:
    first = _train(tmp_path / "run.pt")
    again = _train(tmp_path / "run.pt", cut_at=0)
    assert torch.equal(first.weight, again.weight)


def test_a_checkpoint_of_another_plan_is_refused(tmp_path: Path) -> None:
    _train(tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run with another plan .*'steps': 12.* — delete the file to train afresh"):
        _train(tmp_path / "run.pt", plan=replace(PLAN, steps=20))


def test_pictures_survive_the_way_to_tensors_and_back() -> None:
    pictures = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    assert np.allclose(to_pixels(to_tensor(pictures)), pictures, atol=1e-6)
    assert to_tensor((pictures * 255).round().astype(np.uint8)).shape == (2, 3, 64, 64)


def test_standardise_changes_latents_and_not_pictures() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval()
    images = torch.rand(8, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mean).sample
        standardise(vae, images)
        latents = vae.encode(images).latent_dist.mean
        after = vae.decode(latents).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
