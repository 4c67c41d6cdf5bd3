"""Softening keeps shape and range, blurs, and repeats itself for the same generator."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from studies.demo.drawing.softening import blur, smear, soften


def _noise(n: int = 20) -> torch.Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_shape_range_and_repeatability() -> None:
    images = _noise()
    torch.manual_seed(1)
    first = soften(images, np.random.default_rng(1))
    torch.manual_seed(1)
    second = soften(images, np.random.default_rng(1))
    assert first.shape == images.shape
    assert first.abs().max() <= 1
    assert torch.equal(first, second)
    assert not torch.equal(first, images)


def test_a_smeared_picture_keeps_shape_range_and_mean_brightness() -> None:
    images, rng = _noise(), np.random.default_rng(2)
    smeared = [smear(images, rng) for _ in range(6)]
    for result in smeared:
        assert result.shape == images.shape
        assert result.abs().max() <= 1
        assert torch.allclose(result.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=0.02)
    assert not any(torch.equal(a, b) for a, b in pairwise(smeared))


def test_smearing_leaves_a_grey_picture_grey() -> None:
    grey = torch.full((8, 3, 64, 64), 0.25)
    assert torch.allclose(smear(grey, np.random.default_rng(0)), grey, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.4, 0.8, 1.0, 1.6])
def test_blur_is_a_gaussian_filter(sigma: float) -> None:
    images, size = _noise(2), 2 * max(3, math.ceil(3 * sigma)) + 1
    inside = (..., slice(5, -5), slice(5, -5))
    assert torch.allclose(blur(images, sigma)[inside], gaussian_blur(images, [size, size], [sigma, sigma])[inside], atol=1e-5)


def test_an_even_picture_stays_even() -> None:
    torch.manual_seed(0)
    grey = torch.full((8, 3, 64, 64), 0.25)
    rng = np.random.default_rng(3)
    spread = min(float(soften(grey, rng).std(dim=(1, 2, 3)).mean()) for _ in range(6))
    assert spread < 0.06
