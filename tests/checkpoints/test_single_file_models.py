"""Single files as full models: the tensors that diffusers loads, merges that are those of the folders, files that are read again."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from optimizer.checkpoints.folder import Folder
from optimizer.checkpoints.model import Model, canonical
from optimizer.checkpoints.open import open_model
from optimizer.checkpoints.single_file import Checkpoint
from optimizer.errors import BaseModelError
from optimizer.merging import Recipe
from optimizer.merging.models import Blend, Job, merge_models
from optimizer.merging.models.extract import extract
from optimizer.rendering import Loading, Prompt, Renderer, RenderSettings, load_pipeline, load_renderer
from tests.ldm import clip, ldm_unet, open_clip, prefixed, save_single_file
from tests.merging.models.test_full_models import tuned
from tests.rendering.pipelines.test_single_file import hollow, sd3, unlike
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_text_encoder, tiny_xl_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2)]
SETTINGS = RenderSettings(steps=2, guidance=3.0, resolution=32)
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
MARKS = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}


def xl() -> Any:
    """With as many layers in the second text encoder as tell such a file from others."""
    pipeline = unlike(tiny_xl_pipeline(), width=8)
    config = pipeline.text_encoder_2.config.to_dict() | {"num_hidden_layers": 10}
    pipeline.register_modules(text_encoder_2=transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**config)).eval())
    return pipeline


def sd35(t5: bool = True) -> Any:
    """With as many blocks as tell such a file from others."""
    pipeline = sd3(t5)
    config = dict(pipeline.transformer.config) | {"num_layers": 38}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        pipeline.register_modules(transformer=diffusers.SD3Transformer2DModel.from_config(config).eval())
    return pipeline


KINDS: dict[str, Callable[[], Any]] = {"sd1": tiny_pipeline, "sdxl": xl, "sd3": sd35}


@pytest.fixture(scope="module", params=[*KINDS, pytest.param("sd3 without T5", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(request.param, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def xl_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("sdxl", tmp_path_factory.mktemp("xl"))


def made(kind: str, place: Path) -> Path:
    """A base and two models of one kind, each as a folder and as a file."""
    for seed, name in enumerate(("base", "a", "b")):
        pipeline = KINDS[kind]() if kind in KINDS else sd35(t5=False)
        tuned(pipeline, seed)
        if "transformer" in pipeline.components:
            torch.nn.init.eye_(pipeline.text_encoder.text_projection.weight)
            draw = torch.Generator().manual_seed(seed)
            for weight in pipeline.transformer.parameters():
                weight.data.add_(0.02 * torch.randn(weight.shape, generator=draw))
        pipeline.save_pretrained(place / name)
        save_single_file(pipeline, place / f"{name}.safetensors")
    return place


def state(pipeline: Any) -> dict[tuple[str, str], Tensor]:
    """Every tensor of the parts that merge."""
    models = {part: pipeline.components[part] for part in PARTS if pipeline.components.get(part) is not None}
    return {(part, canonical(part, name)): tensor for part, model in models.items() for name, tensor in model.state_dict().items()}


def loaded(base: Path, layout: Path) -> dict[tuple[str, str], Tensor]:
    return state(load_pipeline(base, device="cpu", dtype=torch.float32, base_config=layout if base.is_file() else ""))


def same(found: Mapping[tuple[str, str], Tensor], wanted: Mapping[tuple[str, str], Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        assert torch.equal(found[name], wanted[name]), name


def read(model: Model) -> dict[tuple[str, str], Tensor]:
    return {(part, name): model.read(part, name) for part, name in model.names}


def test_tensors_are_those_that_diffusers_loads(pair: Path) -> None:
    model = Checkpoint(pair / "a.safetensors")
    found = read(model)
    same(found, loaded(pair / "a.safetensors", pair / "a"))
    same(found, read(Folder(pair / "a")))
    for part, name in model.names:
        assert model.parts[part][name].shape == tuple(found[part, name].shape)
    assert (model.name, model.kind, model.suffix) == ("a", Folder(pair / "a").kind, ".safetensors")
    assert model.predicts in ("", Folder(pair / "a").predicts)


def merged_alike(place: Path, out: Path, job: Callable[[Model, Model, Model], Job]) -> Path:
    """Merge files, and check the result against that of the folders that they were made of."""
    file, folder = (
        merge_models(job(*(open_model(place / f"{name}{suffix}") for name in ("a", "b", "base"))), out.with_suffix(suffix)).place
        for suffix in (".safetensors", "")
    )
    same(read(Checkpoint(file)), read(Folder(folder)))
    return file


def test_merging_files_is_merging_the_folders_they_were_made_of(pair: Path, tmp_path: Path) -> None:
    merged_alike(pair, tmp_path / "sigmoid", lambda a, b, base: Job((a, b), formula="sigmoid", alpha=0.4))
    file = merged_alike(pair, tmp_path / "add", lambda a, b, base: Job((a, b, base), formula="add_difference", alpha=0.4))
    found, first = load_file(file), load_file(pair / "a.safetensors")
    assert found.keys() == first.keys()
    assert all(torch.equal(found[name], first[name]) for name in first if name.startswith("first_stage_model."))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_changes_of_a_base_merge(xl_pair: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="ties", weights=(0.7, 0.6), density=0.4)
    merged_alike(xl_pair, tmp_path / "ties", lambda a, b, base: Job((a, b), base=base, recipe=recipe))


def test_the_result_draws_what_the_merged_folder_draws(pair: Path, tmp_path: Path) -> None:
    file = merge_models(Job(models(pair, ".safetensors"), formula="sigmoid", alpha=0.5), tmp_path / "x.safetensors").place
    folder = merge_models(Job(models(pair, ""), formula="sigmoid", alpha=0.5), tmp_path / "x").place
    bases = ((file, str(folder)), (folder, ""), (pair / "a", ""))
    found, wanted, first = (
        load_renderer(str(base), SETTINGS, Loading(device="cpu", base_config=layout)).render(PROMPTS).int() for base, layout in bases
    )
    assert (found - wanted).abs().max() <= 1
    assert (wanted - first).abs().max() > 1


def models(place: Path, *suffixes: str) -> tuple[Model, ...]:
    """The two models, with one suffix for both or one for each."""
    return tuple(open_model(place / f"{name}{suffix}") for name, suffix in zip("ab", suffixes * (3 - len(suffixes)), strict=False))


def test_folders_and_files_merge_with_each_other(xl_pair: Path, tmp_path: Path) -> None:
    wanted = read(Folder(merge_models(Job(models(xl_pair, ""), formula="weighted_sum", alpha=0.3), tmp_path / "wanted").place))
    mixed = merge_models(Job(models(xl_pair, ".safetensors", ""), formula="weighted_sum", alpha=0.3), tmp_path / "mixed.safetensors").place
    other = merge_models(Job(models(xl_pair, "", ".safetensors"), formula="weighted_sum", alpha=0.3), tmp_path / "mixed").place
    same(read(open_model(mixed)), wanted)
    same(read(open_model(other)), wanted)


def test_what_does_not_change_is_the_same_file(pair: Path, tmp_path: Path) -> None:
    """With marks, positions and what is said in the header."""
    tensors = load_file(pair / "a.safetensors") | MARKS
    if Checkpoint(pair / "a.safetensors").kind == "StableDiffusionPipeline":
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(4)
    said = {"format": "pt", "modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.license": "CreativeML – Open RAIL"}
    for number, metadata in enumerate((said, None)):
        first = tmp_path / f"first{number}.safetensors"
        save_file(tensors, first, metadata=metadata)
        job = Job((Checkpoint(first), Checkpoint(pair / "b.safetensors")), formula="weighted_sum", alpha=0.0, force=True)
        assert merge_models(job, tmp_path / f"{number}.safetensors").place.read_bytes() == first.read_bytes()


def test_another_number_format_and_the_same_bytes_again(xl_pair: Path, tmp_path: Path) -> None:
    job = Job(models(xl_pair, ".safetensors"), formula="weighted_sum", alpha=0.3, dtype="F16")
    file = merge_models(job, tmp_path / "half.safetensors").place
    found, first = load_file(file), load_file(xl_pair / "a.safetensors")
    assert {n: t.dtype for n, t in found.items()} == {
        n: t.dtype if n.startswith("first_stage_model.") else torch.float16 for n, t in first.items()
    }
    assert merge_models(job, tmp_path / "again.safetensors").place.read_bytes() == file.read_bytes()
    same(read(Checkpoint(file)), {(part, name): Blend(job).read(part, name) for part, name in job.models[0].names})


def test_no_more_than_a_few_tensors_are_held(xl_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read for a tensor of the file is gone when the next but one is written."""
    held: list[weakref.ref[Tensor]] = []
    most, read_one = 0, Checkpoint.read

    def watched(self: Checkpoint, part: str, name: str) -> Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in held[-40:]))
        tensor = read_one(self, part, name)
        held.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(Checkpoint, "read", watched)
    recipe = Recipe(method="ties", weights=(0.7, 0.5), density=0.4)
    merge_models(
        Job(models(xl_pair, ".safetensors"), base=Checkpoint(xl_pair / "base.safetensors"), recipe=recipe), tmp_path / "x.safetensors"
    )
    assert len(held) > 1500
    assert most <= 6


