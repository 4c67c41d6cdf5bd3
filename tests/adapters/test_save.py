"""Writing: what is written is read back, byte for byte reproducible, and whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lycoris.modules.loha import LohaModule
from safetensors import safe_open
from safetensors.torch import load_file

from optimizer.adapters import Adapter, Dialect, Factors, load_adapter, save_adapter
from optimizer.errors import AdapterError
from tests.files import ATTENTION, SHAPES, kohya_file, lycoris_file, random_parts

TO_Q = f"{ATTENTION}.attn1.to_q"
DIALECTS: tuple[Dialect, ...] = ("kohya", "diffusers", "comfyui")


def one(up: torch.Tensor, down: torch.Tensor, alpha: float) -> Adapter:
    return Adapter("one", {TO_Q: Factors(up, down, alpha, (up.shape[0], down.shape[1]))})


def assert_equal(first: Adapter, second: Adapter) -> None:
    assert list(first.modules) == list(second.modules)
    assert (first.base, first.metadata) == (second.base, second.metadata)
    for path, factors in first.modules.items():
        other = second.modules[path]
        assert (factors.alpha, factors.shape) == (other.alpha, other.shape), path
        assert torch.equal(factors.up, other.up), path
        assert torch.equal(factors.down, other.down), path


def assert_same_change(first: Adapter, second: Adapter, tolerance: float) -> None:
    assert list(first.modules) == list(second.modules)
    for path, factors in first.modules.items():
        wanted = factors.delta()
        assert second.modules[path].delta().shape == wanted.shape
        assert float((second.modules[path].delta() - wanted).norm()) <= tolerance * float(wanted.norm()), path


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_kohya_round_trip_is_the_identity(tmp_path: Path, dtype: torch.dtype) -> None:
    first = load_adapter(
        kohya_file(tmp_path / "a.safetensors", random_parts(rank=lambda i: 1 + i % 4), metadata={"ss_output_name": "x"}).path
    )
    second = load_adapter(save_adapter(first, tmp_path / "b.safetensors", "kohya", dtype))
    assert_equal(first, second)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("alpha", [2.0, 3.0])
def test_one_more_round_trip_changes_nothing(tmp_path: Path, dialect: Dialect, alpha: float) -> None:
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts(alpha=alpha)).path)
    first = load_adapter(save_adapter(source, tmp_path / "b.safetensors", dialect))
    second = load_adapter(save_adapter(first, tmp_path / "c.safetensors", dialect))
    assert_same_change(source, first, 1e-3)
    assert_equal(first, second)
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_mixed_alphas_and_ranks_keep_the_change(tmp_path: Path, dialect: Dialect, dtype: torch.dtype, tolerance: float) -> None:
    made = kohya_file(tmp_path / "a.safetensors", random_parts(rank=lambda i: 1 + i % 5, alpha=lambda i: (1.0, 7.3, 2.0)[i % 3]))
    source = load_adapter(made.path)
    assert_same_change(source, load_adapter(save_adapter(source, tmp_path / "b.safetensors", dialect, dtype)), tolerance)


def test_expanded_factors_are_written_as_plain_lora(tmp_path: Path) -> None:
    source = load_adapter(lycoris_file(tmp_path / "a.safetensors", LohaModule, lora_dim=2, alpha=1.0).path)
    saved = save_adapter(source, tmp_path / "b.safetensors")
    assert all(name.endswith((".lora_up.weight", ".lora_down.weight", ".alpha")) for name in load_file(saved))
    assert_same_change(source, load_adapter(saved), 1e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_alpha_of_zero_is_written_as_no_change(tmp_path: Path, dialect: Dialect) -> None:
    saved = load_adapter(save_adapter(one(torch.ones(4, 2), torch.ones(2, 3), 0.0), tmp_path / "a.safetensors", dialect))
    assert torch.equal(saved.modules[TO_Q].delta(), torch.zeros(4, 3))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_negative_alpha_is_written_as_a_negative_change(tmp_path: Path, dialect: Dialect) -> None:
    saved = save_adapter(one(torch.ones(4, 2), torch.ones(2, 3), -2.0), tmp_path / "a.safetensors", dialect)
    assert all(float(value) > 0 for name, value in load_file(saved).items() if name.endswith(".alpha"))
    assert torch.equal(load_adapter(saved).modules[TO_Q].delta(), torch.full((4, 3), -2.0))


@given(low=st.integers(-24, 15), high=st.integers(-24, 15), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_fp16_keeps_lopsided_factors(tmp_path_factory: pytest.TempPathFactory, low: int, high: int, seed: int) -> None:
    if not -26 <= low + high <= 26:
        return  # the change itself is too small or too great for a pair of fp16 factors
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.rand(5, 3, generator=generator) + 0.5, torch.rand(3, 4, generator=generator) + 0.5
    adapter = one(up * 2.0**low, down * 2.0**high, 3.0)
    saved = load_adapter(save_adapter(adapter, tmp_path_factory.mktemp("f") / "a.safetensors"))
    assert_same_change(adapter, saved, 1e-3)


def test_the_text_encoder_and_convolutions_are_spelled_as_loaders_expect(tmp_path: Path) -> None:
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts()).path)
    kohya = load_file(save_adapter(source, tmp_path / "k.safetensors", "kohya"))
    assert set(kohya) == set(load_file(tmp_path / "a.safetensors"))
    assert kohya["lora_unet_conv_in.lora_down.weight"].shape == (4, 4, 3, 3)
    assert kohya["lora_unet_conv_in.lora_up.weight"].shape == (16, 4, 1, 1)
    assert kohya["lora_unet_conv_in.alpha"].dtype == torch.float32
    names = set(load_file(save_adapter(source, tmp_path / "d.safetensors", "diffusers")))
    assert names == {f"{path}.lora_{half}.weight" for path in SHAPES for half in "AB"}


def test_the_header_declares_ranks_and_alphas_for_diffusers(tmp_path: Path) -> None:
    parts = random_parts(rank=lambda i: 2 if i == 0 else 4)
    saved = save_adapter(load_adapter(kohya_file(tmp_path / "a.safetensors", parts).path), tmp_path / "d.safetensors", "diffusers")
    with safe_open(saved, "pt") as file:
        fields = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (fields["unet.r"], fields["unet.lora_alpha"]) == (4, 4)
    assert fields["unet.rank_pattern"] == fields["unet.alpha_pattern"] == {TO_Q.removeprefix("unet."): 2}
    assert "encoder.layers.0.self_attn.q_proj" in fields["text_encoder.target_modules"]


def test_metadata_of_other_tensors_are_dropped(tmp_path: Path) -> None:
    metadata = {
        "ss_network_dim": "4",
        "sshs_model_hash": "x",
        "modelspec.hash_sha256": "y",
        "lora_adapter_metadata": "{}",
        "modelspec.author": "me",
    }
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts(), metadata=metadata).path)
    assert load_adapter(save_adapter(source, tmp_path / "b.safetensors")).metadata == {"modelspec.author": "me"}
    assert load_adapter(save_adapter(source, tmp_path / "c.safetensors", metadata={"a": "b"})).metadata == {"a": "b"}


def test_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    """safetensors itself puts the metadata in another order each time."""
    metadata = {f"key{i}": str(i) for i in range(20)}
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts()).path)
    for index, order in enumerate((metadata, dict(reversed(metadata.items())))):
        save_adapter(source, tmp_path / f"{index}.safetensors", metadata=order)
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    header = json.loads((tmp_path / "0.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    assert list(header) == ["__metadata__", *sorted(set(header) - {"__metadata__"})]
    assert list(header["__metadata__"]) == sorted(metadata)


def test_order_of_modules_does_not_matter(tmp_path: Path) -> None:
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts()).path)
    backwards = Adapter("x", {path: source.modules[path] for path in sorted(source.modules, reverse=True)})
    first, second = (
        save_adapter(source, tmp_path / "1.safetensors", metadata={}),
        save_adapter(backwards, tmp_path / "2.safetensors", metadata={}),
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(AdapterError, match="cannot be written: No space left on device — check that the folder exists"):
        save_adapter(one(torch.ones(2, 1), torch.ones(1, 2), 1.0), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"none/a\.safetensors: cannot be written: No such file or directory"):
        save_adapter(one(torch.ones(2, 1), torch.ones(1, 2), 1.0), tmp_path / "none" / "a.safetensors")


@pytest.mark.parametrize(
    ("adapter", "problem"),
    [
        (Adapter("empty", {}), "the adapter 'empty' has no modules"),
        (one(torch.full((2, 1), float("nan")), torch.ones(1, 2), 1.0), "up has values that are not finite"),
        (one(torch.full((2, 1), 1e9), torch.full((1, 2), 1e9), 1.0), "not finite as torch.float16 — check the weights, or use fp32"),
        (one(torch.ones(2, 0), torch.ones(0, 2), 1.0), "rank 0"),
    ],
)
def test_values_that_cannot_be_written(tmp_path: Path, adapter: Adapter, problem: str) -> None:
    with pytest.raises(AdapterError) as caught:
        save_adapter(adapter, tmp_path / "a.safetensors")
    assert problem in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unknown_dialects_and_dtypes(tmp_path: Path) -> None:
    adapter = one(torch.ones(2, 1), torch.ones(1, 2), 1.0)
    with pytest.raises(AdapterError, match=r"unknown dialect 'webui' — use one of kohya, diffusers"):
        save_adapter(adapter, tmp_path / "a.safetensors", "webui")  # type: ignore[arg-type]  # a wrong value is meant
    with pytest.raises(AdapterError, match=r"cannot be written as torch\.int8"):
        save_adapter(adapter, tmp_path / "a.safetensors", dtype=torch.int8)
