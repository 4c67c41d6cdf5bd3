"""Damaged pictures: only where and as far as is said."""

from __future__ import annotations

import numpy as np
import torch

from studies.demo.drawing.damage import changed_region, damage, recolour, warp
from studies.demo.drawing.scenes import Scene, Thing
from studies.demo.drawing.styles import FLAT
from studies.demo.probes.accuracy import stacked
from studies.demo.probes.drawings import TRAITS, Drawing


def _drawings(n: int = 8) -> torch.Tensor:
    drawings = [Drawing(Scene((Thing("ball", "red"),), "meadow"), (FLAT,), seed) for seed in range(n)]
    return stacked(drawings).float() / 127.5 - 1


def _centre() -> torch.Tensor:
    region = torch.zeros(8, 1, 64, 64)
    region[..., 20:44, 20:44] = 1
    return region


def test_no_damage_leaves_everything() -> None:
    images = _drawings()
    same, left = damage(images, _centre(), np.random.default_rng(0), share=0)
    assert torch.equal(same, images)
    assert torch.equal(left, torch.ones(8, len(TRAITS)))


def test_damage_stays_in_its_region_and_costs_textures_more_than_things() -> None:
    images, region = _drawings(), _centre()
    for seed in range(12):
        worse, left = damage(images, region, np.random.default_rng(seed), share=1)
        outside = (region == 0).expand_as(images)
        assert torch.equal(worse[outside], images[outside])
        assert not torch.equal(worse, images)
        assert worse.abs().max() <= 1
        assert ((left > 0) & (left < 1)).all()
        hat, robot, neon = (left[0, TRAITS.index(name)] for name in ("hat", "robot", "neon"))
        assert hat < robot < neon


def test_a_picture_that_is_not_bent_is_the_same() -> None:
    images = _drawings()
    assert torch.allclose(warp(images, 0, np.random.default_rng(0)), images, atol=1e-4)
    moved = [float((warp(images, spread, np.random.default_rng(0)) - images).abs().mean()) for spread in (0.5, 2, 6)]
    assert moved == sorted(moved)


def test_new_colours_stay_in_the_region_and_come_for_a_share_of_the_pictures() -> None:
    images, region = _drawings(), _centre()
    changed = recolour(images, region, np.random.default_rng(1), share=0.5)
    outside = (region == 0).expand_as(images)
    assert torch.equal(changed[outside], images[outside])
    assert 0 < sum(not torch.equal(a, b) for a, b in zip(changed, images, strict=True)) < 8
    assert torch.equal(recolour(images, region, np.random.default_rng(1), share=0), images)


def test_what_differs_between_two_pictures_is_in_the_region() -> None:
    images = _drawings(1)
    other = images.clone()
    other[..., 30:34, 30:34] *= -1
    region = changed_region(images, other)
    assert region[..., 30:34, 30:34].min() > 0.9
    assert region[..., :20, :].max() == 0
    assert changed_region(images, images).max() == 0