def test_a_lora_of_what_was_trained(xl_pair: Path) -> None:
    """From folders, and from a file and a folder."""
    wanted, found = (
        extract(open_model(xl_pair / f"a{suffix}"), open_model(xl_pair / "base"), rank=2).adapter for suffix in ("", ".safetensors")
    )
    assert wanted.modules
    assert found.modules.keys() == wanted.modules.keys()
    for path, factors in found.modules.items():
        assert torch.equal(factors.delta(), wanted.modules[path].delta())


def test_digests_tell_files_apart(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    file = save_single_file(pipeline, tmp_path / "one.safetensors")
    before = Checkpoint(file).digest
    pipeline.unet.mid_block.attentions[0].proj_in.weight.data.add_(1)
    save_single_file(pipeline, file)
    assert Checkpoint(file).digest != before
    assert len(before) == 64


def test_a_header_says_what_is_still_true(tmp_path: Path) -> None:
    tensors = load_file(save_single_file(tiny_pipeline(), tmp_path / "a.safetensors"))
    said = {
        "modelspec.title": "Anime",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.hash_sha256": "0x12",
        "modelspec.license": "CreativeML Open RAIL-M",
        "ss_sd_model_name": "base.safetensors",
        "sd_merge_recipe": "{}",
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata=said)
    model = Checkpoint(tmp_path / "a.safetensors")
    model.write(model, tmp_path / "mine.safetensors")
    with safe_open(tmp_path / "mine.safetensors", framework="pt") as opened:
        assert opened.metadata() == {
            "modelspec.title": "mine",
            "modelspec.architecture": "stable-diffusion-v1",
            "modelspec.license": "CreativeML Open RAIL-M",
        }


def test_what_models_predict_is_told_from_the_file(tmp_path: Path) -> None:
    plain = save_single_file(tiny_pipeline(), tmp_path / "plain.safetensors")
    marked = save_single_file(tiny_pipeline(), tmp_path / "marked.safetensors", v_pred=torch.tensor([]))
    assert (Checkpoint(plain).predicts, Checkpoint(marked).predicts) == ("epsilon", "v_prediction")
    with pytest.raises(
        BaseModelError, match=r"marked\.safetensors: plain predicts epsilon, marked v_prediction, and what lies between draws"
    ):
        Blend(Job((Checkpoint(plain), Checkpoint(marked)), formula="weighted_sum"))


def sd2(seed: int) -> dict[str, Tensor]:
    """A model of the second version, with OpenCLIP's text encoder and its last layer, which diffusers leaves out."""
    pipeline = tiny_pipeline(seed, cross=1024)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        texts = tiny_text_encoder(pipeline.tokenizer, 1024, layers=1).state_dict()
    whole = {**clip(texts), "text_projection.weight": torch.randn(1024, 1024)}
    last = {"transformer.resblocks.23.ln_1.bias": torch.randn(1024), "logit_scale": torch.tensor(4.6)}
    found = prefixed("model.diffusion_model.", ldm_unet(pipeline.unet.state_dict())) | prefixed(
        "cond_stage_model.model.", open_clip(whole) | last
    )
    return {name: tensor.half().contiguous() for name, tensor in found.items()}


def test_the_second_version_of_stable_diffusion(tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]
    for seed, file in enumerate(files, start=1):
        save_file(sd2(seed), file)
    found = Checkpoint(files[0])
    assert (found.kind, found.predicts) == ("StableDiffusionPipeline", "epsilon")
    assert len(found.parts["text_encoder"]) == 20
    assert not [name for name in found.parts["text_encoder"] if "23" in name or "projection" in name]
    a, b = (load_file(file) for file in files)
    fused = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    assert torch.equal(found.read("text_encoder", "encoder.layers.0.self_attn.k_proj.weight"), a[fused][1024:2048])
    merged = merge_models(Job(tuple(map(Checkpoint, files)), formula="weighted_sum", alpha=0.5), tmp_path / "out.safetensors")
    made = load_file(merged.place)
    for name, tensor in made.items():
        kept = "resblocks.23" in name or name.endswith(("logit_scale", "text_projection"))
        assert torch.equal(tensor, a[name] if kept else a[name].float().lerp(b[name].float(), 0.5).half()), name


def narrow_flux(seed: int) -> dict[str, Tensor]:
    """The denoiser of FLUX.1 alone, with one block of each kind, all of its rows and two columns."""
    draw, width = torch.Generator().manual_seed(seed), 3072
    rows = {"time_in.in_layer": width, "time_in.out_layer": width, "vector_in.in_layer": width, "vector_in.out_layer": width}
    rows |= {"guidance_in.in_layer": width, "guidance_in.out_layer": width, "txt_in": width, "img_in": width, "final_layer.linear": 64}
    rows |= {"final_layer.adaLN_modulation.1": 2 * width, "single_blocks.0.linear1": 7 * width, "single_blocks.0.linear2": width}
    rows |= {"single_blocks.0.modulation.lin": 3 * width}
    for side in ("img", "txt"):
        own = {"mod.lin": 6, "attn.qkv": 3, "attn.proj": 1, "mlp.0": 4, "mlp.2": 1}
        rows |= {f"double_blocks.0.{side}_{name}": times * width for name, times in own.items()}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (count, 2) for name, count in rows.items()}
    shapes |= {f"{name}.bias": (count,) for name, count in rows.items()}
    norms = ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0")
    shapes |= {f"{place}.norm.{kind}_norm.scale": (128,) for place in norms for kind in ("query", "key")}
    return {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in shapes.items()}


