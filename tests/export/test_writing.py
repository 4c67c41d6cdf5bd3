"""Exported files: metadata that trainers and web UIs recognise, and a check that notices what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file
from torch import Tensor

from optimizer.adapters import Adapter, Dialect, Factors, load_adapter, save_adapter
from optimizer.errors import AdapterError, ExportError
from optimizer.export import RECIPE_KEY, ExportMetadata, export_adapter, verify_export
from tests.files import ATTENTION, LINEAR, SHAPES, TEXT, edited, kohya_file, random_parts

RECIPE = {"method": "ties", "weights": [0.7, 0.5], "sources": ["ab12", "cd34"]}
METADATA = ExportMetadata("Hero × neon", ("hero", "neon"), ("rivet", ""), RECIPE)
TO_Q = f"{ATTENTION}.attn1.to_q"


@pytest.fixture
def merged(tmp_path: Path) -> Adapter:
    return load_adapter(kohya_file(tmp_path / "source.safetensors", random_parts(alpha=4.0)).path, name="merged")


def exported(adapter: Adapter, path: Path, dialect: Dialect = "kohya", metadata: ExportMetadata = METADATA) -> dict[str, str]:
    return dict(load_adapter(export_adapter(adapter, path, dialect=dialect, metadata=metadata)).metadata)


def test_the_header_has_what_readers_look_for(merged: Adapter, tmp_path: Path) -> None:
    header = exported(replace(merged, base="sd1"), tmp_path / "hero-neon_v1.safetensors")
    wanted = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "4",
        "ss_network_args": '{"conv_dim": "4", "conv_alpha": "4"}',
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "hero-neon",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "Hero × neon",
        "modelspec.resolution": "512x512",
        "modelspec.merged_from": "hero, neon",
        "modelspec.trigger_phrase": "rivet",
    }
    assert {key: header[key] for key in wanted} == wanted
    assert json.loads(header[RECIPE_KEY]) == RECIPE


@pytest.mark.parametrize(
    ("base", "version", "architecture"),
    [
        ("sd2", "sd_v2", "stable-diffusion-v2-512/lora"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
        ("unknown", None, "unknown/lora"),
    ],
)
def test_the_family_is_written_in_both_vocabularies(
    merged: Adapter, tmp_path: Path, base: str, version: str | None, architecture: str
) -> None:
    header = exported(replace(merged, base=base), tmp_path / "a.safetensors")
    assert (header.get("ss_base_model_version"), header["modelspec.architecture"]) == (version, architecture)
    assert header["ss_v2"] == str(base == "sd2")


def test_mixed_ranks_are_dynamic(tmp_path: Path) -> None:
    mixed = load_adapter(kohya_file(tmp_path / "s.safetensors", random_parts(TEXT, rank=lambda i: 2 + i, alpha=2.0)).path)
    header = exported(mixed, tmp_path / "a.safetensors")
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("Dynamic", "2")
    assert "ss_network_args" not in header
    assert exported(mixed, tmp_path / "b.safetensors", "diffusers")["ss_network_alpha"] == "Dynamic"


@pytest.mark.parametrize("width", [16, 60_000], ids=["small", "beyond the legacy window"])
def test_hashes_are_those_of_sd_scripts(tmp_path: Path, width: int) -> None:
    factors = Factors(torch.randn(width, 16), torch.randn(16, 16), 16.0, (width, 16))
    path = export_adapter(Adapter("a", {TO_Q: factors}), tmp_path / "a.safetensors", metadata=METADATA)
    header = load_adapter(path).metadata
    bare = safetensors.torch.save(load_file(path), {key: value for key, value in header.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(bare[:8], "little")
    assert header["sshs_model_hash"] == hashlib.sha256(bare[start:]).hexdigest()
    assert header["sshs_legacy_hash"] == hashlib.sha256(bare[0x100000:0x110000]).hexdigest()[:8]
    assert (header["sshs_legacy_hash"] == "e3b0c442") == (len(bare) < 0x100000)
    assert header["modelspec.hash_sha256"] == "0x" + header["sshs_model_hash"]
    data = path.read_bytes()
    assert hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest() == header["sshs_model_hash"]


def test_the_same_merge_gives_the_same_bytes(merged: Adapter, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first = export_adapter(merged, tmp_path / "a.safetensors", metadata=METADATA)
    second = export_adapter(merged, tmp_path / "again" / "a.safetensors", metadata=METADATA)
    assert first.read_bytes() == second.read_bytes()


def test_strings_with_any_characters_are_stored(merged: Adapter, tmp_path: Path) -> None:
    title = 'ünï "quoted" \n ☃ \u202e'
    header = exported(merged, tmp_path / "a.safetensors", metadata=ExportMetadata(title, extra={"modelspec.license": "MIT"}))
    assert header["modelspec.title"] == title
    assert header["modelspec.license"] == "MIT"
    assert exported(merged, tmp_path / "b.safetensors", metadata=ExportMetadata("\ud800"))["modelspec.title"] == "?"


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_export_is_confirmed(merged: Adapter, tmp_path: Path, dialect: Dialect, dtype: torch.dtype) -> None:
    path = export_adapter(merged, tmp_path / "a.safetensors", dialect=dialect, dtype=dtype, metadata=METADATA)
    check = verify_export(path, merged)
    assert set(check.errors) == set(SHAPES)
    assert check.total <= check.tolerance
    assert check.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert check.errors[check.worst] == max(check.errors.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("rank", [1, 4])
def test_a_merge_that_lies_on_the_gpu_is_confirmed(merged: Adapter, tmp_path: Path, rank: int) -> None:
    """Both ways of measuring: low ranks by QR, high ones by their matrices."""
    modules = {p: replace(f, up=f.up[:, :rank].cuda(), down=f.down[:rank].cuda()) for p, f in merged.modules.items()}
    on_gpu = replace(merged, modules=modules)
    assert verify_export(export_adapter(on_gpu, tmp_path / "a.safetensors", metadata=METADATA), on_gpu).total < 1e-3


def test_the_error_is_the_dense_one(merged: Adapter, tmp_path: Path) -> None:
    """Against dense matrices in fp64, for an adapter whose rounding is large enough to measure."""
    generator = torch.Generator().manual_seed(3)
    fine = {
        path: replace(f, up=f.up + 1e-4 * torch.randn(f.up.shape, generator=generator), alpha=4.7) for path, f in merged.modules.items()
    }
    expected = replace(merged, modules=fine)
    path = save_adapter(expected, tmp_path / "a.safetensors", dtype=torch.bfloat16)
    check, found = verify_export(path, expected), load_adapter(path)

    def dense(factors: Factors) -> Tensor:
        return factors.scale * (factors.up.double() @ factors.down.double())

    gaps = {module: dense(found.modules[module]) - dense(fine[module]) for module in fine}
    for module, gap in gaps.items():
        assert check.errors[module] == pytest.approx(float(gap.norm() / dense(fine[module]).norm()), rel=1e-6)
    whole = sum(float(dense(f).norm() ** 2) for f in fine.values()) ** 0.5
    assert check.total == pytest.approx(sum(float(gap.norm() ** 2) for gap in gaps.values()) ** 0.5 / whole, rel=1e-6)
    assert 1e-4 < check.total < check.tolerance


Change = Callable[[dict[str, Tensor]], None]
NAME = "lora_unet_" + TO_Q.removeprefix("unet.").replace(".", "_")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t[f"{NAME}.lora_up.weight"].mul_(1.5), f"{TO_Q}: the written ΔW differs by 5.00e-01"),
        (lambda t: t[f"{NAME}.lora_up.weight"].neg_(), f"{TO_Q}: the written ΔW differs by 2.00e+00"),
        (lambda t: t[f"{NAME}.lora_down.weight"].zero_(), f"{TO_Q}: the written ΔW differs by 1.00e+00"),
        (lambda t: [t.pop(f"{NAME}.{end}") for end in ("lora_up.weight", "lora_down.weight", "alpha")], f"lacks 1 modules, first {TO_Q}"),
        (lambda t: t.update({f"{NAME}.lora_up.weight": torch.ones(17, 4)}), "has shape (17, 16) instead of (16, 16)"),
        (lambda t: t.pop(f"{NAME}.lora_up.weight"), "cannot be read back: its other half, up, is missing"),
    ],
)
def test_damage_is_noticed_and_named(merged: Adapter, tmp_path: Path, change: Change, problem: str) -> None:
    path = export_adapter(merged, tmp_path / "a.safetensors", metadata=METADATA)
    assert verify_export(path, merged).total < 1e-3
    with pytest.raises(ExportError) as caught:
        verify_export(edited(path, tmp_path / "b.safetensors", change), merged)
    assert problem in str(caught.value)
    assert str(tmp_path / "b.safetensors") in str(caught.value)
    assert caught.value.remedy


def test_modules_that_were_not_merged_are_noticed(merged: Adapter, tmp_path: Path) -> None:
    path = export_adapter(merged, tmp_path / "a.safetensors", metadata=METADATA)
    fewer = replace(merged, modules={module: merged.modules[module] for module in LINEAR})
    with pytest.raises(ExportError, match=r"has, besides the merge's modules, 8 modules, first text_encoder\.text_model"):
        verify_export(path, fewer)


def test_the_tolerance_can_be_set(merged: Adapter, tmp_path: Path) -> None:
    uneven = replace(merged, modules={TO_Q: replace(merged.modules[TO_Q], up=merged.modules[TO_Q].up.float() * 1.2345)})
    path = export_adapter(uneven, tmp_path / "a.safetensors", metadata=METADATA)
    assert verify_export(path, uneven, 1e-3).tolerance == 1e-3
    with pytest.raises(ExportError, match=r"allowed 1\.00e-09"):
        verify_export(path, uneven, 1e-9)


def test_a_module_without_change_and_one_too_small_to_see(merged: Adapter, tmp_path: Path) -> None:
    quiet = dict(merged.modules)
    for module, size in zip(LINEAR, (0.0, 1e-9), strict=False):
        quiet[module] = replace(quiet[module], up=quiet[module].up * size)
    adapter = replace(merged, modules=quiet)
    assert verify_export(export_adapter(adapter, tmp_path / "a.safetensors", metadata=METADATA), adapter).errors[TO_Q] == 0


def test_a_missing_file_is_an_export_error(merged: Adapter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no\.safetensors: cannot be read back: does not exist"):
        verify_export(tmp_path / "no.safetensors", merged)


def test_what_cannot_be_written_is_an_adapter_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="has no modules"):
        export_adapter(Adapter("x", {}), tmp_path / "a.safetensors", metadata=METADATA)
