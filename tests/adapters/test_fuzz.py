"""Damaged files by the thousand: each is refused with an AdapterError, or read as what it says, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from optimizer.adapters import Adapter, load_adapter
from optimizer.errors import AdapterError
from tests.files import CONVOLUTION, LINEAR, TEXT, kohya_file, kohya_name, random_parts
from tests.formats import DIALECTS

SHAPES = dict([*LINEAR.items()][:3] + [*TEXT.items()][:1] + [*CONVOLUTION.items()][:2])
FLUX = ("double_blocks_0_img_attn_qkv", "single_blocks_1_linear1", "final_layer_adaLN_modulation_1", "double_blocks_1_txt_mlp_0")
FUSED = {weight.name: weight for weight in DIALECTS["kohya"].weights("flux1") if weight.name.removeprefix("lora_unet_") in FLUX}
PATHS: dict[str, Mapping[str, slice | Tensor]] = {
    **{kohya_name(path): {path: slice(None)} for path in {**LINEAR, **TEXT, **CONVOLUTION}},
    **{name: weight.modules for name, weight in FUSED.items()},
}
"""Module as a file calls it → canonical path → its rows of the weight."""

FILES = st.sampled_from(["sd1", "flux1"])
ROLES = {"lora_up.weight": "up", "lora_down.weight": "down", "lora_A.weight": "down", "alpha": "alpha"}
SUFFIXES = (*(f".{suffix}" for suffix in ROLES), ".dora_scale", ".diff", ".hada_w1_a", "")
DTYPES = ("F16", "BF16", "F32", "F64", "I8", "U16", "I64", "F8_E4M3", "BOOL", "X", "", 3)
NUMBERS = st.one_of(st.integers(-4, 600), st.sampled_from([2**31, 2**63, 10**30, -1, 1.5, "2", None, True, [1]]))

Entries = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sound files with alphas: linear layers, convolutions and a text encoder of a U-Net; fused projections of a transformer."""
    folder = tmp_path_factory.mktemp("fuzz")
    unet = kohya_file(folder / "a.safetensors", random_parts(SHAPES, rank=2)).path.read_bytes()
    parts = random_parts({name: weight.shape for name, weight in FUSED.items()}, rank=2)
    tensors = {f"{name}.lora_up.weight": part.up for name, part in parts.items()}
    tensors |= {f"{name}.lora_down.weight": part.down for name, part in parts.items()}
    return {"sd1": unet, "flux1": save(tensors | {f"{name}.alpha": torch.tensor(part.alpha) for name, part in parts.items()})}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "damaged.safetensors"


def judge(path: Path, data: bytes) -> str:
    """Whether the file was ``refused`` or ``read``; fails where it was read as something else than what its tensors say."""
    path.write_bytes(data)
    read = loaded(path)
    if isinstance(read, AdapterError):
        assert read.file == path
        assert read.remedy
        assert "\n" not in str(read)
        assert len(str(read)) < 4000
        return "refused"
    assert_as_written(read, load(data))
    return "read"


def loaded(path: Path) -> Adapter | AdapterError:
    try:
        return load_adapter(path)
    except AdapterError as error:
        return error


