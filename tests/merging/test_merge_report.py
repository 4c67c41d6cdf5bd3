"""The merge report against the same numbers from dense matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.merging import Merger, Recipe, merge, merge_report
from tests.merging.samples import LOSSY, PATHS, make_adapter, recipe

WEIGHTS = (0.8, -0.5)


def vector(adapter: Adapter, paths: tuple[str, ...] = PATHS) -> Tensor:
    """All changes as one long vector; a missing module is left to zero."""
    full = make_adapter(0)
    parts = [adapter.modules[p].delta() if p in adapter.modules else torch.zeros(full.modules[p].shape) for p in paths]
    return torch.cat([part.double().flatten() for part in parts])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("setting", LOSSY, ids=lambda s: "-".join(str(v) for v in s.values()))
@pytest.mark.parametrize("paths", [PATHS, PATHS[1:2]], ids=["total", "one module"])
def test_report_equals_the_dense_numbers(setting: dict[str, object], paths: tuple[str, ...]) -> None:
    sources = [make_adapter(1, 4), make_adapter(2, 2, 1.0, paths=PATHS[1:])]
    r = recipe(setting, *WEIGHTS)
    merged = merge(sources, r)
    exact = {k: v for k, v in setting.items() if k != "rank"}
    ideal = vector(merge(sources, recipe({**exact, "rank": 64} if setting["method"] == "svd" else exact, *WEIGHTS)), paths)
    plain = sum(w * vector(s, paths) for w, s in zip(WEIGHTS, sources, strict=True))
    found, report = vector(merged, paths), merge_report(sources, r, merged)
    line = report.total if paths == PATHS else report.modules[paths[0]]
    assert isinstance(plain, Tensor)
    assert line.norm == pytest.approx(float(found.norm()), rel=1e-5)
    assert line.ideal_norm == pytest.approx(float(ideal.norm()), rel=1e-5)
    assert line.error == pytest.approx(float((found - ideal).norm() / ideal.norm()), rel=1e-4, abs=2e-6)
    assert line.energy == pytest.approx(float(found.norm() / ideal.norm()) ** 2, rel=1e-5)
    assert line.cosine_sum == pytest.approx(cosine(found, plain), abs=1e-5)
    assert line.cosine_sources == pytest.approx([cosine(found, vector(s, paths)) for s in sources], abs=1e-5)
    assert line.source_norms == pytest.approx([float(vector(s, paths).norm()) for s in sources], rel=1e-5)


def test_energy_and_error_of_a_truncation_add_up_to_one() -> None:
    sources, r = [make_adapter(1, 4), make_adapter(2, 4)], Recipe(method="svd", weights=(1.0, 1.0), rank=3)
    total = merge_report(sources, r, merge(sources, r)).total
    assert 0.05 < total.error < 0.95
    assert total.energy + total.error**2 == pytest.approx(1, abs=1e-5)


def test_a_module_lost_from_the_merge_is_seen() -> None:
    sources, r = [make_adapter(1)], Recipe(method="linear", weights=(1.0,))
    merged = merge(sources, r)
    lost = replace(merged, modules={p: f for p, f in merged.modules.items() if p != PATHS[0]})
    report = merge_report(sources, r, lost)
    assert report.modules[PATHS[0]].error == 1
    assert report.modules[PATHS[0]].energy == 0
    assert report.modules[PATHS[0]].cosine_sum == 0
    assert report.total.error == pytest.approx(sources[0].modules[PATHS[0]].norm() / report.total.ideal_norm)
    assert merge_report(sources, r, merged).total.error < 1e-6


def test_a_block_that_is_left_out_counts_as_zero_and_not_as_an_error() -> None:
    sources = [make_adapter(1)]
    r = Recipe(method="linear", weights=(1.0,), blocks=({"MID": 0.0},))
    report = merge_report(sources, r, merge(sources, r))
    middle = next(p for p in PATHS if "mid_block" in p)
    assert (report.modules[middle].error, report.modules[middle].energy, report.modules[middle].norm) == (0, 1, 0)
    assert report.modules[middle].source_norms[0] > 0
    assert report.total.cosine_sum == pytest.approx(1)
    assert report.total.cosine_sources[0] < 1


def test_block_weights_that_match_no_module_are_named() -> None:
    sources = [make_adapter(1), make_adapter(2, paths=PATHS[:2])]
    r = Recipe(method="linear", weights=(1.0, 1.0), blocks=({"IN04": 0.5, "OUT": 0.5, "OUT11": 0.1}, {"OUT": 0.5, "IN": 0.1, "TE": 0.4}))
    assert merge_report(sources, r, merge(sources, r)).idle_blocks == (("OUT11",), ("OUT",))
    plain = r.replaced(blocks=())
    assert merge_report(sources, plain, merge(sources, plain)).idle_blocks == ((), ())


def test_a_merge_of_no_source_loses_nothing_of_what_was_asked_for() -> None:
    sources = [make_adapter(1), make_adapter(2)]
    total = merge_report(sources, Recipe(method="linear", weights=(0.0, 0.0)), Adapter(name="nothing", modules={})).total
    assert (total.norm, total.ideal_norm, total.error, total.cosine_sum, total.cosine_sources) == (0, 0, 0, 0, (0, 0))


SIZED = ({"method": "linear"}, {"method": "svd", "prune": 0.05}, {"method": "ties", "density": 0.5, "rank": "full"})


@pytest.mark.parametrize("setting", [*LOSSY, *SIZED], ids=lambda s: "-".join(str(v) for v in s.values()))
def test_the_error_that_a_merge_tells_of_itself_is_that_of_the_report(setting: dict[str, object]) -> None:
    sources = [make_adapter(1, 4), make_adapter(2, 2, 1.0, paths=PATHS[1:])]
    r = recipe(setting, *WEIGHTS)
    found = Merger(sources).measured(r)
    assert found.error == pytest.approx(merge_report(sources, r, found.adapter).total.error, rel=1e-3, abs=1e-3)