@pytest.mark.parametrize("start", ["", "model.diffusion_model."])
def test_files_with_the_denoiser_alone(start: str, tmp_path: Path) -> None:
    states = [narrow_flux(seed) for seed in (1, 2)]
    for name, tensors in zip("ab", states, strict=True):
        save_file(prefixed(start, tensors), tmp_path / f"{name}.safetensors")
    a, b = models(tmp_path, ".safetensors")
    assert (a.kind, a.predicts, list(a.parts)) == ("FluxPipeline", "", ["transformer"])
    wanted = [convert_flux_transformer_checkpoint_to_diffusers(dict(tensors)) for tensors in states]
    same(read(a), {("transformer", name): tensor for name, tensor in wanted[0].items()})
    merged = merge_models(Job((a, b), formula="weighted_sum", alpha=0.25), tmp_path / "out.safetensors").place
    half = {name: tensor.float().lerp(states[1][name].float(), 0.25).bfloat16() for name, tensor in states[0].items()}
    found = load_file(merged)
    assert found.keys() == prefixed(start, half).keys()
    assert all(torch.equal(found[f"{start}{name}"], tensor) for name, tensor in half.items())


@pytest.mark.slow
def test_flux_in_full_width(tmp_path: Path) -> None:
    """One double and one single block, against what diffusers loads of the file, and of the merged file."""
    for seed in (1, 2):
        pipeline: Any = tiny_flux_pipeline(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            shape = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 16, "pooled_projection_dim": 16}
            pipeline.register_modules(transformer=diffusers.FluxTransformer2DModel(**shape, guidance_embeds=True).to(torch.bfloat16))
        pipeline.to(torch.bfloat16).save_pretrained(tmp_path / "ab"[seed - 1])
        save_single_file(pipeline, tmp_path / f"{'ab'[seed - 1]}.safetensors")
    merged = merge_models(Job(models(tmp_path, ".safetensors"), formula="sigmoid", alpha=0.4), tmp_path / "out.safetensors").place
    folder = merge_models(Job(models(tmp_path, ""), formula="sigmoid", alpha=0.4), tmp_path / "out").place
    for file, place in ((tmp_path / "a.safetensors", tmp_path / "a"), (merged, folder)):
        theirs = state(load_pipeline(file, device="cpu", dtype=torch.bfloat16, base_config=place))
        same(read(Checkpoint(file)), theirs)
        same(theirs, read(Folder(place)))


