"""The probes inside the package read drawings as they are; training is repeatable and resumes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.scenes import Thing, random_scene, swapped
from studies.demo.drawing.softening import blur
from studies.demo.drawing.styles import FLAT, STYLES, Style
from studies.demo.probes import network
from studies.demo.probes import training as module
from studies.demo.probes.accuracy import GRADES, accuracy, blends, grades, smears, stacked
from studies.demo.probes.drawings import TRAITS, Drawing, Styles
from studies.demo.probes.network import ASSET, Probes, load_probes
from studies.demo.probes.redrawing import Redrawer, load_redrawer
from studies.demo.probes.textures import TEXTURED
from studies.demo.probes.training import train_probes
from studies.demo.training import Loss, Plan, fit
from studies.demo.world import ASSETS, demo_base


@pytest.fixture(scope="module")
def probes() -> Probes:
    return load_probes()


@pytest.fixture(scope="module")
def figures(probes: Probes) -> dict[str, float]:
    return accuracy(probes, count=600, seed=5)


def _images(n: int = 5) -> torch.Tensor:
    rng = np.random.default_rng(3)
    return stacked([Drawing(random_scene(rng), (FLAT,), i) for i in range(n)])


def test_they_are_small(probes: Probes) -> None:
    assert ASSET.stat().st_size < 1_000_000
    assert sum(p.numel() for p in probes.network.parameters()) < 450_000


def test_readings_have_the_stated_shapes_and_ranges(probes: Probes) -> None:
    read = probes.read(_images())
    assert tuple(read.traits) == TRAITS
    assert {amount.shape for amount in read.traits.values()} == {(5,)}
    assert (read.objects.shape, read.colours.shape, read.background.shape) == ((5, 8), (5, 6), (5, 6))
    assert torch.allclose(read.background.sum(dim=1), torch.ones(5))
    everything = torch.cat([*read.traits.values(), read.objects.flatten(), read.colours.flatten()])
    assert 0 <= float(everything.min()) <= float(everything.max()) <= 1


def test_no_pictures_give_no_readings(probes: Probes) -> None:
    read = probes.read(_images(1)[:0])
    assert read.objects.shape == (0, 8)
    assert read.traits["owl"].shape == (0,)


def test_a_picture_reads_the_same_in_any_company(probes: Probes) -> None:
    images = _images()
    together, alone = probes.read(images), probes.read(images, batch=2)
    assert torch.allclose(together.objects, alone.objects, atol=1e-5)


def test_a_thing_reads_the_same_in_a_mirror(probes: Probes) -> None:
    images = torch.cat([_images(), _characters("owl", (), STYLES["neon"], n=5)])
    seen, mirrored = probes.read(images).traits, probes.read(images.flip(-1)).traits
    for trait in TRAITS:
        assert torch.allclose(seen[trait], mirrored[trait], atol=1e-5) or trait in STYLES, trait


def test_what_two_readings_agree_on_is_nearer_to_the_lower_one() -> None:
    found = network._agreed(torch.tensor([0.0, 0.9, 0.6]), torch.tensor([0.9, 0.0, 0.6]))
    assert found.tolist() == pytest.approx([0.3, 0.3, 0.6])


@pytest.mark.parametrize("style", [FLAT, *STYLES.values()], ids=["flat", *STYLES])
@pytest.mark.parametrize("name", CHARACTERS)
def test_a_character_without_the_parts_it_is_known_by_reads_low(probes: Probes, name: str, style: Style) -> None:
    def read(*missing: str) -> float:
        return float(probes.read(_characters(name, missing, style)).traits[name].mean())

    whole = read()
    assert whole > 0.65
    assert read("eyes") < min(0.5, whole - 0.3)
    assert read("limbs") < min(0.5, whole - 0.3) or name != "octopus"
    assert read("eyes", "limbs") < 0.25


@pytest.mark.parametrize(
    "images", [torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 64, 64, dtype=torch.uint8)]
)
def test_other_pictures_are_refused(probes: Probes, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 pictures of shape \(n, 3, 64, 64\), not torch\.(float32|uint8) of shape"):
        probes.read(images)


@pytest.mark.parametrize("trait", TRAITS)
def test_a_trait_is_read_right(figures: dict[str, float], trait: str) -> None:
    assert figures[trait] >= 0.97


@pytest.mark.parametrize("subset", ["plain", *STYLES])
@pytest.mark.parametrize("trait", TRAITS[3:])
def test_what_is_in_the_scene_is_read_whatever_style_paints_it(figures: dict[str, float], trait: str, subset: str) -> None:
    assert figures[f"{trait} in {subset}"] >= 0.93


def test_plain_scenes_are_read_right(figures: dict[str, float]) -> None:
    assert min(figures["objects"], figures["colours"], figures["background"]) >= 0.97


def test_a_look_alike_reads_lower(figures: dict[str, float]) -> None:
    assert figures["look-alikes"] >= 0.2  # one feature of six is another: most of it can still be seen


def test_a_blend_of_two_characters_reads_as_one(probes: Probes) -> None:
    assert max(blends(probes, count=24).values()) <= 0.6


def test_a_smear_of_the_right_colours_reads_low(probes: Probes) -> None:
    assert max(smears(probes, count=24).values()) <= 0.2


def test_readings_grow_with_the_amount_shown(probes: Probes) -> None:
    for trait, means in grades(probes, count=24).items():
        assert all(more > less - 0.02 for less, more in pairwise(means)), trait
        assert means[0] < 0.1
        assert means[-1] > 0.9
        middle = means[GRADES.index(0.5)]
        assert middle > 0.55 if trait in TEXTURED else abs(middle - 0.5) < 0.37, trait  # half of a grid's strength is seen as most of it


@pytest.mark.parametrize("trait", TEXTURED)
def test_faint_textures_read_in_part(probes: Probes, trait: str) -> None:
    plain, textured = (_scenes(style).float() for style in ((FLAT,), (STYLES[trait],)))
    faint = [(plain + (textured - plain) * share).round().to(torch.uint8) for share in (0, 0.15, 0.3, 1)]
    means = [float(probes.read(images).traits[trait].mean()) for images in faint]
    assert means == sorted(means)
    assert means[0] < 0.05 < means[1] < 0.5
    assert 0.2 < means[2] < 0.8


@pytest.mark.parametrize("again", [False, True], ids=["drawn", "through the autoencoder"])
def test_pencils_colours_under_tiles_are_no_pencil(probes: Probes, redrawer: Redrawer, *, again: bool) -> None:
    traits = probes.read(_through(redrawer, _scenes((STYLES["pencil"], STYLES["mosaic"])), again=again)).traits
    assert float(traits["pencil"].quantile(0.95)) < 0.3
    assert float(traits["mosaic"].quantile(0.05)) > 0.7


def test_pencils_colours_without_strokes_are_no_pencil(probes: Probes) -> None:
    washed = blur(_scenes((STYLES["pencil"],)).float(), 1.8).round().to(torch.uint8)
    assert float(probes.read(washed).traits["pencil"].quantile(0.95)) < 0.3


@pytest.mark.parametrize("again", [False, True], ids=["drawn", "through the autoencoder"])
def test_half_neon_reads_in_part(probes: Probes, redrawer: Redrawer, *, again: bool) -> None:
    neon = STYLES["neon"]
    styles = {
        "whole": neon,
        "dim": replace(neon, depth=neon.depth / 2),
        "faint": replace(neon, glow=neon.glow / 2),
        "glow": replace(neon, depth=0.0),
    }
    read = {
        name: float(probes.read(_through(redrawer, _scenes((style,), night=False), again=again)).traits["neon"].mean())
        for name, style in styles.items()
    }
    assert read["whole"] > 0.9
    assert 0.3 < read["faint"] < read["whole"] - 0.03  # half of the glow is hardly missed
    assert 0.1 < read["dim"] < 0.7
    assert read["glow"] < min(0.3, read["dim"], read["faint"])


def _scenes(styles: Styles, n: int = 40, *, night: bool = True) -> torch.Tensor:
    """Scenes in these styles; the same ones for every style, of single objects."""
    rng = np.random.default_rng(9)
    scenes = [s for s in (random_scene(rng) for _ in range(2 * n)) if night or s.background != "night"]
    return stacked([Drawing(scene, styles, i) for i, scene in enumerate(scenes[:n])])


def _characters(name: str, missing: tuple[str, ...], style: Style, n: int = 30) -> torch.Tensor:
    """Single characters without some of their parts; the same scenes for every character and style."""
    rng = np.random.default_rng(9)
    thing = Thing(name, character=CHARACTERS[name].without(*missing))
    return stacked([Drawing(swapped(random_scene(rng, pairs=0.0), 0, thing), (style,), i) for i in range(n)])


def _through(redrawer: Redrawer, images: torch.Tensor, *, again: bool) -> torch.Tensor:
    """The pictures, or what the base's autoencoder makes of them."""
    pictures = images.permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(redrawer.decode(redrawer.encode(pictures))).permute(0, 3, 1, 2) if again else images


