"""The demo world's tokenizer: whole caption words, short captions, and the files that diffusers and open_clip expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studies.demo.base_model.tokenizer import MAX_LENGTH, build_tokenizer, caption_words
from studies.demo.drawing.characters import CHARACTERS, random_character
from studies.demo.drawing.scenes import random_scene
from studies.demo.drawing.styles import STYLES, random_style


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_caption_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    assert {word: tokenizer.tokenize(word) for word in caption_words()} == {word: [f"{word}</w>"] for word in caption_words()}


def test_a_comma_is_one_token(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.tokenize("left, night") == ["left</w>", ",</w>", "night</w>"]


def test_descriptions_of_any_character_and_style_use_caption_words_only() -> None:
    rng = np.random.default_rng(0)
    texts = [c.describe() for c in CHARACTERS.values()] + [s.describe() for s in STYLES.values()]
    texts += [random_character(rng).describe() + ", " + random_style(rng).describe() for _ in range(200)]
    assert {word for text in texts for word in text.replace(",", " ").split()} <= set(caption_words())


def test_the_sources_names_are_no_words_of_the_base() -> None:
    assert not {*CHARACTERS, *STYLES, "hat"} & set(caption_words())


@pytest.mark.parametrize("word", [*CHARACTERS, *STYLES, "hat", "é", "日"])
def test_unknown_words_fall_into_known_pieces(tokenizer: CLIPTokenizer, word: str) -> None:
    pieces = tokenizer.tokenize(word)
    assert len(pieces) > 1
    assert tokenizer.unk_token not in pieces


def test_captions_fit_with_room_for_a_trigger(tokenizer: CLIPTokenizer) -> None:
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng) for _ in range(200)]
    captions = [s.caption() for s in scenes] + [s.caption(random_style(rng).describe()) for s in scenes]
    assert max(len(ids) for ids in tokenizer(captions).input_ids) <= 30


def test_ids_are_ordered_as_in_clip(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a red ball", padding="max_length").input_ids
    assert tokenizer.model_max_length == MAX_LENGTH == len(ids)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[4:]) == {tokenizer.eos_token_id} == {tokenizer.pad_token_id}


def test_builds_are_equal(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(12)]
    assert len({(build_tokenizer(f), (f / "tokenizer.json").read_bytes())[1] for f in files}) == 1


def test_a_pipeline_keeps_it(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    _pipeline(tokenizer).save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path).tokenizer
    assert isinstance(loaded, CLIPTokenizer)
    caption = "a red ball and a white house, night, robot"
    assert loaded(caption, padding="max_length").input_ids == tokenizer(caption, padding="max_length").input_ids
    assert loaded.get_vocab() == tokenizer.get_vocab()


def _pipeline(tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    return StableDiffusionPipeline(
        vae,
        CLIPTextModel(text),
        tokenizer,
        unet,
        DDIMScheduler(steps_offset=1, clip_sample=False),
        None,
        None,
        requires_safety_checker=False,
    )