def test_a_part_that_one_model_lacks(tmp_path: Path) -> None:
    """It is named, and by force it is that of the first."""
    for seed, name in enumerate("ab"):
        tiny_pipeline(seed).save_pretrained(tmp_path / name)
    tensors = load_file(save_single_file(tiny_pipeline(1), tmp_path / "b.safetensors"))
    save_file({n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}, tmp_path / "lone.safetensors")
    first, b, lone = (open_model(tmp_path / name) for name in ("a", "b", "lone.safetensors"))
    assert list(lone.parts) == ["unet"]
    for order, message in (
        ((first, lone), r"a: the models do not fit each other: text_encoder\..* is not in lone \(and \d+ more\) — merge models of one"),
        ((lone, first), r"lone.safetensors: the models do not fit each other: text_encoder\..* is in a alone \(and \d+ more\) — merge"),
    ):
        with pytest.raises(BaseModelError, match=message):
            Blend(Job(order, formula="weighted_sum"))
    forced = Blend(Job((first, lone), formula="weighted_sum", alpha=1.0, force=True))
    for part, name in first.names:
        assert torch.equal(forced.read(part, name), (first if part.startswith("text") else b).read(part, name))


def test_denoisers_alone_over_a_base_that_has_the_rest(tmp_path: Path) -> None:
    """As files of FLUX.1 are: what is merged is what they hold, and the base's text encoders are no mismatch."""
    base = tiny_pipeline()
    base.save_pretrained(tmp_path / "base")
    for seed, name in enumerate("ab", start=1):
        tensors = load_file(save_single_file(tuned(tiny_pipeline(), seed), tmp_path / f"{name}.safetensors"))
        save_file({n: t for n, t in tensors.items() if n.startswith("model.diffusion_model.")}, tmp_path / f"{name}.safetensors")
    a, b, whole = (open_model(tmp_path / name) for name in ("a.safetensors", "b.safetensors", "base"))
    blend = Blend(Job((a, b), base=whole, recipe=Recipe(method="linear", weights=(1.0, 0.5))))
    assert {part for part, _ in blend.names} == {"unet"}
    for part, name in blend.names:
        origin, one, two = (model.read(part, name) for model in (whole, a, b))
        torch.testing.assert_close(blend.read(part, name), one + 0.5 * (two - origin), rtol=0, atol=1e-6)
    merged = merge_models(blend.job, tmp_path / "out.safetensors").place
    assert all(name.startswith("model.diffusion_model.") for name in load_file(merged))
    drawer = Renderer(load_pipeline(tmp_path / "base", device="cpu", dtype=torch.float32), RenderSettings(steps=2, resolution=32))
    drawn = drawer.render([Prompt("a red fox", 1)], blend)
    assert torch.equal(drawn, drawer.render([Prompt("a red fox", 1)], open_model(merged)))
    assert not torch.equal(drawn, drawer.render([Prompt("a red fox", 1)]))


