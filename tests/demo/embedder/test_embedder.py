"""The embedder is an OpenCLIP model that sees styles, characters and objects it was never shown, by degrees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer

from studies.demo.base_model.tokenizer import MAX_LENGTH, build_tokenizer, caption_words
from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.draw import draw
from studies.demo.drawing.scenes import Scene, Thing, random_scene
from studies.demo.drawing.styles import FLAT, STYLES, Style
from studies.demo.embedder import training as module
from studies.demo.embedder.accuracy import embedder_figures
from studies.demo.embedder.pictures import CLASSES, PARTS, Captioned, caption, draw_groups
from studies.demo.embedder.training import ASSET, train_embedder
from studies.demo.probes.drawings import TRAITS


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return embedder_figures(ASSET, count=80)


def test_it_loads_through_open_clip() -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{ASSET}", require_pretrained=True)
    words = open_clip.get_tokenizer(f"local-dir:{ASSET}")
    picture = draw(random_scene(np.random.default_rng(0)), rng=np.random.default_rng(0))
    image = preprocess(Image.fromarray(np.round(picture * 255).astype(np.uint8)))
    assert image.shape == (3, 64, 64)
    assert -1 <= float(image.min()) < 0 < float(image.max()) <= 1
    seen, said = model.eval().encode_image(image[None]), model.encode_text(words(["a red ball, left, night"]))
    assert seen.shape == said.shape == (1, 128)


def test_it_is_small() -> None:
    assert sum(f.stat().st_size for f in ASSET.iterdir()) < 8_000_000


def test_its_words_are_the_worlds(tmp_path: Path) -> None:
    ours, its = build_tokenizer(tmp_path), CLIPTokenizer.from_pretrained(ASSET)
    words = [*caption_words(), ",", "<|startoftext|>", "<|endoftext|>"]
    assert its(words).input_ids == ours(words).input_ids
    assert set(its.get_vocab()) == set(ours.get_vocab())


def test_its_configuration_is_the_one_that_is_trained() -> None:
    config = json.loads((ASSET / "open_clip_config.json").read_text(encoding="utf-8"))
    assert config == module._config(config["model_cfg"]["text_cfg"]["vocab_size"])


def test_it_names_styles_and_characters_never_seen(figures: dict[str, float]) -> None:
    assert figures["styles of 20"] > 0.7  # by chance 0.05
    assert figures["characters of 20"] > 0.4  # most differ in small parts only


def test_a_character_is_still_seen_in_a_style(figures: dict[str, float]) -> None:
    assert figures["character in a style"] > 0.2  # 1 would be all of what is seen of it in a plain picture


@pytest.mark.parametrize("trait", TRAITS)
def test_the_sources_traits_stand_apart(figures: dict[str, float], trait: str) -> None:
    assert figures[trait] >= 0.95


@pytest.mark.parametrize("trait", TRAITS)
def test_the_projection_grows_with_the_amount_shown(figures: dict[str, float], trait: str) -> None:
    assert figures[f"{trait} growth"] == 1
    assert 0.15 < figures[f"{trait} halfway"] < 0.85


def test_no_trait_of_a_source_is_in_its_pictures() -> None:
    groups = draw_groups(60, seed=1)
    style, creature = PARTS.index("style"), PARTS.index("creature")
    texts = {str(text) for part in (style, creature) for text in np.unique(groups.parts[:, :, part])}
    assert not texts & {s.describe() for s in STYLES.values()}
    assert not texts & {c.describe() for c in CHARACTERS.values()}
    assert not any("tiles" in text or "hatch" in text for text in texts)


def test_groups_differ_in_one_respect() -> None:
    groups = draw_groups(40, seed=2)
    assert {PARTS[k] for k in groups.key} == {"style", "creature", "objects", "worn"}
    for parts, key in zip(groups.parts, groups.key, strict=True):
        if PARTS[key] == "style":
            assert len(np.unique(np.delete(parts, key, axis=1), axis=0)) == 1
        else:
            assert len(np.unique(parts[:, PARTS.index("style")])) == 1


def test_captions_say_what_their_group_differs_in_and_fit(tmp_path: Path) -> None:
    groups, rng, words = draw_groups(40, seed=3), np.random.default_rng(0), build_tokenizer(tmp_path)
    for parts, key in zip(groups.parts, groups.key, strict=True):
        for picture in parts:
            text = caption(picture, int(key), rng)
            assert str(picture[key]) in text
            assert text
            assert len(words(text).input_ids) <= MAX_LENGTH - 2


def test_captions_vary() -> None:
    rng = np.random.default_rng(0)
    parts = Captioned(Scene((Thing("ball", "red"),), "night", "left"), Style(fill="pastel"), 0).parts()
    texts = {caption(parts, PARTS.index("objects"), rng) for _ in range(100)}
    assert len(texts) == 8
    assert {"a red ball", "a red ball, left, night, drawn in pastel fill, own outline, none texture"} <= texts


def test_facts_of_a_picture() -> None:
    scene = Scene((Thing("creature", character=CHARACTERS["owl"]), Thing("cup", "blue")), "snow")
    plain, dark = Captioned(scene, FLAT, 0), Captioned(scene, Style(fill="dark"), 0)
    facts = {key: names[v] if v >= 0 else None for (key, names), v in zip(CLASSES.items(), plain.classes(), strict=True)}
    assert facts | {"place": None, "body": "egg", "fill": "flat", "accessory": "nothing", "background": "snow"} == facts
    assert plain.held().sum() == 2
    assert np.isfinite(plain.tints()[:6]).all()
    assert np.isnan(plain.tints()[6:]).all()
    assert np.isnan(dark.tints()).all()


def test_training_writes_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAN", replace(module.PLAN, steps=200))
    monkeypatch.setattr(module, "_GROUPS", 3000)
    folder = train_embedder(tmp_path, scale=0.01)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert {p.name for p in folder.iterdir()} == {p.name for p in ASSET.iterdir()}
