"""Every cell of the table of formats: the file is read module by module as what it says, and written dialects come back the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from optimizer.adapters import Adapter, Dialect, load_adapter, save_adapter
from tests.formats import DIALECTS, VERSIONS, cells, make, page

WRITTEN: tuple[Dialect, ...] = ("kohya", "diffusers", "comfyui")


def assert_same(adapter: Adapter, deltas: dict[str, Tensor], tolerance: float) -> None:
    assert set(adapter.modules) == set(deltas)
    for path, wanted in deltas.items():
        got = adapter.modules[path].delta().reshape(wanted.shape)
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()), msg=path)


@pytest.mark.parametrize(("dialect", "family", "kind"), list(cells()))
def test_read(tmp_path: Path, dialect: str, family: str, kind: str) -> None:
    made = make(tmp_path / "a.safetensors", dialect, family, kind, metadata={"ss_base_model_version": VERSIONS[family]})
    adapter = load_adapter(made.path)
    assert_same(adapter, made.deltas, 2e-6)
    assert adapter.base == family
    assert not adapter.coverage.unknown


@pytest.mark.parametrize("family", VERSIONS)
@pytest.mark.parametrize("first", WRITTEN)
@pytest.mark.parametrize("second", WRITTEN)
def test_round_trip(tmp_path: Path, family: str, first: Dialect, second: Dialect) -> None:
    """read(write(read(write(read(file))))) changes what the file changes, whichever two dialects it went through."""
    made = make(tmp_path / "a.safetensors", first, family, "LoRA", metadata={"ss_base_model_version": VERSIONS[family]})
    once = load_adapter(save_adapter(load_adapter(made.path), tmp_path / "b.safetensors", second, torch.float32))
    again = load_adapter(save_adapter(once, tmp_path / "c.safetensors", first, torch.float32))
    assert once.base == again.base == family
    assert_same(once, made.deltas, 1e-6)
    assert_same(again, made.deltas, 1e-6)


@pytest.mark.parametrize("dialect", WRITTEN)
@pytest.mark.parametrize("family", VERSIONS)
def test_written_names_are_those_of_the_dialect(tmp_path: Path, family: str, dialect: Dialect) -> None:
    from safetensors import safe_open

    made = make(tmp_path / "a.safetensors", "diffusers", family, "LoRA")
    path = save_adapter(replace(load_adapter(made.path), base=family), tmp_path / "b.safetensors", dialect)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    suffixes = (*DIALECTS[dialect].suffixes, *((".alpha",) if DIALECTS[dialect].alphas else ()))
    assert names == {weight.name + suffix for weight in DIALECTS[dialect].weights(family) for suffix in suffixes}


def test_the_page_shows_this_table() -> None:
    assert (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8") == page(), (
        "run: python -m tests.formats > docs/formats.md"
    )