def assert_as_written(adapter: Adapter, tensors: dict[str, Tensor]) -> None:
    """Every module is (alpha / rank) · up @ down of the tensors that bear its name, and no tensor is left.

    Of fused projections, one may be missing that does not change.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        stem, _, suffix = name.partition(".")
        assert modules.setdefault(stem, {}).setdefault(ROLES[suffix], tensor) is tensor, f"{name}: a second one"
    places = {path: stem for stem in modules for path in PATHS[stem]}
    assert set(adapter.modules) <= set(places)
    for path, stem in places.items():
        roles, rows = modules[stem], PATHS[stem][path]
        up, down = roles["up"].float().flatten(1), roles["down"].float().flatten(1)
        alpha = float(roles["alpha"]) if "alpha" in roles else len(down)
        wanted = (alpha / len(down) * (up @ down))[rows]
        if path not in adapter.modules:
            assert len(PATHS[stem]) > 1
            assert not wanted.any()
        else:
            torch.testing.assert_close(adapter.modules[path].delta().flatten(1), wanted, rtol=1e-4, atol=1e-6)


def packed(entries: Entries, body: bytes, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, int, Any]]:
    """Up to three changes of a header: what to do, to which entry, with what."""
    kinds = {
        "rename": st.sampled_from(sorted(PATHS)).flatmap(lambda stem: st.sampled_from([stem + suffix for suffix in SUFFIXES])),
        "respell": st.text(max_size=12),
        "dtype": st.sampled_from(DTYPES),
        "shape": st.lists(NUMBERS, max_size=5),
        "transpose": st.none(),
        "offsets": st.lists(NUMBERS, min_size=1, max_size=3),
        "shift": st.integers(-8, 8),
        "swap": st.integers(0, 40),
        "drop": st.none(),
        "entry": st.sampled_from([None, 1, "x", [], {}, {"dtype": "F16"}]),
        "metadata": st.sampled_from([None, [], {"a": 1}, {"ss_network_alpha": "2"}, {"lora_adapter_metadata": "{"}]),
    }
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(kinds)))
        found.append((kind, draw(st.integers(0, 40)), draw(kinds[kind])))
    return found


def mutated(entries: Entries, changes: list[tuple[str, int, Any]]) -> Entries:
    for kind, index, value in changes:
        names = [name for name in entries if name != "__metadata__"]
        name = names[index % len(names)] if names else ""
        entry = entries.get(name)
        if kind == "metadata":
            entries["__metadata__"] = value
        elif kind == "drop":
            entries.pop(name, None)
        elif kind == "entry":
            entries[name] = value
        elif kind in ("rename", "respell") and names:
            entries = {(value if kind == "rename" else name + value) if key == name else key: e for key, e in entries.items()}
        elif isinstance(entry, dict) and entry.keys() >= {"shape", "data_offsets"}:
            _change(entries, names, entry, kind, value)
    return entries


def _change(entries: Entries, names: list[str], entry: Entries, kind: str, value: Any) -> None:
    if kind == "transpose":
        entry["shape"] = entry["shape"][::-1]
    elif kind == "shift" and all(isinstance(n, int) for n in entry["data_offsets"]):
        entry["data_offsets"] = [n + value for n in entry["data_offsets"]]
    elif kind == "swap":
        other = entries[names[value % len(names)]]
        if isinstance(other, dict) and "data_offsets" in other:
            entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    elif kind in ("dtype", "shape", "offsets"):
        entry["data_offsets" if kind == "offsets" else kind] = value


@settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=FILES, changes=mutations())
def test_changed_headers(whole: dict[str, bytes], place: Path, which: str, changes: list[tuple[str, int, Any]]) -> None:
    data = whole[which]
    length = int.from_bytes(data[:8], "little")
    judge(place, packed(mutated(json.loads(data[8 : 8 + length]), changes), data[8 + length :]))


@settings(deadline=None, max_examples=800)
@given(which=FILES, where=st.integers(0, 2**20), value=st.binary(min_size=1, max_size=8), header=st.booleans())
def test_overwritten_bytes(whole: dict[str, bytes], place: Path, which: str, where: int, value: bytes, header: bool) -> None:
    data = whole[which]
    start = where % (8 + int.from_bytes(data[:8], "little") if header else len(data))
    judge(place, (data[:start] + value + data[start + len(value) :])[: len(data)])


@settings(deadline=None, max_examples=300)
@given(which=FILES, start=st.integers(0, 2**20), count=st.integers(0, 400), extra=st.binary(max_size=16))
def test_lost_and_inserted_bytes(whole: dict[str, bytes], place: Path, which: str, start: int, count: int, extra: bytes) -> None:
    start %= len(whole[which])
    data = whole[which][:start] + extra + whole[which][start + count :]
    assert judge(place, data) == "refused" or len(data) == len(whole[which])


@settings(deadline=None, max_examples=200)
@given(which=FILES, length=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 5000)))
def test_false_header_lengths(whole: dict[str, bytes], place: Path, which: str, length: int) -> None:
    data = length.to_bytes(8, "little") + whole[which][8:]
    assert judge(place, data) == "refused" or length == int.from_bytes(whole[which][:8], "little")


@pytest.mark.parametrize("which", ["sd1", "flux1"])
def test_the_whole_file_is_read(whole: dict[str, bytes], place: Path, which: str) -> None:
    assert judge(place, whole[which]) == "read"