def test_a_projection_that_is_the_identity_is_in_no_file(tmp_path: Path) -> None:
    pipeline = sd35(t5=False)
    pipeline.save_pretrained(tmp_path / "folder")
    name = "text_encoders.clip_l.transformer.text_projection.weight"
    tensors = load_file(save_single_file(pipeline, tmp_path / "a.safetensors"))
    del tensors[name]
    save_file(tensors, tmp_path / "a.safetensors")
    file, folder = Checkpoint(tmp_path / "a.safetensors"), Folder(tmp_path / "folder")
    same(read(file), read(folder))
    merge_models(Job((file, folder), formula="weighted_sum"), tmp_path / "out.safetensors")
    assert name not in load_file(tmp_path / "out.safetensors")
    pipeline.text_encoder.text_projection.weight.data.mul_(2)
    pipeline.save_pretrained(tmp_path / "other")
    message = (
        "a.safetensors: text_encoder.text_projection.weight would not be the identity, and such files have no place for it — name a mod"
    )
    with pytest.raises(BaseModelError, match=message):
        merge_models(Job((file, Folder(tmp_path / "other")), formula="weighted_sum"), tmp_path / "never.safetensors")
    assert not (tmp_path / "never.safetensors").exists()


def test_what_is_no_model_is_refused_in_a_line(tmp_path: Path) -> None:
    whole = load_file(save_single_file(tiny_pipeline(), tmp_path / "whole.safetensors"))
    unet = "model.diffusion_model."
    (tmp_path / "old.ckpt").write_bytes(b"pickle")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-100])
    files: dict[str, dict[str, Tensor]] = {
        "lora": {"lora_unet_conv_in.lora_up.weight": torch.ones(2, 2)},
        "vae": {name.removeprefix("first_stage_model."): t for name, t in whole.items() if name.startswith("first_stage_model.")},
        "eight": whole | {f"{unet}out.2.weight": whole[f"{unet}out.2.weight"].to(torch.float8_e4m3fn)},
        "any": {"weight": torch.ones(2)},
        "more": whole | {f"{unet}time_embed.cond_proj.weight": torch.ones(2, 2)},
        "half": {f"{unet}{name}": t for name, t in narrow_flux(1).items() if name != "img_in.bias"},
    }
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    hollow(tmp_path / "inpaint.safetensors", {f"{unet}input_blocks.0.0.weight": (320, 9, 3, 3)})
    for name, message in {
        "nothing.safetensors": "nothing.safetensors: does not exist — give a diffusers folder, a .safetensors file, or ORGANISATION/NAME",
        "old.ckpt": r"old.ckpt: \.ckpt is not read — use a \.safetensors file; others can run code when they are opened",
        "torn.safetensors": "torn.safetensors: cannot be read, or was not downloaded to its end .* — fetch the file again",
        "lora.safetensors": "this file is a LoRA, not a base model — give a checkpoint of SD 1.x, .* FLUX.1, or a diffusers folder$",
        "vae.safetensors": "this file is an autoencoder alone, which is for --vae — give a checkpoint of SD 1.x",
        "eight.safetensors": "out.2.weight is stored as F8_E4M3, which is not read — use the fp16, bf16 or fp32 version of it$",
        "any.safetensors": "this file is of an unknown model — give a checkpoint of SD 1.x, .* or a diffusers folder$",
        "inpaint.safetensors": r"this file is of a model that is not supported \(inpainting\) — give a checkpoint",
        "more.safetensors": "this file is not understood: 1 tensors of unet are not understood, the first is .*cond_proj.weight — fetch",
        "half.safetensors": "this file is not understood: transformer lacks img_in.bias — fetch it again, or convert it to a diffusers f",
    }.items():
        with pytest.raises(BaseModelError, match=message):
            open_model(tmp_path / name)


def test_positions_and_headers_of_other_writers(tmp_path: Path) -> None:
    """Positions that a tool has rounded are no weights, and tensors lie in a file in any order."""
    tensors = load_file(save_single_file(tiny_pipeline(), tmp_path / "a.safetensors"))
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(4).half()
    tensors["model_ema.num_updates"] = torch.tensor(3, dtype=torch.int32)
    save_file(tensors, tmp_path / "a.safetensors")
    raw = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(dict(reversed(header.items()))).encode()
    (tmp_path / "b.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    a, b = models(tmp_path, ".safetensors")
    assert not [name for name in a.parts["text_encoder"] if name.endswith("position_ids")]
    for name, model in zip("ab", (a, b), strict=True):
        model.write(model, tmp_path / f"{name}2.safetensors")
        assert (tmp_path / f"{name}2.safetensors").read_bytes() == raw
