"""Triggers that files state, that their captions give away, and captions that give none away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from optimizer.adapters.files.trigger_words import LONGEST, Trigger, find_trigger

CAPTIONS = "the training captions"


def sd_scripts(folders: dict[str, tuple[int, dict[str, int]]], **more: Any) -> dict[str, str]:
    """Metadata as sd-scripts' ``train_network.py`` writes it: folder → (number of pictures, tag → number of captions)."""
    found = {
        "ss_tag_frequency": {name: tags for name, (_, tags) in folders.items() if tags},
        "ss_dataset_dirs": {name: {"n_repeats": 10, "img_count": pictures} for name, (pictures, _) in folders.items()},
        **more,
    }
    return {"ss_output_name": "x", "ss_keep_tokens": "1", **{key: json.dumps(value) for key, value in found.items()}}


def test_what_the_file_states_wins_over_its_captions() -> None:
    captions = sd_scripts({"10_ohwx woman": (20, {"ohwx woman": 20})})
    assert find_trigger(captions | {"modelspec.trigger_phrase": " zig "}) == Trigger("zig")
    assert find_trigger(captions) == Trigger("ohwx woman", CAPTIONS)
    assert find_trigger({}) == Trigger("")


@pytest.mark.parametrize(
    ("pictures", "tags", "folder", "trigger"),
    [
        # booru tags with the trigger first, and traits of the character in all captions
        (20, {"ohwx": 20, "1girl": 20, "solo": 19, "blue hair": 20, "smile": 4}, "10_img", "ohwx"),
        (20, {"1girl": 20, "ohwx": 20, "solo": 19}, "10_img", "ohwx"),
        (20, {"ohwx": 20, "dragon wings": 20, "1girl": 20}, "10_img", "ohwx"),
        (20, {"1girl": 20, "dragon wings": 20, "ohwx": 20}, "10_img", ""),  # which of the two is it?
        (20, {"1girl": 20, "dragon wings": 20, "ohwx": 20}, "10_OHWX girl", "OHWX"),  # the folder tells
        (20, {"ohwx": 12, "1girl": 20}, "10_img", ""),  # not in nearly all
        (20, {"ohwx": 12, "1girl": 20}, "10_ohwx", ""),  # the folder's words are no caption where there are captions
        (20, {"1girl": 20, "long hair": 20, "photo": 20, "looking at viewer": 20}, "10_img", ""),
        # sentences: a picture each, the instance token within them
        (12, {f"photo of ohwx woman in scene {i}": 1 for i in range(12)}, "10_ohwx woman", "ohwx woman"),
        (12, {f"photo of a person in scene {i}": 1 for i in range(12)}, "10_ohwx woman", ""),
        (1, {"a lighthouse keeper": 1}, "10_img", ""),  # one picture tells nothing
        # no caption files: the folder's words are the captions, in lower case
        (15, {"sks dog": 15}, "20_sks dog", "sks dog"),
        (15, {"Sks dog": 15}, "20_sks dog", "sks dog"),
        (15, {"woman": 15}, "20_woman", ""),
        (15, {}, "20_sks dog", "sks dog"),
        (15, {}, "20_dataset", ""),
        (15, {}, "pictures of summer", ""),
    ],
)
def test_captions_of_sd_scripts(pictures: int, tags: dict[str, int], folder: str, trigger: str) -> None:
    assert find_trigger(sd_scripts({folder: (pictures, tags)})).text == trigger


def test_folders_that_differ_have_no_common_trigger_and_regularisation_pictures_do_not_count() -> None:
    tags = {"ohwx": 20, "1girl": 20}
    assert find_trigger(sd_scripts({"5_ohwx face": (20, tags), "10_ohwx body": (20, tags)})).text == "ohwx"
    assert find_trigger(sd_scripts({"5_ohwx": (20, tags), "5_zig": (20, {"zig": 20, "1girl": 20})})).text == ""
    regular = {"5_ohwx woman": (20, {"ohwx woman": 20}), "1_woman": (200, {"woman": 200})}
    assert find_trigger(sd_scripts(regular)).text == ""
    assert find_trigger(sd_scripts(regular, ss_reg_dataset_dirs={"1_woman": {"n_repeats": 1, "img_count": 200}})).text == "ohwx woman"


