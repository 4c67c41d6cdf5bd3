"""Reading: every dialect gives the same changes, and LyCORIS factors expand exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lycoris.functional import loha as lycoris_loha
from lycoris.functional import lokr as lycoris_lokr
from lycoris.functional.general import tucker_weight_from_conv
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from optimizer.adapters import Adapter, load_adapter
from optimizer.adapters.expand import expand
from tests.files import (
    ATTENTION,
    LINEAR,
    SHAPES,
    TEXT,
    Made,
    diffusers_file,
    kohya_file,
    lycoris_file,
    old_processor_name,
    random_parts,
)

CONV1 = "unet.up_blocks.1.resnets.2.conv1"
TO_Q = f"{ATTENTION}.attn1.to_q"


def assert_same(adapter: Adapter, made: Made, tolerance: float = 1e-6) -> None:
    assert set(adapter.modules) == set(made.deltas)
    for path, wanted in made.deltas.items():
        got = adapter.modules[path].delta()
        assert got.dtype == torch.float32
        assert adapter.modules[path].shape in (tuple(wanted.shape), tuple(wanted.shape[:2]))
        torch.testing.assert_close(got.reshape(wanted.shape), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()), msg=path)


@pytest.mark.parametrize("text", ["lora_te_", "lora_te1_"])
def test_kohya(tmp_path: Path, text: str) -> None:
    made = kohya_file(tmp_path / "a.safetensors", random_parts(alpha=lambda i: 1.0 + i / 3, rank=lambda i: 1 + i % 5), text=text)
    adapter = load_adapter(made.path)
    assert_same(adapter, made)
    assert adapter.modules[CONV1].shape == SHAPES[CONV1]
    assert len(adapter.coverage.understood) == 3 * len(SHAPES)
    assert not adapter.coverage.unknown


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    made = kohya_file(tmp_path / "a.safetensors", random_parts(), alphas=False)
    adapter = load_adapter(made.path)
    assert_same(adapter, made)
    assert {factors.scale for factors in adapter.modules.values()} == {1.0}


@pytest.mark.parametrize(
    "suffixes",
    [
        (".lora_B.weight", ".lora_A.weight"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
        (".lora.up.weight", ".lora.down.weight"),
        (".lora_B", ".lora_A"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_diffusers_and_peft_names(tmp_path: Path, suffixes: tuple[str, str], prefix: str) -> None:
    made = diffusers_file(tmp_path / "a.safetensors", random_parts(), suffixes=suffixes, prefix=prefix)
    assert_same(load_adapter(made.path), made)


def test_unet_names_without_the_parts_name(tmp_path: Path) -> None:
    made = diffusers_file(
        tmp_path / "a.safetensors", random_parts(LINEAR), prefix="base_model.model.", rename=lambda path: path.removeprefix("unet.")
    )
    assert_same(load_adapter(made.path), made)


def test_names_of_a_text_encoder_without_the_inner_level(tmp_path: Path) -> None:
    made = diffusers_file(tmp_path / "a.safetensors", random_parts(TEXT), rename=lambda path: path.replace("text_model.", ""))
    assert_same(load_adapter(made.path), made)


def test_names_of_the_old_attention_processors(tmp_path: Path) -> None:
    attention = {path: shape for path, shape in SHAPES.items() if ".attn" in path}
    made = diffusers_file(
        tmp_path / "a.safetensors", random_parts(attention), suffixes=(".up.weight", ".down.weight"), rename=old_processor_name
    )
    assert any("to_out_lora.up" in name for name in load_file(made.path))
    assert_same(load_adapter(made.path), made)


def test_alphas_declared_in_the_header(tmp_path: Path) -> None:
    parts = random_parts(rank=lambda i: 8 if i == 1 else 4, alpha=lambda i: 3.0 if i in (0, 8) else 2.0)
    patterns = {"unet.alpha_pattern": {"attn1.to_q": 3.0}, "text_encoder.alpha_pattern": {"^encoder.layers.0.self_attn.out_proj": 3.0}}
    config = {
        "unet.r": 4,
        "unet.lora_alpha": 2,
        "unet.rank_pattern": {"attn1.to_out.0": 8},
        "text_encoder.r": 4,
        "text_encoder.lora_alpha": 2,
    }
    made = diffusers_file(tmp_path / "a.safetensors", parts, config={**config, **patterns}, alphas=True)
    assert list(SHAPES)[8] == "text_encoder.text_model.encoder.layers.0.self_attn.out_proj"
    assert_same(load_adapter(made.path), made)


def test_a_part_that_the_header_does_not_mention_has_scale_one(tmp_path: Path) -> None:
    made = diffusers_file(tmp_path / "a.safetensors", random_parts(TEXT), config={"unet.lora_alpha": 32})
    assert_same(load_adapter(made.path), made)


def test_rank_stabilised_scale(tmp_path: Path) -> None:
    made = diffusers_file(
        tmp_path / "a.safetensors", random_parts(LINEAR, rank=16), config={"unet.r": 16, "unet.lora_alpha": 8, "unet.use_rslora": True}
    )
    assert {round(factors.scale, 6) for factors in load_adapter(made.path).modules.values()} == {2.0}


def test_alpha_from_the_peft_configuration_beside_the_file(tmp_path: Path) -> None:
    made = diffusers_file(tmp_path / "adapter_model.safetensors", random_parts(LINEAR, alpha=8.0), prefix="base_model.model.", alphas=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    assert_same(load_adapter(made.path), made)


LYCORIS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (LoConModule, {"lora_dim": 4, "alpha": 2.0}),
    (LoConModule, {"lora_dim": 4, "alpha": 2.0, "use_tucker": True}),
    (LohaModule, {"lora_dim": 2, "alpha": 1.0}),
    (LohaModule, {"lora_dim": 2, "alpha": 3.0, "use_tucker": True}),
    (LohaModule, {"lora_dim": 8, "alpha": 4.0}),
    (LokrModule, {"lora_dim": 1, "alpha": 0.5}),
    (LokrModule, {"lora_dim": 1, "alpha": 0.5, "decompose_both": True, "factor": 4}),
    (LokrModule, {"lora_dim": 1, "alpha": 2.0, "use_tucker": True, "factor": 2}),
    (LokrModule, {"lora_dim": 10000, "alpha": 1e10, "full_matrix": True}),
]


@pytest.mark.parametrize(("kind", "options"), LYCORIS, ids=[f"{kind.__name__}-{i}" for i, (kind, _) in enumerate(LYCORIS)])
@pytest.mark.parametrize("prefix", ["lora_unet_", "lycoris_"])
def test_lycoris(tmp_path: Path, kind: type[nn.Module], options: dict[str, Any], prefix: str) -> None:
    made = lycoris_file(tmp_path / "a.safetensors", kind, prefix=prefix, **options)
    adapter = load_adapter(made.path)
    assert_same(adapter, made, 3e-6)
    for path, factors in adapter.modules.items():
        assert factors.rank <= max(min(factors.up.shape[0], factors.down.shape[1]), options["lora_dim"]), path


def test_the_lycoris_kinds_cover_every_factor(tmp_path: Path) -> None:
    seen = {
        name.rsplit(".", 1)[1]
        for index, (kind, options) in enumerate(LYCORIS)
        for name in load_file(lycoris_file(tmp_path / f"{index}.safetensors", kind, **options).path)
    }
    wanted = {
        "hada_t1",
        "hada_t2",
        "hada_w1_a",
        "hada_w2_b",
        "lokr_w1",
        "lokr_w1_a",
        "lokr_w1_b",
        "lokr_w2",
        "lokr_w2_a",
        "lokr_w2_b",
        "lokr_t2",
        "alpha",
    }
    assert wanted <= seen


SIDE = st.integers(1, 7)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


@given(out=SIDE, into=SIDE, rank=st.integers(1, 4), alpha=st.floats(0.1, 30), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_loha_is_expanded_exactly(out: int, into: int, rank: int, alpha: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    w1a, w1b, w2a, w2b = normal(g, out, rank), normal(g, rank, into), normal(g, out, rank), normal(g, rank, into)
    factors = expand(TO_Q, {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b}, lambda _: alpha)
    wanted = lycoris_loha.make_weight(w1b, w1a, w2b, w2a, torch.tensor(alpha / rank))
    torch.testing.assert_close(factors.delta(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert factors.rank == min(rank * rank, out, into)


@given(a=SIDE, b=SIDE, c=SIDE, d=SIDE, rank=st.integers(1, 3), kernel=st.sampled_from([1, 3]), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_lokr_is_expanded_exactly(a: int, b: int, c: int, d: int, rank: int, kernel: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    w1a, w1b, w2a, w2b = normal(g, a, rank), normal(g, rank, c), normal(g, b, rank), normal(g, rank, d, kernel, kernel)
    roles = {"lokr_w1_a": w1a, "lokr_w1_b": w1b, "lokr_w2_a": w2a, "lokr_w2_b": w2b}
    wanted = lycoris_lokr.diff_weight(None, w1a, w1b, None, w2a, w2b, None, gamma=2.0)
    factors = expand(CONV1, roles, lambda _: 2.0)
    assert factors.shape == (a * b, c * d, kernel, kernel)
    torch.testing.assert_close(factors.delta(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@given(out=SIDE, into=SIDE, rank=st.integers(1, 4), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=20)
def test_the_middle_factor_of_locon_is_folded(out: int, into: int, rank: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    up, mid, down = normal(g, out, rank, 1, 1), normal(g, rank, rank, 3, 3), normal(g, rank, into, 1, 1)
    factors = expand(CONV1, {"up": up, "mid": mid, "down": down}, float)
    wanted = tucker_weight_from_conv(up, down, mid)
    torch.testing.assert_close(factors.delta(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert factors.rank == rank


def width_of_text(tmp_path: Path, width: int, metadata: dict[str, str]) -> str:
    parts = random_parts({f"{ATTENTION}.attn2.to_k": (16, width)}, rank=2)
    return load_adapter(kohya_file(tmp_path / "a.safetensors", parts, metadata=metadata).path).base


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl")])
def test_shapes_tell_the_family_whatever_the_metadata_say(tmp_path: Path, width: int, family: str) -> None:
    assert width_of_text(tmp_path, width, {"ss_base_model_version": "flux1"}) == family


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd1"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "demo", "modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"ss_base_model_version": "flux1"}, "unknown"),  # which has no U-Net
        ({"ss_base_model_version": "demo"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_metadata_tell_the_family_when_shapes_do_not(tmp_path: Path, metadata: dict[str, str], family: str) -> None:
    assert width_of_text(tmp_path, 32, metadata) == family


@pytest.mark.parametrize(
    ("shapes", "metadata", "base", "reason"),
    [
        ({f"{ATTENTION}.attn2.to_v": (8, 2048)}, {}, "sdxl", "its cross-attention reads text of width 2048"),
        ({f"{ATTENTION}.attn2.to_k": (8, 768)}, {"ss_base_model_version": "sdxl"}, "sd1", "its cross-attention reads text of width 768"),
        ({"text_encoder.text_model.encoder.layers.3.mlp.fc1": (4096, 1024)}, {}, "sd2", "its text encoder has width 1024"),
        ({f"{ATTENTION}.attn1.to_q": (8, 8)}, {"ss_base_model_version": "sd_v2"}, "sd2", "ss_base_model_version says 'sd_v2'"),
        ({"transformer.transformer_blocks.3.attn.add_k_proj": (8, 3072)}, {}, "flux1", "its width is 3072"),
        ({"transformer.transformer_blocks.3.attn.to_q": (8, 1536)}, {}, "sd3", "its width is 1536"),
        (
            {"transformer.transformer_blocks.3.attn.to_q": (8, 8)},
            {"modelspec.architecture": "FLUX-1-dev/lora"},
            "flux1",
            "modelspec.architec",
        ),
        ({"transformer.single_transformer_blocks.3.attn.to_q": (8, 8)}, {}, "flux1", "only FLUX.1 has modules of all these names"),
        ({"transformer.transformer_blocks.3.attn2.to_q": (8, 8)}, {}, "sd3", "only Stable Diffusion 3 has modules of all these names"),
        ({"transformer.transformer_blocks.3.attn.to_q": (8, 8)}, {}, "unknown", ""),
        ({"transformer.transformer_blocks.3.img_mlp.net.2": (8, 8)}, {}, "qwen-image", "only Qwen-Image has modules of all these names"),
        ({"transformer.transformer_blocks.40.attn.to_q": (8, 3072)}, {}, "qwen-image", "its width is 3072"),  # FLUX.1 has 19 such blocks
        ({"transformer.single_transformer_blocks.3.attn.to_q": (8, 8)}, {"ss_base_model_version": "flux2_klein_9b"}, "unknown", ""),
        ({f"{ATTENTION}.attn1.to_q": (8, 8)}, {"ss_base_model_version": "<b>"}, "unknown", ""),
    ],
)
def test_the_family_and_what_told_it(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], metadata: dict[str, str], base: str, reason: str
) -> None:
    parts = random_parts(shapes)
    tensors = {f"{m}.lora_B.weight": p.up for m, p in parts.items()} | {f"{m}.lora_A.weight": p.down for m, p in parts.items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert adapter.base == base
    assert adapter.base_reason.startswith(reason)
    assert bool(adapter.base_reason) == bool(reason)


@pytest.mark.parametrize(
    ("width", "metadata", "path", "base"),
    [
        (64, {"ss_base_model_version": "qwen_image"}, "transformer.img_in", "qwen-image"),
        (64, {"ss_base_model_version": "flux1"}, "transformer.x_embedder", "flux1"),
    ],
)
def test_metadata_tell_names_apart_that_mean_different_modules(
    tmp_path: Path, width: int, metadata: dict[str, str], path: str, base: str
) -> None:
    """``img_in`` is the first layer of FLUX.1's original code, and of Qwen-Image's."""
    tensors = {"lora_unet_img_in.lora_up.weight": torch.ones(8, 2), "lora_unet_img_in.lora_down.weight": torch.ones(2, width)}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert (list(adapter.modules), adapter.base) == ([path], base)


def test_shapes_tell_names_apart_that_mean_different_modules(tmp_path: Path) -> None:
    """``txt_in`` reads 4096 numbers of T5 in FLUX.1 and 3584 of a language model in Qwen-Image."""
    for width, path in ((4096, "transformer.context_embedder"), (3584, "transformer.txt_in")):
        tensors = {"lora_unet_txt_in.lora_up.weight": torch.ones(8, 2), "lora_unet_txt_in.lora_down.weight": torch.ones(2, width)}
        save_file(tensors, tmp_path / "a.safetensors")
        assert list(load_adapter(tmp_path / "a.safetensors").modules) == [path]


def test_projections_of_sd1_are_convolutions(tmp_path: Path) -> None:
    proj = "unet.mid_block.attentions.0.proj_in"
    made = lycoris_file(
        tmp_path / "a.safetensors", LohaModule, {proj: (8, 8, 1, 1), f"{ATTENTION}.attn2.to_k": (8, 768)}, lora_dim=2, alpha=1.0
    )
    assert load_adapter(made.path).modules[proj].shape == (8, 8, 1, 1)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        (None, "my_style_v2"),
        ("héro!/../x", "héro_.._x"),
        ("he\u0301ro", "héro"),
        ("水墨 风格", "水墨_风格"),
        ("हिन्दी", "हिन्दी"),
        ("\u202eevil\x1b[31m", "_evil_31m"),
        ("\u0301x", "x"),
        ("画" * 40, "画" * 21),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("", "adapter"),
        ("…", "adapter"),
        ("a" * 300, "a" * 64),
    ],
)
def test_names_are_safe(tmp_path: Path, given_name: str | None, name: str) -> None:
    made = kohya_file(tmp_path / "my style v2.safetensors", random_parts(TEXT))
    assert load_adapter(made.path, name=given_name).name == name


def test_digest_and_metadata_are_the_files(tmp_path: Path) -> None:
    made = kohya_file(tmp_path / "a.safetensors", random_parts(TEXT), metadata={"ss_output_name": "<b>x</b>"})
    adapter = load_adapter(made.path)
    assert adapter.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert adapter.metadata == {"ss_output_name": "<b>x</b>"}


@pytest.mark.parametrize(
    ("dtype", "held"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
        (torch.float8_e4m3fn, torch.float16),
        (torch.float8_e5m2, torch.float16),
    ],
)
def test_factors_keep_a_dtype_that_can_be_computed_with(tmp_path: Path, dtype: torch.dtype, held: torch.dtype) -> None:
    tensors = {f"{TO_Q}.lora_A.weight": torch.ones(2, 3).to(dtype), f"{TO_Q}.lora_B.weight": torch.full((4, 2), 0.5).to(dtype)}
    save_file(tensors, tmp_path / "a.safetensors")
    factors = load_adapter(tmp_path / "a.safetensors").modules[TO_Q]
    assert factors.up.dtype == factors.down.dtype == held
    assert torch.equal(factors.delta(), torch.ones(4, 3))
