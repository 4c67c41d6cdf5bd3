"""Sources and words: roles, triggers and names, and what cannot be merged with each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from optimizer.adapters import BaseWeights
from optimizer.adapters.names.targets import Target
from optimizer.errors import AdapterError, UsageError
from optimizer.rendering import GENERAL
from optimizer.search.config import Config, Inputs
from optimizer.search.evaluation.prompt_file import read_words
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, search_prompts, words_of
from optimizer.search.sources.loras import LoraEnsemble, load_loras, remarks
from studies.demo import world
from tests.files import edited, kohya_file, kohya_name, random_parts
from tests.studio import Studio

Q, K = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def made(folder: Path, name: str, shapes: Mapping[str, tuple[int, ...]] | None = None, seed: int = 0, **metadata: str) -> str:
    folder.mkdir(exist_ok=True)
    parts = random_parts(shapes or {Q: (24, 24)}, seed=seed)
    return str(kohya_file(folder / f"{name}.safetensors", parts, metadata=metadata or None).path)


def config(*sources: str, **options: object) -> Config:
    return Config.of(sources=sources, base="sd", **options)


def inputs(*sources: str, **options: object) -> Inputs:
    return config(*sources, **options).inputs


def test_role_and_trigger_come_from_the_file_unless_given(tmp_path: Path) -> None:
    tags = {"modelspec.tags": "anime, Style", "modelspec.trigger_phrase": " zig "}
    a, b, c = (
        made(tmp_path, "a", None, 1, **tags),
        made(tmp_path, "b", None, 2, **{"modelspec.tags": "person"}),
        made(tmp_path, "c", None, 3),
    )
    found = [s.subject for s in load_loras(inputs(a, b, c))]
    assert [(s.name, s.role, s.trigger) for s in found] == [("a", "style", "zig"), ("b", "character", ""), ("c", "concept", "")]
    given = load_loras(inputs(a, b, c, roles=("concept", "style", "character"), triggers=("", "x", "y")))
    assert [(s.subject.role, s.subject.trigger) for s in given] == [("concept", ""), ("style", "x"), ("character", "y")]


def test_a_trigger_from_the_captions_is_a_guess_and_told(tmp_path: Path) -> None:
    captions = {"ss_tag_frequency": '{"10_ohwx woman": {"ohwx woman": 12}}', "ss_dataset_dirs": '{"10_ohwx woman": {"img_count": 12}}'}
    hero, plain = made(tmp_path, "hero", None, 1, **captions), made(tmp_path, "plain", None, 2)
    found = LoraEnsemble(load_loras(inputs(hero, plain)), config(hero, plain))
    assert [s.subject.trigger for s in found.sources] == ["ohwx woman", ""]
    assert found.notes() == ["trigger 'ohwx woman' taken from the training captions of hero.safetensors; --triggers gives another"]
    for given in ("", "zig", "ohwx woman"):
        told = LoraEnsemble(load_loras(inputs(hero, plain, triggers=(given, ""))), config(hero, plain))
        assert (told.sources[0].subject.trigger, told.notes()) == (given, [])


def test_sources_of_one_name_are_numbered(tmp_path: Path) -> None:
    names = ("hero", "hero", "hero-2", "hero")
    files = [made(tmp_path / str(i), name, None, i) for i, name in enumerate(names)]
    sources = load_loras(inputs(*files))
    assert [s.name for s in sources] == ["hero", "hero-2", "hero-2-2", "hero-3"]
    assert [s.adapter.name for s in sources] == [s.name for s in sources]
    assert [str(s.file) for s in sources] == files


def test_what_cannot_be_merged(tmp_path: Path) -> None:
    a, again = made(tmp_path, "a"), made(tmp_path / "x", "b")
    wide = {K: (1280, 2048)}, {K: (1280, 768)}
    xl, sd = made(tmp_path, "xl", wide[0]), made(tmp_path, "sd", wide[1], 5)
    for files, message in (
        ((a, a), f"--sources: {a} and {a} are the same file — name every source once"),
        ((a, again), f"--sources: {a} and {again} are the same file — name every source once"),
        (
            (xl, sd),
            f"--sources: {xl} is for Stable Diffusion XL (its cross-attention reads text of width 2048); {sd} is for Stable Diffusion 1.x "
            "(its cross-attention reads text of width 768) — merge sources of one base model",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            load_loras(inputs(*files))
        assert str(caught.value) == message
    with pytest.raises(AdapterError, match="nowhere"):
        load_loras(inputs(a, str(tmp_path / "nowhere.safetensors")))


def test_sources_that_share_no_module_are_merged_and_told(tmp_path: Path) -> None:
    a, other = made(tmp_path, "a"), made(tmp_path, "other", {Q.replace("to_q", "to_v"): (24, 24)}, 5)
    found = LoraEnsemble(load_loras(inputs(a, other)), config(a, other))
    assert len(found.remarks()) == 1
    assert found.remarks()[0].startswith("a and other change no module in common, so that neither disturbs the other's weights")
    assert found.strengths == (0.0, 0.0)


def test_an_unknown_demo_source_lists_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources").mkdir()
    entry = {"role": "style", "trigger": "", "file": "neon.safetensors"}
    (tmp_path / "sources/sources.json").write_text(json.dumps({"neon": entry, "owl": entry}))
    monkeypatch.setattr(world, "ASSETS", tmp_path)
    with pytest.raises(UsageError) as caught:
        load_loras(inputs("demo:neom", "demo:owl"))
    assert str(caught.value) == "demo:neom: there is no demo source 'neom' — choose from demo:neon, demo:owl"


def test_words_come_from_the_file_the_demo_world_or_are_general(studio: Studio, tmp_path: Path) -> None:
    assert words_of(config("a", "b", prompts=str(studio.words)), []).subjects == ("a ball", "a cube")
    assert words_of(config("a", "b"), []) == GENERAL
    assert words_of(Config.of(sources=("demo:a", "demo:b")), []).subjects == read_words(world.demo_words()).subjects


def test_the_confirmation_asks_what_the_search_asks_with_other_noise(studio: Studio) -> None:
    found = Config.of(**studio.options(own=2, joint=3, confirm=4))
    sources = load_loras(found.inputs)
    seen, unseen = search_prompts(found, sources), confirmation_prompts(found, sources)
    assert [len(seen.indices(k)) for k in (0, 1, None)] == [2, 2, 3]
    assert [len(unseen.indices(k)) for k in (0, 1, None)] == [4, 4, 4]
    assert not {p.noise_seed for p in seen.prompts} & {p.noise_seed for p in unseen.prompts}
    alone = found.replaced(joint=0)
    assert confirmation_prompts(alone, sources).indices(None) == []


def test_remarks_on_sources(tmp_path: Path) -> None:
    fast = made(tmp_path, "pytorch_lora", None, 1, ss_output_name="sdxl_lightning_8step")
    odd = edited(
        Path(made(tmp_path, "odd", None, 2)), tmp_path / "strange.safetensors", lambda t: t.update({"lora_unet_x.alpha": torch.ones(1)})
    )
    with pytest.raises(AdapterError, match=r"1 of 4 tensors are not understood: lora_unet_x\.alpha"):
        load_loras(inputs(fast, str(odd)))
    assert remarks(load_loras(inputs(fast, str(odd), allow_unknown=True)), None) == [
        "pytorch_lora calls itself a distillation LoRA (Lightning), which changes how many steps a picture needs: merged, it does so for "
        "all sources; --with pytorch_lora.safetensors instead draws with it and leaves it out of the merge",
        "strange: 1 tensors are left out, first lora_unet_x.alpha (no known module)",
    ]


def test_a_source_that_needs_the_base_gets_it(tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DoRA of magnitude 1 for every row is W / ‖W‖ where nothing was learnt."""
    plain = made(tmp_path, "plain")
    dora = edited(
        Path(made(tmp_path, "dora", None, 4)),
        tmp_path / "d.safetensors",
        lambda t: t.update({f"{kohya_name(Q)}.dora_scale": torch.ones(24, 1)}),
    )
    with pytest.raises(AdapterError, match="is DoRA, whose change depends on the base weight"):
        load_loras(inputs(plain, str(dora)))
    found = load_loras(Inputs(sources=(plain, str(dora)), base=str(studio.base)))[1].adapter
    changed = found.modules[Q].delta() + BaseWeights(studio.base).weight(Target((Q,)))
    torch.testing.assert_close(changed.norm(dim=1), torch.ones(24))
    model = tmp_path / "hub/models--lab--sd"
    shutil.copytree(studio.base, model / "snapshots" / ("0" * 40))
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = load_loras(Inputs(sources=(plain, str(dora)), base="lab/sd"))[1].adapter
    assert torch.equal(cached.modules[Q].delta(), found.modules[Q].delta())


def test_a_change_of_full_rank_is_told_unless_a_rank_is_asked_for(tmp_path: Path) -> None:
    save_file({f"{kohya_name(Q)}.diff": torch.rand(600, 700)}, tmp_path / "full.safetensors")
    sources = load_loras(inputs(made(tmp_path, "a", {Q: (600, 700)}), str(tmp_path / "full.safetensors")))
    assert remarks(sources, 32) == []
    assert [line.partition(", as")[0] for line in remarks(sources, None)] == ["full has a rank of up to 600"]
