"""A base model is loaded whole, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering import Prompt, Renderer, RenderSettings, load_pipeline
from tests.tiny import tiny_pipeline

UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
SHARD = "part-00.safetensors"
AGAIN = " — fetch the whole folder again"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "whole"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def load(folder: Path, device: str = "cpu") -> object:
    return load_pipeline(folder, device=device, dtype=torch.float32)


def test_a_saved_pipeline_draws_as_before(whole: Path) -> None:
    prompts, settings = [Prompt("a red fox", 1)], RenderSettings(steps=2)
    loaded = load_pipeline(whole, device="cpu", dtype=torch.float32)
    assert torch.equal(Renderer(loaded, settings).render(prompts), Renderer(tiny_pipeline(), settings).render(prompts))


def test_the_dtype_is_the_one_asked_for(whole: Path) -> None:
    loaded = load_pipeline(str(whole), device="cpu", dtype=torch.bfloat16)
    assert {loaded.unet.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {torch.bfloat16}


def test_a_folder_of_fp16_files_alone(tmp_path: Path) -> None:
    tiny_pipeline().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    loaded = load_pipeline(tmp_path, device="cpu", dtype=torch.float32)
    torch.testing.assert_close(loaded.unet.conv_in.weight, tiny_pipeline().unet.conv_in.weight.half().float(), rtol=0, atol=0)


def test_the_text_encoders_older_key_names(copy: Path) -> None:
    """As published files of SD 1.5 spell them, with a buffer that transformers has dropped since."""
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(copy / TEXT).items()}
    save_file({**tensors, "text_model.embeddings.position_ids": torch.arange(16)[None]}, copy / TEXT, {"format": "pt"})
    loaded = load_pipeline(copy, device="cpu", dtype=torch.float32)
    for name, tensor in tiny_pipeline().text_encoder.state_dict().items():
        assert torch.equal(loaded.text_encoder.state_dict()[name], tensor), name


def test_the_safety_checker_is_left_out(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    assert load_pipeline(copy, device="cpu", dtype=torch.float32).safety_checker is None


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:20_000])


def without(name: str, keys: int) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        save_file(dict(sorted(tensors.items())[keys:]), folder / name, {"format": "pt"})

    return damage


def sharded(file: Path) -> Iterator[Path]:
    """Split a file of weights into twenty, with an index as diffusers writes it; gives the files."""
    tensors = load_file(file)
    places = {name: f"part-{number % 20:02}.safetensors" for number, name in enumerate(tensors)}
    for shard in sorted(set(places.values())):
        held = {name: tensor for name, tensor in tensors.items() if places[name] == shard}
        save_file(held, file.with_name(shard), {"format": "pt"})
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    file.unlink()
    yield from sorted(file.parent.glob("part-*"))


def removed(*names: str) -> Damage:
    """Files or folders are missing."""

    def remove(folder: Path) -> None:
        for path in (folder / name for name in names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def renamed(kind: str) -> Damage:
    return lambda folder: (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no index": (
        lambda f: (f / "model_index.json").unlink(),
        "no diffusers pipeline here (model_index.json is missing) — give the folder of one",
    ),
    "no U-Net weights": (lambda f: (f / UNET).unlink(), f"the pipeline is incomplete: {UNET} missing{AGAIN}"),
    "no weights at all": (
        removed(UNET, TEXT, VAE),
        f"the pipeline is incomplete: {TEXT}, {UNET}, {VAE} missing{AGAIN}",
    ),
    "a shard of the U-Net missing": (
        lambda f: next(sharded(f / UNET)).unlink(),
        f"the pipeline is incomplete: unet/{SHARD} missing{AGAIN}",
    ),
    "no VAE": (lambda f: shutil.rmtree(f / "vae"), f"the pipeline is incomplete: vae missing{AGAIN}"),
    "no parts": (
        removed("vae", "tokenizer", "scheduler"),
        f"the pipeline is incomplete: vae, tokenizer, scheduler missing{AGAIN}",
    ),
    "no vocabulary": (
        lambda f: (f / "tokenizer" / "tokenizer.json").unlink(),
        f"the pipeline is incomplete: tokenizer/vocab.json missing{AGAIN}",
    ),
    "half a U-Net file": (cut(UNET), "the pipeline cannot be loaded: Unable to load weights from checkpoint file"),
    "half a text encoder file": (
        cut(TEXT),
        f"the pipeline cannot be loaded: Error while deserializing header: incomplete metadata, file not fully covered{AGAIN}",
    ),
    "a pointer in place of the VAE": (
        lambda f: (f / VAE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n"),
        "the pipeline cannot be loaded: You seem to have cloned a repository without having git-lfs installed",
    ),
    "a U-Net tensor missing": (without(UNET, 1), f"weights are missing: unet.conv_in.bias{AGAIN}"),
    "text encoder tensors missing": (
        without(TEXT, 3),
        f"weights are missing: text_encoder.embeddings.position_embedding.weight and 2 more{AGAIN}",
    ),
    "another pipeline": (
        renamed("StableDiffusionXLPipeline"),
        f"the pipeline is incomplete: unet, vae, text_encoder, tokenizer, scheduler, text_encoder_2, tokenizer_2 missing{AGAIN}",
    ),
    "no pipeline at all": (renamed("os.system"), "os.system is not supported — use a pipeline of SD 1.x and 2.x, SDXL, SD 3.x, FLUX.1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder(copy: Path, damage: str) -> None:
    change, problem = DAMAGES[damage]
    change(copy)
    with pytest.raises(BaseModelError) as caught:
        load(copy)
    assert str(caught.value).startswith(f"{copy}: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\udcff"])
def test_an_index_that_is_none(copy: Path, text: str) -> None:
    (copy / "model_index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BaseModelError, match=r"model_index\.json: cannot be read: .* — fetch the whole folder again$"):
        load(copy)


def test_shards_are_read_together(copy: Path, whole: Path) -> None:
    assert len(list(sharded(copy / UNET))) == 20
    found, expected = (load_pipeline(place, device="cpu", dtype=torch.float32).unet.state_dict() for place in (copy, whole))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_of_many_missing_files_a_few_are_named(copy: Path) -> None:
    for shard in sharded(copy / UNET):
        shard.unlink()
    (copy / UNET).with_name("part-05.safetensors").touch()
    with pytest.raises(BaseModelError, match=r"unet/part-12\.safetensors and 7 more missing — fetch the whole folder again$"):
        load(copy)


def test_pickles_are_named_and_not_opened(copy: Path) -> None:
    (copy / UNET).rename((copy / UNET).with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(BaseModelError) as caught:
        load(copy)
    assert str(caught.value) == (
        f"{copy / 'unet'}: its weights are a pickle (diffusion_pytorch_model.bin), which can run code when it is opened — "
        "fetch the .safetensors files of the model"
    )


@pytest.mark.parametrize("name", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
def test_a_configuration_that_cannot_be_read(copy: Path, name: str) -> None:
    (copy / name).write_text('{"')
    with pytest.raises(BaseModelError) as caught:
        load(copy)
    assert str(caught.value) == (
        f"{copy / name}: cannot be read: Unterminated string starting at: line 1 column 2 (char 1) — fetch the whole folder again"
    )


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="/none: does not exist — give a diffusers folder"):
        load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=r"/empty: no diffusers pipeline here \(model_index\.json is missing\)"):
        load(tmp_path / "empty")


@pytest.mark.parametrize("device", ["toaster", "meta:x", pytest.param("cuda", marks=pytest.mark.skipif("torch.cuda.is_available()"))])
def test_a_device_that_is_not_there(whole: Path, device: str) -> None:
    with pytest.raises(UsageError, match=rf"^the device '{device}' cannot be used: [^\n]+ — use cpu$"):
        load(whole, device)