def test_a_dataset_configuration_of_sd_scripts() -> None:
    """With ``--dataset_config`` folders have any name, and their words are ``class_tokens``."""
    subsets = [
        {"image_dir": "studio", "img_count": 15, "num_repeats": 10, "class_tokens": "ohwx man", "is_reg": False},
        {"image_dir": "men", "img_count": 100, "num_repeats": 1, "class_tokens": "man", "is_reg": True},
    ]
    metadata = sd_scripts({"studio": (15, {"ohwx man": 15})}, ss_datasets=[{"is_dreambooth": True, "subsets": subsets}])
    tags = json.loads(metadata["ss_tag_frequency"]) | {"men": {"man": 100}}
    assert find_trigger(metadata | {"ss_tag_frequency": json.dumps(tags)}) == Trigger("ohwx man", CAPTIONS)


def test_ai_toolkit_writes_its_trigger_as_a_folder() -> None:
    written = {"ss_base_model_version": "flux1", "ss_output_name": "x", "software": '{"name": "ai-toolkit"}'}
    assert find_trigger(written | {"ss_tag_frequency": '{"1_P3r5on": {"P3r5on": 1}}'}) == Trigger("P3r5on", CAPTIONS)


def test_onetrainer_and_comments_give_nothing_away() -> None:
    written = {"modelspec.title": "ohwx", "ot_branch": "master", "ot_revision": "abc", "ot_config": '{"concepts": [{"name": "ohwx"}]}'}
    assert find_trigger(written) == Trigger("")
    assert find_trigger({"ss_training_comment": "trigger: ohwx"}) == Trigger("")


def card(folder: Path, text: str, name: str = "pytorch_lora_weights.safetensors") -> Path:
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder / name


def test_the_card_of_diffusers(tmp_path: Path) -> None:
    front = "---\nbase_model: x\ninstance_prompt: {}\ntags: [lora]\n---\n# SDXL LoRA DreamBooth\n"
    file = card(tmp_path, front.format("a photo of sks dog"))
    assert find_trigger({}, file) == Trigger("sks dog", "the model card")
    assert find_trigger({}) == Trigger("")
    assert find_trigger({"trigger_word": "zig"}, file) == Trigger("zig")
    assert find_trigger({}, card(tmp_path, front.format("a photo of sks dog"), "hero.safetensors")) == Trigger(""), "a card of any file"
    assert find_trigger({}, card(tmp_path, front.format("None"))) == Trigger("")
    assert find_trigger({}, card(tmp_path, front.format("[1, 2]"))) == Trigger("")
    for text in (
        "",
        "---",
        "---\n[\n---\n",
        "---\n- a\n---\n",
        "# no front\n",
        "---\ndate: 2001-99-99\n---\n",
        "---\n" + "[" * 30_000 + "\n---\n",
    ):
        assert find_trigger({}, card(tmp_path, text)) == Trigger(""), text[:20]
    assert find_trigger({}, tmp_path / "nowhere" / "pytorch_lora_weights.safetensors") == Trigger("")


@pytest.mark.parametrize("key", ["ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs", "ss_datasets"])
@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "[]", "3", "null", '"a"', '{"a": 3}', '{"10_x y": {"b": "c"}}', "[" * 100_000, '{"a": {"b": 1e999}}', "1" * 5000),
        *('[{"subsets": 3}]', '[{"subsets": [3, {"is_reg": true}]}]', "[3]"),
        *('{"5_ohwx": {"ohwx": true}}', '{"5_ohwx": {"img_count": true}}'),
    ],
)
def test_malformed_metadata_give_no_trigger_and_no_error(key: str, text: str) -> None:
    good = sd_scripts({"10_img": (20, {"ohwx": 20, "1girl": 20})})
    assert find_trigger(good | {key: text}).text in ("", "ohwx", "x y")
    assert find_trigger({key: text}).text in ("", "x y", "ohwx")


def test_hostile_words_do_not_reach_prompts_or_terminals() -> None:
    hostile = "zig\x1b[31m\u202e\nzag\u200b"
    found = find_trigger(sd_scripts({"10_img": (20, {hostile: 20, "1girl": 20})})).text
    assert found == r"zig\[31m zag"
    assert find_trigger(sd_scripts({"10_img": (20, {"aira (series:9)": 20})})).text == r"aira \(series:9\)"
    assert find_trigger(sd_scripts({f"10_{'z' * (LONGEST + 1)}": (20, {})})).text == ""
    assert find_trigger(sd_scripts({f"10_{'z' * LONGEST}": (20, {})})).text == "z" * LONGEST


def test_huge_metadata_take_seconds_at_most() -> None:
    many = {f"{i}_folder{i}": (20, {f"tag {i} {j}": 20 for j in range(2000)}) for i in range(100)}
    metadata = sd_scripts(many)
    begun = time.perf_counter()
    assert find_trigger(metadata).text == ""
    assert time.perf_counter() - begun < 10