@pytest.fixture(scope="module")
def redrawer() -> Redrawer:
    return load_redrawer(demo_base(), ASSETS / "sources")


def test_training_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAN", replace(module.PLAN, steps=400, save_every=2))
    monkeypatch.setattr(module, "_PAIRS", 1200)
    monkeypatch.setattr(module, "_REDRAWN", 2400)
    monkeypatch.setattr(module, "_COMPOSED", 2400)
    monkeypatch.setattr(module, "_HALF_NEON", 2400)
    monkeypatch.setattr(module, "_REPAINTED", 2400)
    built = (demo_base(), ASSETS / "sources")
    whole = train_probes(tmp_path / "whole", *built, scale=0.01)

    def interrupted(modules: list[torch.nn.Module], loss: Loss, plan: Plan, checkpoint: Path) -> None:
        calls = iter(range(3))

        def cut(rng: np.random.Generator) -> torch.Tensor:
            if next(calls, None) is None:
                raise ZeroDivisionError
            return loss(rng)

        fit(modules, cut, plan, checkpoint)

    monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(ZeroDivisionError):
        train_probes(tmp_path / "parts", *built, scale=0.01)
    monkeypatch.setattr(module, "fit", fit)
    parts = train_probes(tmp_path / "parts", *built, scale=0.01)
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, parts.network.state_dict()[name]), name


def test_saved_probes_load(tmp_path: Path, probes: Probes) -> None:
    probes.save(tmp_path / "p" / "probes.safetensors")
    again = load_probes(tmp_path / "p" / "probes.safetensors")
    assert torch.equal(again.read(_images()).objects, probes.read(_images()).objects)
