"""Several embedders as one: equal weights, names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives import EmbedderEnsemble, EmbedderError, FakeEmbedder, embedder_names, load_embedder
from studies.demo.world import demo_embedder


def pictures(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_distances_are_the_mean_of_the_embedders() -> None:
    found = load_embedder(f"{demo_embedder()},fake:")
    assert isinstance(found, EmbedderEnsemble)
    assert found.name == f"{demo_embedder()},fake:"
    one, other = pictures(0), pictures(1)
    torch.testing.assert_close(found(one).norm(dim=1), torch.ones(3))
    each = [(part(one) - part(other)).square().sum(dim=1) for part in (load_embedder(demo_embedder()), FakeEmbedder())]
    torch.testing.assert_close((found(one) - found(other)).square().sum(dim=1), (each[0] + each[1]) / 2)


def test_a_folder_whose_name_holds_commas_is_one_embedder(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    assert embedder_names(str(folder)) == [str(tmp_path / "a"), "b"]
    folder.mkdir()
    assert embedder_names(str(folder)) == [str(folder)]


def test_an_embedder_is_named_once() -> None:
    with pytest.raises(EmbedderError, match="fake:,fake:: an embedder is named twice — name each once"):
        load_embedder("fake:,fake:")


def test_the_one_that_is_missing_is_named() -> None:
    with pytest.raises(EmbedderError) as caught:
        load_embedder("fake:,ViT-B-32/nobody")
    assert str(caught.value).startswith("ViT-B-32/nobody: ")
