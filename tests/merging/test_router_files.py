"""Files of routers: named by their content, read back exactly, refused where they are damaged or foreign."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from optimizer.adapters.files.container import serialise
from optimizer.errors import AdapterError, RecipeError
from optimizer.merging import Router, load_router, router_path, save_router
from tests.merging.samples import PATHS, make_adapter, random_router, uneven_sources


def test_a_router_survives_being_written(tmp_path: Path) -> None:
    for found in (random_router(uneven_sources()), Router.alone(uneven_sources(), 1)):
        path = save_router(found, tmp_path / "study" / "routers")
        assert path == router_path(tmp_path / "study" / "routers", found.hash)
        assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest() == found.hash
        again = load_router(path)
        assert (again.sources, again.ranks, again.hash) == (found.sources, found.ranks, found.hash)
        assert all(torch.equal(again.matrices[p], found.matrices[p]) for p in PATHS)
        assert save_router(again, tmp_path / "study" / "routers") == path
    assert len(list((tmp_path / "study" / "routers").iterdir())) == 2


def test_other_readers_of_safetensors_see_the_matrices(tmp_path: Path) -> None:
    found = random_router(uneven_sources())
    assert all(torch.equal(tensor, found.matrices[path]) for path, tensor in load_file(save_router(found, tmp_path)).items())


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    found = random_router(uneven_sources())
    code = "from tests.merging.samples import random_router, uneven_sources; print(random_router(uneven_sources()).hash)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
        assert done.stdout.strip() == found.hash, done.stderr


def written(folder: Path, data: bytes) -> Path:
    """A file under the name that its content asks for."""
    path = folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_router(path)
    return str(caught.value)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = save_router(random_router(uneven_sources()), tmp_path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    changed = hashlib.sha256(data).hexdigest()
    assert refusal(path) == (f"{path}: damaged or renamed: the content has SHA-256 {changed} — restore the file, or solve the router again")


def test_a_file_that_is_cut_off_or_missing_is_refused(tmp_path: Path) -> None:
    path = save_router(random_router(uneven_sources()), tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    assert refusal(path).startswith(f"{path}: cut off or damaged: the header asks for ")
    path.write_bytes(b"nothing of the kind")
    assert refusal(path).startswith(f"{path}: not a safetensors file")
    path.unlink()
    assert refusal(path) == f"{path}: does not exist — restore the file, or solve the router again"


def test_a_file_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    save_file({"a.lora_up.weight": torch.ones(2, 2)}, lora)
    assert refusal(lora) == f"{lora}: is no router — name a file that save_router wrote, in a folder 'routers'"
    newer = written(tmp_path, serialise({"a": torch.ones(1)}, {"router_format": "2", "router": "{}"}))
    assert refusal(newer).startswith(f"{newer}: the router has the format version '2'; this version reads '1' — update this software")


SHA = make_adapter(1).sha256
HEADERS: list[tuple[object, str]] = [
    ("{", "damaged: the header does not tell sources and ranks — "),
    ({"sources": [SHA]}, "damaged: the header does not tell sources and ranks — "),
    ({"sources": ["abc"], "ranks": {"a": [1]}}, "damaged: the header does not tell sources and ranks — "),
    ({"sources": [SHA], "ranks": {"a": [-1]}}, "damaged: the header does not tell sources and ranks — "),
    ({"sources": [SHA], "ranks": {"a": [2]}}, "a: the router has the shape (1,); sources of ranks 2 need (2, 2) or (2,) — "),
    ({"sources": [SHA], "ranks": {"b": [1]}}, "a: the router has no ranks of this module — "),
    ({"sources": [SHA], "ranks": {"a": [1]}, "more": 1}, "damaged: the header does not tell sources and ranks — "),
    ({"sources": [SHA], "ranks": {"a": [1]}, "texts": {"a": [1 << 40, 4]}}, "damaged: the header does not tell sources and ranks — "),
    ({"sources": [SHA], "ranks": {"a": [1]}, "texts": {"b": [4, 4]}}, "b: the router has no matrix of this module — "),
    ({"ranks": {"a": [1]}, "sources": [SHA]}, "not written by save_router: equal routers have other bytes — "),
]


@pytest.mark.parametrize(("told", "message"), HEADERS)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, told: object, message: str) -> None:
    text = told if isinstance(told, str) else json.dumps(told)
    path = written(tmp_path, serialise({"a": torch.ones(1)}, {"router_format": "1", "router": text, "more": "x"}))
    assert refusal(path).startswith(f"{path}: {message}")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterError, match=rf"^{tmp_path}/file/routers: cannot be made: .* — check the folder's permissions"):
        save_router(Router.identity(uneven_sources()), tmp_path / "file" / "routers")
