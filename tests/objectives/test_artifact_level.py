"""Artifact level: 0 for what base and sources show, more for every kind of damage, the more the stronger it is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.v2.functional as vision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import total_variation

from objectives import artifact_level, envelope, image_statistics

SIDE = 32


def drawings(count: int = 6, seed: int = 0, saturation: float = 1.0) -> Tensor:
    """A disc and a bar before a shaded background, uint8 (n, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    pictures = []
    for _ in range(count):
        back, disc, bar = torch.rand(3, 3, generator=generator) * 0.6 + 0.2
        cx, cy = (torch.rand(2, generator=generator) - 0.5).tolist()
        picture = back[:, None, None] * (1 + 0.2 * y)
        picture = torch.where(((x - cx) ** 2 + (y - cy) ** 2 < 0.2), disc[:, None, None], picture)
        picture = torch.where((x + cy).abs() < 0.15, bar[:, None, None], picture)
        grey = picture.mean(dim=0, keepdim=True)
        pictures.append(grey + saturation * (picture - grey))
    return quantised(torch.stack(pictures))


def quantised(floats: Tensor) -> Tensor:
    return (floats.clamp(0, 1) * 255).round().to(torch.uint8)


REFERENCES = [drawings(), drawings(saturation=0.6), drawings(saturation=1.2)]
GRAIN = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
DAMAGES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "noise": lambda x, much: x + 0.4 * much * GRAIN,
    "blur": lambda x, much: vision.gaussian_blur(x, [15, 15], [0.3 + 3 * much] * 2),
    "flat grey": lambda x, much: x + much * (0.5 - x),
    "burned contrast": lambda x, much: 0.5 + (1 + 4 * much) * (x - 0.5),
    "saturation": lambda x, much: x.mean(dim=1, keepdim=True) + (1 + 4 * much) * (x - x.mean(dim=1, keepdim=True)),
    "no colour": lambda x, much: x + much * (x.mean(dim=1, keepdim=True) - x),
    "too dark": lambda x, much: x * (1 - much),
}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_references_themselves_show_none(index: int) -> None:
    level, parts = artifact_level(REFERENCES[index], envelope(REFERENCES))
    assert level == 0
    assert set(parts.values()) == {0.0}


def test_what_lies_between_the_references_shows_none_or_little() -> None:
    level, _ = artifact_level(drawings(saturation=0.9), envelope(REFERENCES))
    assert level < 0.1


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_grows_with_damage(damage: str) -> None:
    floats = REFERENCES[0].float() / 255
    levels = [artifact_level(quantised(DAMAGES[damage](floats, much)), envelope(REFERENCES))[0] for much in (0.4, 0.6, 0.8, 1.0)]
    assert levels == sorted(levels)
    assert levels[-1] > levels[0]
    assert levels[-1] > 0.5, "beyond what the score allows"


@pytest.mark.parametrize(
    ("damage", "part"),
    [("noise", "detail"), ("blur", "sharpness"), ("burned contrast", "clipped"), ("no colour", "saturation"), ("too dark", "flat")],
)
def test_the_parts_say_what_is_wrong(damage: str, part: str) -> None:
    floats = REFERENCES[0].float() / 255
    _, parts = artifact_level(quantised(DAMAGES[damage](floats, 1.0)), envelope(REFERENCES))
    assert parts[part] >= 1


def test_a_picture_that_was_flat_before_is_no_artifact() -> None:
    flat = torch.full((2, 3, 8, 8), 90, dtype=torch.uint8)
    assert artifact_level(flat, envelope([flat, flat]))[0] == 0


@settings(deadline=None)
@given(st.permutations(range(6)), st.sampled_from(sorted(DAMAGES)))
def test_the_order_of_prompts_does_not_matter(order: list[int], damage: str) -> None:
    images = quantised(DAMAGES[damage](REFERENCES[0].float() / 255, 0.5))
    level, parts = artifact_level(images, envelope(REFERENCES))
    moved, moved_parts = artifact_level(images[order], envelope([images[order] for images in REFERENCES]))
    assert moved == pytest.approx(level, abs=1e-5)
    assert moved_parts == pytest.approx(parts, abs=1e-5)


def test_one_bad_picture_counts_for_its_share() -> None:
    images = REFERENCES[0].clone()
    images[2] = 128
    level, parts = artifact_level(images, envelope(REFERENCES))
    assert parts["flat"] == pytest.approx(1 / 6)
    assert level > 1 / 6


def test_a_picture_is_compared_with_its_own_prompts() -> None:
    assert artifact_level(REFERENCES[0].flip(0), envelope(REFERENCES))[0] > 0


def test_statistics_of_known_pictures() -> None:
    black_and_white = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    black_and_white[..., 4:] = 255
    grey = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200
    found = image_statistics(torch.cat([black_and_white, grey, red]))
    assert found["clipped"].tolist() == pytest.approx([1, 0, 2 / 3])
    assert found["saturation"].tolist() == pytest.approx([0, 0, 200 / 255])
    assert found["entropy"].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert found["contrast"].tolist() == pytest.approx([0.5 * math.sqrt(64 / 63), 0, 0], abs=1e-4)
    assert found["variation"].tolist() == pytest.approx([8 / 64, 0, 0], abs=1e-6)
    assert found["detail"].tolist() == pytest.approx([2 / 6, 0, 0], abs=1e-6)
    assert found["sharpness"].tolist() == pytest.approx([(2 / 6) / (1 / 7 + 0.005), 0, 0], abs=1e-4)


def test_references_of_different_styles_do_not_hide_what_is_between_them() -> None:
    """The unit of distance is the spread within one picture set, however far apart the sets are."""
    near, far = envelope([REFERENCES[0]] * 3), envelope([REFERENCES[0], REFERENCES[0] // 4])
    assert far.spread["contrast"] < near.spread["contrast"]


def test_another_number_of_pictures() -> None:
    with pytest.raises(ValueError, match=r"^1 pictures do not match an envelope of 6$"):
        artifact_level(REFERENCES[0][:1], envelope(REFERENCES))


def test_the_variation_is_that_of_torchmetrics() -> None:
    expected = total_variation(REFERENCES[0].float() / 255, reduction="none") / (3 * SIDE * SIDE)
    torch.testing.assert_close(image_statistics(REFERENCES[0])["variation"], expected, rtol=0, atol=0)
