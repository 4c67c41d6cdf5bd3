"""The benchmark of the artifact level: its controls and its table."""

from __future__ import annotations

import pytest
import torch

from benchmarks.damage import DAMAGES, random_like
from benchmarks.shapes import random_adapter


def test_random_loras_are_as_strong_as_the_adapter_in_every_module_and_point_elsewhere() -> None:
    adapter = random_adapter("s", {"unet.a": (16, 8), "unet.b": (8, 8, 3, 3)}, 4, 0)
    one, again, other = random_like(adapter, 1), random_like(adapter, 1), random_like(adapter, 2)
    for path, factors in adapter.modules.items():
        drawn = one.modules[path]
        assert drawn.norm() == pytest.approx(factors.norm(), rel=1e-5)
        cosine = float((drawn.delta() * factors.delta()).sum()) / factors.norm() ** 2
        assert abs(cosine) < 0.5
        assert torch.equal(drawn.up, again.modules[path].up)
        assert not torch.equal(drawn.up, other.modules[path].up)


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_changes_pictures_and_keeps_their_shape(kind: str) -> None:
    images = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    damaged = DAMAGES[kind](images)
    assert (damaged.shape, damaged.dtype) == (images.shape, torch.uint8)
    assert not torch.equal(damaged, images)
