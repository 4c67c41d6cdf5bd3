"""How plainly the mosaic's grid and the pencil's strokes show: in full where they are drawn, less where they fade, not at all elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from studies.demo.drawing.palette import COLOURS
from studies.demo.drawing.scenes import Scene, Thing
from studies.demo.drawing.softening import blur
from studies.demo.drawing.styles import FLAT, STYLES, Style, random_style
from studies.demo.probes.accuracy import stacked
from studies.demo.probes.drawings import Drawing, Styles
from studies.demo.probes.textures import TEXTURED, amplitudes, visible

BALL = Drawing(Scene((Thing("ball", "red"),), "meadow"), (FLAT,), 3)
MOSAIC, PENCIL = (STYLES[name] for name in TEXTURED)


def _images(*styles: Styles, drawing: Drawing = BALL) -> torch.Tensor:
    return stacked([replace(drawing, styles=s) for s in styles]).float() / 127.5 - 1


@pytest.mark.parametrize(
    ("styles", "mosaic", "pencil"),
    [
        ((FLAT,), 0, 0),
        ((STYLES["neon"],), 0, 0),
        ((MOSAIC,), 1, 0),
        ((MOSAIC, PENCIL), 1, 1),
        ((PENCIL, MOSAIC), 1, 0),
        ((STYLES["neon"], PENCIL), None, 1),
        ((PENCIL,), None, 1),
    ],
)
def test_a_texture_shows_where_it_is_on_top(styles: Styles, mosaic: float | None, pencil: float) -> None:
    seen = visible(_images(styles))[0].tolist()
    for name, amount, wanted in zip(TEXTURED, seen, (mosaic, pencil), strict=True):
        assert wanted is None or amount == pytest.approx(wanted, abs=0.25), name


@pytest.mark.parametrize("name", TEXTURED)
def test_it_shows_less_the_fainter_it_is(name: str) -> None:
    column = TEXTURED.index(name)
    plain, textured = _images((FLAT,), (STYLES[name],))
    faded = visible(torch.stack([plain + (textured - plain) * share for share in (0, 0.1, 0.2, 0.4, 1)]))[:, column].tolist()
    assert faded == sorted(faded)
    assert faded[0] < 0.25 < faded[2] < 1
    blurred = visible(torch.cat([blur(textured[None], sigma) for sigma in (0.4, 0.8, 1.2, 2.5)]))[:, column].tolist()
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] > 0.8
    assert blurred[-1] < 0.3


def test_strokes_hardly_show_at_night() -> None:
    balls = [replace(BALL, scene=Scene((Thing("ball", colour),), place)) for place in ("meadow", "night") for colour in COLOURS]
    by_day, by_night = torch.cat([visible(_images((PENCIL,), drawing=d)) for d in balls])[:, 1].chunk(2)
    assert float(by_night.mean()) < float(by_day.mean())


def test_it_does_not_matter_where_the_texture_begins() -> None:
    images = _images((MOSAIC,), (PENCIL,))
    moved = images.roll((1, 2), dims=(2, 3))
    assert torch.allclose(visible(images).diagonal(), visible(moved).diagonal(), atol=0.05)


def test_amplitudes_are_those_of_waves_of_four_pixels() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [torch.cos(torch.pi / 2 * phase) for phase in (y, x, x + y, x - y)]
    found = amplitudes(torch.stack([0.4 * wave.expand(3, -1, -1) for wave in waves]))[..., 32, 32]
    assert torch.allclose(found.diagonal(), torch.full((4,), 0.2), atol=0.02)
    assert float((found - torch.diag(found.diagonal())).max()) < 0.02


def test_other_textures_mostly_do_not_look_like_them() -> None:
    rng = np.random.default_rng(0)
    others: list[Styles] = [*((random_style(rng),) for _ in range(60)), (Style(texture="dots", pitch=0.1),)]
    assert float(visible(_images(*others)).mean()) < 0.5
