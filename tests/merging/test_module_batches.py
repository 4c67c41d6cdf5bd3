"""Stacks: merging many modules at once gives what merging them one by one gives, on any device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.merging import METHODS, Merger, merge
from optimizer.merging import module_batches as module_of_stacks
from optimizer.merging.module_batches import stacks
from tests.merging.samples import LOSSY, PATHS, UNCALIBRATED, assert_same_change, make_adapter, recipe

every_setting = pytest.mark.parametrize("setting", LOSSY, ids=lambda s: "-".join(str(v) for v in s.values()))
BLOCKS = {"IN04": "down_blocks.1.attentions.0", "IN05": "down_blocks.1.attentions.1", "IN07": "down_blocks.2.attentions.0"}
TWINS = {f"unet.{block}.transformer_blocks.0.attn1.{leaf}": (16, 12) for block in BLOCKS.values() for leaf in ("to_k", "to_q", "to_v")}


@pytest.fixture
def pair() -> list[Adapter]:
    """Two sources of nine modules of one shape, of which the second lacks one."""
    paths = list(TWINS)
    return [make_adapter(1, 3, paths=paths, base="sd1", shapes=TWINS), make_adapter(2, 4, 1.0, paths=paths[1:], base="sd1", shapes=TWINS)]


def only(adapter: Adapter, path: str) -> Adapter:
    return replace(adapter, modules={path: adapter.modules[path]} if path in adapter.modules else {})


@every_setting
def test_a_stack_gives_what_its_modules_give_one_by_one(setting: dict[str, object], pair: list[Adapter]) -> None:
    assert sorted(len(stack.paths) for stack in stacks(pair)) == [1, 8]
    whole = merge(pair, recipe(setting, 0.8, -0.5))
    for path in TWINS:
        alone = merge([only(adapter, path) for adapter in pair], recipe(setting, 0.8, -0.5))
        assert_same_change(alone, replace(whole, modules={path: whole.modules[path]}), tolerance=1e-5)


@every_setting
def test_the_order_of_the_modules_does_not_matter(setting: dict[str, object], pair: list[Adapter]) -> None:
    turned = [replace(adapter, modules=dict(reversed(list(adapter.modules.items())))) for adapter in pair]
    assert_same_change(merge(turned, recipe(setting, 0.8, -0.5)), merge(pair, recipe(setting, 0.8, -0.5)), tolerance=0)


@every_setting
def test_a_merger_that_keeps_its_stacks_merges_again_and_again_as_merge_does(setting: dict[str, object], pair: list[Adapter]) -> None:
    merger = Merger(pair, keep=True)
    before = [term.up.clone() for stack in merger.stacks() for term in stack.terms]
    for weights in ((0.8, -0.5), (1.0, 0.3), (0.8, -0.5)):
        assert_same_change(merger.merge(recipe(setting, *weights)), merge(pair, recipe(setting, *weights)), tolerance=0)
    assert all(torch.equal(a, b) for a, b in zip(before, (t.up for s in merger.stacks() for t in s.terms), strict=True))


@pytest.mark.parametrize("method", UNCALIBRATED)
def test_modules_of_one_stack_with_different_live_sources_come_apart_rightly(method: str, pair: list[Adapter]) -> None:
    """The first source is off in one block, the second in another, both in the third."""
    setting = {"method": method, **({"rank": 3} if METHODS[method].rank == "required" else {})}
    setting |= {"density": 0.5} if METHODS[method].reads("density") else {}
    merged = merge(pair, recipe(setting, 0.8, 0.5, blocks=({"IN04": 0.0, "IN07": 0.0}, {"IN05": 0.0, "IN07": 0.0, "IN04": 0.5})))
    assert set(merged.modules) == {p for p in TWINS if BLOCKS["IN05"] in p or (BLOCKS["IN04"] in p and p in pair[1].modules)}
    for path, factors in merged.modules.items():
        weights = (0.0, 0.25) if BLOCKS["IN04"] in path else (0.8, 0.0)
        alone = merge([only(adapter, path) for adapter in pair], recipe(setting, *weights))
        assert_same_change(replace(merged, modules={path: factors}), alone, tolerance=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(weights=st.lists(st.sampled_from([0.0, 0.4, 1.0, -0.7]), min_size=9, max_size=9))
def test_deltas_of_a_stack_hold_each_live_module_once_with_its_weights(weights: list[float]) -> None:
    sources = [make_adapter(i, paths=list(TWINS), shapes=TWINS) for i in (1, 2)]
    (stack,) = stacks(sources)
    table = torch.tensor([weights, weights[::-1]])
    seen: set[str] = set()
    for deltas in stack.deltas(table, ["a", "b"]):
        assert bool((deltas.weights != 0).all())
        for column, path in enumerate(deltas.paths):
            at = stack.paths.index(path)
            assert deltas.weights[:, column].tolist() == [float(w) for w in table[:, at] if w]
            assert float(deltas.total[column]) == pytest.approx(float(table[:, at].abs().sum()))
            members = [i for i in range(2) if table[i, at]]
            for term, index in zip(deltas.terms, members, strict=True):
                torch.testing.assert_close(term.dense()[column], sources[index].modules[path].delta())
            assert path not in seen
            seen.add(path)
    assert seen == {p for i, p in enumerate(stack.paths) if bool(table[:, i].any())}


@every_setting
def test_stacks_of_one_module_each_give_the_same_merge(
    setting: dict[str, object], pair: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = merge(pair, recipe(setting, 0.8, -0.5))
    monkeypatch.setattr(module_of_stacks, "_FEW", 1)
    assert {len(stack.paths) for stack in stacks(pair)} == {1}
    assert_same_change(merge(pair, recipe(setting, 0.8, -0.5)), whole, tolerance=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a CUDA device with the CPU, and there is none")
@every_setting
def test_a_cuda_device_computes_what_the_cpu_computes(setting: dict[str, object], pair: list[Adapter]) -> None:
    for sources in (pair, [make_adapter(1), make_adapter(2, 5, 2.0, paths=PATHS[1:])]):
        there = merge(sources, recipe(setting, 0.8, -0.5), device="cuda")
        back = {path: replace(f, up=f.up.cpu(), down=f.down.cpu()) for path, f in there.modules.items()}
        assert_same_change(replace(there, modules=back), merge(sources, recipe(setting, 0.8, -0.5)), tolerance=1e-4)
