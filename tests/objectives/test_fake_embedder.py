"""The fake embedder: unit vectors that follow the pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from objectives import EmbedderError, FakeEmbedder, load_embedder


def pictures(count: int = 5, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("size", [4, 8, 16, 30])
def test_unit_vectors_of_pictures_of_any_size(size: int) -> None:
    vectors = FakeEmbedder()(pictures(size=size))
    assert (vectors.shape, vectors.dtype) == ((5, 64), torch.float32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


def test_a_picture_has_one_vector_in_every_batch() -> None:
    found = FakeEmbedder()
    together, alone = found(pictures()), torch.cat([found(picture[None]) for picture in pictures()])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-7)


def test_pictures_that_are_alike_have_vectors_that_are() -> None:
    images = pictures(2)
    near = images[0].clone()
    near[:, :2, :2] = 128
    first, second, like = FakeEmbedder()(torch.stack([*images, near]))
    assert first @ like > 0.9 > first @ second


def test_every_process_sees_the_same() -> None:
    program = "import torch; from objectives import FakeEmbedder; x = torch.arange(192, dtype=torch.uint8).reshape(1, 3, 8, 8)\n"
    program += "print(FakeEmbedder()(x).numpy().tobytes().hex())"
    said = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1


def test_it_is_loaded_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake:").mkdir()
    found = load_embedder("fake:", device="cuda")
    assert isinstance(found, FakeEmbedder)
    assert found.name == "fake:"
    with pytest.raises(EmbedderError) as caught:
        load_embedder("fake:size=8")
    assert str(caught.value) == "fake:size=8: the fake embedder has no settings — write fake:"
