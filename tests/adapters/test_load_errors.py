"""Bad files: each gives one error that names the file, the tensor and what to do."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from optimizer.adapters import load_adapter
from optimizer.adapters.files.container import read_header, read_tensors
from optimizer.errors import AdapterError
from tests.files import ATTENTION, LINEAR, TEXT, diffusers_file, edited, kohya_file, kohya_name, random_parts

TO_Q = kohya_name(f"{ATTENTION}.attn1.to_q")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return kohya_file(tmp_path / "good.safetensors", random_parts()).path


def raised(path: Path, allow_unknown: bool = False) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        load_adapter(path, allow_unknown=allow_unknown)
    assert caught.value.file == path
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    return caught.value


def test_missing(tmp_path: Path) -> None:
    assert "does not exist" in str(raised(tmp_path / "no.safetensors"))


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in str(raised(tmp_path))


def test_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.safetensors")
    assert "not a regular file" in str(raised(tmp_path / "p.safetensors"))


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "back.safetensors")
    (tmp_path / "back.safetensors").symlink_to(tmp_path / "loop.safetensors")
    (tmp_path / "lost.safetensors").symlink_to(tmp_path / "gone.safetensors")
    for name in ("loop", "back", "lost"):
        assert raised(tmp_path / f"{name}.safetensors").problem == "is a symbolic link that leads nowhere"


def test_a_link_to_a_file_is_read(good: Path, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(good)
    assert load_adapter(tmp_path / "link.safetensors").sha256 == load_adapter(good).sha256


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:8] + b" " + data[8:], lambda data: b""]
)
def test_a_file_that_changes_while_it_is_read(good: Path, change: Callable[[bytes], bytes]) -> None:
    header = read_header(good)
    good.write_bytes(change(good.read_bytes()))
    with pytest.raises(AdapterError, match="changed while it was being read — run again when the file is complete"):
        read_tensors(header)


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes((90_000_000).to_bytes(8, "little"))
    os.truncate(path, 90_000_100)
    tracemalloc.start()
    assert "its header takes 90 MB, which no adapter needs" in raised(path).problem
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_long_header_of_nothing(tmp_path: Path) -> None:
    entries = b",".join(b'"%d":{}' % i for i in range(900_000))
    assert "the header's entry is malformed" in raised(with_header(tmp_path / "h.safetensors", b"{" + entries + b"}")).problem


def test_a_hundred_thousand_strange_weights(tmp_path: Path) -> None:
    """Work on names must grow as their number does: were it with the square, this one test would take as long as all others."""
    entries = {f"a{i}.weight": {"dtype": "F16", "shape": [1], "data_offsets": [2 * i, 2 * i + 2]} for i in range(100_000)}
    problem = raised(with_header(tmp_path / "h.safetensors", entries, b"\0" * 200_000)).problem
    assert problem == "is no LoRA: none of its 100000 tensors is a factor of one, the first is a0.weight"


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "e.safetensors").touch()
    assert "is empty" in str(raised(tmp_path / "e.safetensors"))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".PTH"])
def test_pickles_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"\x80\x04.")
    error = raised(path)
    assert "pickled code" in error.problem
    assert "convert it to .safetensors" in error.remedy


@pytest.mark.parametrize(
    "text",
    [
        b"hi",
        b"This is a text file, not a LoRA at all.\n" * 40,
        b"<!DOCTYPE html><html>" * 20,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_text_file_by_the_right_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(text)
    assert "not a safetensors file" in raised(path).problem


def with_header(path: Path, header: object, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"not json!", "its header cannot be read"),
        (b'{"a": 1, "a": 2}', "a name occurs twice"),
        (b"[" * 100_000, "its header cannot be read"),
        ([], "its header is not a table"),
        ({"__metadata__": {"a": 1}}, "not a table of strings"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "malformed"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "malformed"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, "has 400 bytes; its shape (1,) of F32 needs 4"),
        ({"__metadata__": {}}, "holds no tensor"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: object, problem: str) -> None:
    assert problem in raised(with_header(tmp_path / "h.safetensors", header)).problem


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}, "has 4 bytes; its shape (3,) of F32 needs 12"),
        ({"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}, "has the dtype 'Q9', which is not read"),
        ({"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "U8", "shape": [3], "data_offsets": [1, 4]}, "overlaps with another tensor, or leaves a gap before it"),
    ],
)
def test_a_header_that_contradicts_itself(tmp_path: Path, entry: dict[str, object], problem: str) -> None:
    path = with_header(tmp_path / "h.safetensors", {f"{TO_Q}.alpha": entry}, b"\0" * 4)
    error = raised(path)
    assert problem in error.problem
    assert error.key == f"{TO_Q}.alpha"


def test_tensors_that_share_bytes(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    error = raised(with_header(tmp_path / "h.safetensors", {f"{TO_Q}.alpha": entry, "b": {**entry, "data_offsets": [2, 6]}}, b"\0" * 6))
    assert (error.key, error.problem) == ("b", "overlaps with another tensor, or leaves a gap before it")


def test_a_header_of_odd_length(tmp_path: Path, good: Path) -> None:
    """Its tensors stand where the processor cannot address them; the library accepts it, and so does this."""
    data = good.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    odd = tmp_path / "odd.safetensors"
    odd.write_bytes((end - 7).to_bytes(8, "little") + data[8:end] + b" " + data[end:])
    wanted = load_adapter(good).modules
    assert all(torch.equal(factors.delta(), wanted[path].delta()) for path, factors in load_adapter(odd).modules.items())


@pytest.mark.parametrize("keep", [4, 40, 0.5, -1])
def test_truncated(good: Path, keep: float) -> None:
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else int(keep)])
    raised(good)


def test_bytes_after_the_end(good: Path) -> None:
    good.write_bytes(good.read_bytes() + b"\0\0")
    assert "cut off or damaged" in raised(good).problem


def test_unreadable_metadata_json(tmp_path: Path) -> None:
    parts = random_parts(LINEAR)
    path = tmp_path / "a.safetensors"
    tensors = {f"{m}.lora_B.weight": p.up for m, p in parts.items()} | {f"{m}.lora_A.weight": p.down for m, p in parts.items()}
    save_file(tensors, path, {"lora_adapter_metadata": "{"})
    error = raised(path)
    assert error.key == "lora_adapter_metadata"
    assert "not valid JSON" in error.problem


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"unet.lora_alpha": "x"}, "alpha that is not a number"),
        ({"unet.lora_alpha": 0}, "alpha that is not a number above 0: [0]"),
        ({"unet.lora_alpha": 1, "unet.alpha_pattern": {"to_q": -2}}, "alpha that is not a number above 0: [1, -2]"),
        ({"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+$": 2}}, "is not a module name"),
        ({"unet.use_dora": True}, "belongs to a DoRA, as the file's settings say, and its magnitude is missing"),
    ],
)
def test_declarations_that_cannot_be_used(tmp_path: Path, config: dict[str, object], problem: str) -> None:
    assert problem in raised(diffusers_file(tmp_path / "a.safetensors", random_parts(LINEAR), config=config).path).problem


Change = Callable[[dict[str, Tensor]], None]


def put(name: str, value: Tensor) -> Change:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "key", "problem"),
    [
        (lambda t: t.pop(f"{TO_Q}.lora_up.weight"), f"{TO_Q}.lora_down.weight", "its other half, up, is missing"),
        (lambda t: t.pop(f"{TO_Q}.lora_down.weight"), f"{TO_Q}.lora_up.weight", "its other half, down, is missing"),
        (lambda t: [t.pop(f"{TO_Q}.lora_{half}.weight") for half in ("up", "down")], f"{TO_Q}.alpha", "stands alone"),
        (put(f"{TO_Q}.lora_down.weight", torch.ones(3, 16)), f"{TO_Q}.lora_down.weight", "(16, 4) @ (3, 16)"),
        (put(f"{TO_Q}.lora_down.weight", torch.ones(4)), f"{TO_Q}.lora_down.weight", "has 1 dimensions"),
        (put(f"{TO_Q}.lora_up.weight", torch.ones(16, 4, 3, 3)), f"{TO_Q}.lora_up.weight", "is not a matrix"),
        (put(f"{TO_Q}.lora_mid.weight", torch.ones(4, 5, 3, 3)), f"{TO_Q}.lora_mid.weight", "does not multiply"),
        (put(f"{TO_Q}.lora_up.weight", torch.full((16, 4), float("nan"))), f"{TO_Q}.lora_up.weight", "64 of 64 values are NaN"),
        (put(f"{TO_Q}.lora_down.weight", torch.full((4, 16), float("inf"))), f"{TO_Q}.lora_down.weight", "NaN or infinite"),
        (put(f"{TO_Q}.lora_down.weight", torch.ones(0, 16)), f"{TO_Q}.lora_down.weight", "has no elements: shape (0, 16)"),
        (put(f"{TO_Q}.lora_down.weight", torch.ones(4, 16).int()), f"{TO_Q}.lora_down.weight", "torch.int32, not floating"),
        (put(f"{TO_Q}.alpha", torch.tensor(float("inf"))), f"{TO_Q}.alpha", "NaN or infinite"),
        (put(f"{TO_Q}.alpha", torch.tensor(0.0)), f"{TO_Q}.alpha", "is 0, which sd-scripts reads as alpha = rank"),
        (put(f"{TO_Q}.alpha", torch.tensor(-4.0)), f"{TO_Q}.alpha", "is -4, and no trainer writes a negative one"),
        (put(f"{TO_Q}.alpha", torch.tensor(float("nan"))), f"{TO_Q}.alpha", "1 of 1 values are NaN or infinite"),
        (put(f"{TO_Q}.alpha", torch.ones(2)), f"{TO_Q}.alpha", "is not one number: shape (2,)"),
        (put(f"{TO_Q}.hada_w1_a", torch.ones(16, 4)), f"{TO_Q}.hada_w1_a", "does not belong beside down"),
        (put(f"{TO_Q}.dora_scale", torch.ones(16, 1)), f"{TO_Q}.dora_scale", "is DoRA"),
        (put(f"unet.{ATTENTION.removeprefix('unet.')}.attn1.to_q.lora_A.weight", torch.ones(4, 16)), None, "stands for the same as"),
    ],
)
def test_damaged_tensors(good: Path, tmp_path: Path, change: Change, key: str | None, problem: str) -> None:
    error = raised(edited(good, tmp_path / "bad.safetensors", change))
    assert problem in error.problem
    assert key is None or error.key == key


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (8, 2)}, "hada_w2_b, is missing"),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (3, 6), "hada_w2_a": (8, 2), "hada_w2_b": (2, 6)}, "do not multiply"),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (7, 2), "hada_w2_b": (2, 6)}, "its product is 7 × 6, the first one 8 × 6"),
        (
            {"hada_w1_a": (8, 2), "hada_w1_b": (2, 6), "hada_w2_a": (8, 2), "hada_w2_b": (2, 6), "hada_t1": (2, 2, 3, 3)},
            "hada_t2, is missing",
        ),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 2)}, "lokr_w2_b, is missing"),
        ({"lokr_w1": (2, 2)}, "lokr_w2_a, is missing"),
        ({"lokr_w1": (2, 2), "lokr_w1_a": (2, 1), "lokr_w2": (2, 2)}, "does not belong beside lokr_w1"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (3, 4)}, "do not multiply"),
    ],
)
def test_damaged_lycoris_tensors(tmp_path: Path, tensors: dict[str, tuple[int, ...]], problem: str) -> None:
    save_file({f"{TO_Q}.{role}": torch.ones(shape) for role, shape in tensors.items()}, tmp_path / "l.safetensors")
    assert problem in raised(tmp_path / "l.safetensors").problem


def test_a_convolution_whose_columns_do_not_fill_its_kernel(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_resnets_0_conv1"
    factors = {"hada_w1_a": (8, 2), "hada_w1_b": (2, 10), "hada_w2_a": (8, 2), "hada_w2_b": (2, 10)}
    save_file({f"{name}.{role}": torch.ones(shape) for role, shape in factors.items()}, tmp_path / "l.safetensors")
    assert "10 columns do not fill a convolution with kernel (3, 3)" in raised(tmp_path / "l.safetensors").problem


def strange(tensors: dict[str, Tensor], count: int) -> None:
    tensors.update({f"lora_unet_cross_blocks_{i}_1_proj_in.lora_up.weight": torch.ones(1) for i in range(count)})


def test_unknown_tensors_are_listed_up_to_ten(good: Path, tmp_path: Path) -> None:
    names = [f"lora_unet_{letter}_blocks_0_proj_in.lora_up.weight" for letter in "abcdefghijklm"]
    error = raised(edited(good, tmp_path / "bad.safetensors", lambda t: t.update({name: torch.ones(1) for name in names})))
    assert "13 of 58 tensors are not understood" in error.problem
    assert error.problem.count("_blocks_0_proj_in.lora_up") == 10
    assert "; and 3 more" in error.problem
    assert error.remedy == "check that the file belongs to a supported base model, or leave these out with --allow-unknown"


def test_unknown_tensors_that_differ_in_numbers_are_one_entry(good: Path, tmp_path: Path) -> None:
    error = raised(edited(good, tmp_path / "bad.safetensors", lambda t: strange(t, 13)))
    assert error.problem == (
        "13 of 58 tensors are not understood: lora_unet_cross_blocks_0_1_proj_in.lora_up.weight and 12 like it "
        "(no known module; nearest pattern: lora_unet_output_blocks_9_1_proj_in)"
    )


def test_unknown_tensors_can_be_left_out(good: Path, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "bad.safetensors", lambda t: strange(t, 2))
    adapter = load_adapter(path, allow_unknown=True)
    assert set(adapter.modules) == set(load_adapter(good).modules)
    assert set(adapter.coverage.unknown) == {f"lora_unet_cross_blocks_{i}_1_proj_in.lora_up.weight" for i in range(2)}
    assert all(reason == "no known module" for reason in adapter.coverage.unknown.values())
    assert not set(adapter.coverage.unknown) & set(adapter.coverage.understood)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bundle_emb.hero.string_to_param.*", "an embedding of the prompt that came with the LoRA"),
        (f"{TO_Q}.diff_b", "a change of a bias"),
        ("lora_unet_conv_in.w_norm", "a trained normalisation layer"),
        ("base_model.model.text_model.embeddings.token_embedding.lora_embedding_A", "a LoRA on an embedding table"),
    ],
)
def test_what_the_rest_makes_sense_without_can_be_left_out(good: Path, tmp_path: Path, name: str, kind: str) -> None:
    path = edited(good, tmp_path / "more.safetensors", lambda t: t.update({name: torch.ones(4)}))
    error = raised(path)
    assert error.problem == f"is {kind}, which cannot be merged as a low-rank sum (1 tensors)"
    assert error.remedy.endswith(", or leave these out with --allow-unknown")
    adapter = load_adapter(path, allow_unknown=True)
    assert adapter.coverage.unknown == {name: kind}
    assert set(adapter.modules) == set(load_adapter(good).modules)


def test_what_changes_the_rest_cannot_be_left_out(good: Path, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "more.safetensors", lambda t: t.update({f"{TO_Q}.reshape_weight": torch.ones(4)}))
    assert "replaces or reshapes the base weight" in raised(path, allow_unknown=True).problem


@pytest.mark.parametrize("allow_unknown", [False, True])
@pytest.mark.parametrize(
    ("name", "what"),
    [("model.diffusion_model.out.2.weight", "a whole model, not a LoRA"), ("decoder.conv_in.weight", "no LoRA"), ("emb_params", "no LoRA")],
)
def test_a_checkpoint_is_not_a_lora(tmp_path: Path, name: str, what: str, allow_unknown: bool) -> None:
    save_file({name: torch.ones(2)}, tmp_path / "c.safetensors")
    error = raised(tmp_path / "c.safetensors", allow_unknown=allow_unknown)
    assert error.problem == f"is {what}: none of its 1 tensors is a factor of one, the first is {name}"
    assert error.remedy == (
        "name a LoRA, LoHa or LoKr file of a supported base model, not a checkpoint, which --base takes, or an embedding"
    )


def test_dora_is_refused_even_when_unknown_tensors_are_allowed(good: Path, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "bad.safetensors", put(f"{TO_Q}.dora_scale", torch.ones(16, 1)))
    assert "DoRA" in raised(path, allow_unknown=True).problem


def test_the_same_projection_fused_and_apart(tmp_path: Path) -> None:
    fused, apart = "lora_unet_double_blocks_0_img_attn_qkv", "transformer.transformer_blocks.0.attn.to_k"
    tensors = {f"{fused}.lora_up.weight": torch.ones(24, 2), f"{fused}.lora_down.weight": torch.ones(2, 8)}
    tensors |= {f"{apart}.lora_B.weight": torch.ones(8, 2), f"{apart}.lora_A.weight": torch.ones(2, 8)}
    save_file(tensors, tmp_path / "a.safetensors")
    error = raised(tmp_path / "a.safetensors")
    assert "stands for the same as" in error.problem
    assert "split it" in error.remedy


def test_a_fused_projection_with_too_few_rows(tmp_path: Path) -> None:
    name = "lora_unet_single_blocks_0_linear1"
    save_file({f"{name}.lora_up.weight": torch.ones(48, 2), f"{name}.lora_down.weight": torch.ones(2, 8)}, tmp_path / "a.safetensors")
    assert raised(tmp_path / "a.safetensors").problem == "has 48 rows and 8 columns; 4 projections need 7 · 8 rows"


def test_a_peft_configuration_of_another_kind(tmp_path: Path) -> None:
    diffusers_file(tmp_path / "adapter_model.safetensors", random_parts(TEXT), prefix="base_model.model.")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    with pytest.raises(AdapterError, match=r"adapter_config\.json.*'VERA'"):
        load_adapter(tmp_path / "adapter_model.safetensors")


@given(place=st.floats(0, 1), value=st.binary(min_size=1, max_size=12))
@settings(deadline=None, max_examples=150)
def test_any_damage_is_an_adapter_error_or_no_damage(tmp_path_factory: pytest.TempPathFactory, place: float, value: bytes) -> None:
    path = tmp_path_factory.mktemp("d") / "a.safetensors"
    kohya_file(path, random_parts(TEXT, rank=1))
    data = bytearray(path.read_bytes())
    start = int(place * (len(data) - len(value)))
    data[start : start + len(value)] = value
    path.write_bytes(data)
    with suppress(AdapterError):
        assert load_adapter(path).modules


def test_names_from_a_file_cannot_steer_the_terminal(good: Path, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "bad.safetensors", put("\x1b[2Jlora\nx.lora_up.weight", torch.ones(1)))
    assert r"\x1b[2Jlora x.lora_up.weight" in str(raised(path))
    assert str(raised(path)).isprintable()
