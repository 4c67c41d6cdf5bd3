"""The fake renderer: the same bytes everywhere, linear in ΔW until pixels are full, and failures that repeat."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from optimizer import Adapter, Recipe, load_adapter, merge
from optimizer.errors import TrialError, UsageError
from optimizer.merging import Merger
from optimizer.rendering import FakeRenderer, Loading, Prompt, RenderSettings, load_renderer
from optimizer.rendering.fake_spec import FakeSpec
from tests.files import CONVOLUTION, LINEAR, kohya_file, random_parts

PROMPTS = [Prompt(text, seed) for text in ("a cat", "a dog", "a zig at sea") for seed in (1, 2)]
REMEDY = "write fake: with any of latency=SECONDS, fail=SHARE, oom=SHARE, size=PIXELS, such as fake:latency=0.2&fail=0.1"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    folder, shapes = tmp_path_factory.mktemp("sources"), {**LINEAR, **CONVOLUTION}
    files = [kohya_file(folder / f"{n}.safetensors", random_parts(shapes, rank=2 + n, seed=n)).path for n in range(2)]
    return [load_adapter(file) for file in files]


def renderer(sources: list[Adapter], spec: str = "fake:", *, batch: int = 8, resolution: int | None = None) -> FakeRenderer:
    made = FakeRenderer(FakeSpec.of(spec), RenderSettings(batch=batch, resolution=resolution))
    for source in sources:
        assert made.fit_adapter(source) is source
    return made


def mixed(sources: list[Adapter], *weights: float) -> Adapter:
    return merge(sources, Recipe(method="linear", weights=weights))


def stronger(adapter: Adapter, strength: float) -> Adapter:
    return replace(adapter, modules={p: replace(f, alpha=strength * f.alpha) for p, f in adapter.modules.items()})


def test_pictures_are_of_the_size_asked_for(sources: list[Adapter]) -> None:
    pictures = renderer(sources, "fake:size=12").render(PROMPTS)
    assert (pictures.shape, pictures.dtype) == ((6, 3, 12, 12), torch.uint8)
    assert renderer(sources, "fake:size=12", resolution=24).render(PROMPTS[:1]).shape == (1, 3, 24, 24)
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(PROMPTS)


def test_the_batch_changes_nothing_and_every_batch_ticks(sources: list[Adapter]) -> None:
    ticks: list[int] = []
    one = renderer(sources, batch=4).render(PROMPTS, sources[0], tick=ticks.append)
    assert ticks == [4, 6]
    assert torch.equal(one, renderer(sources, batch=1).render(PROMPTS, sources[0]))


_ELSEWHERE = """
import hashlib, sys
from optimizer import load_adapter
from optimizer.rendering import FakeRenderer, Loading, Prompt, RenderSettings
from optimizer.rendering.fake_spec import FakeSpec
made = FakeRenderer(FakeSpec.of("fake:"), RenderSettings())
source = made.fit_adapter(load_adapter(sys.argv[1]))
pictures = [made.render([Prompt("a cat", 1)], adapter) for adapter in (None, source)]
print([hashlib.sha256(p.numpy().tobytes()).hexdigest() for p in pictures])
"""


def test_every_process_draws_the_same(tmp_path: Path) -> None:
    file = str(kohya_file(tmp_path / "a.safetensors", random_parts(LINEAR)).path)
    said = [subprocess.run([sys.executable, "-c", _ELSEWHERE, file], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0] == said[1]
    assert len(set(said[0].split(","))) == 2


def test_only_the_product_of_the_factors_matters(sources: list[Adapter]) -> None:
    """up·R and R⁻¹·down are the same adapter."""
    modules = {}
    for path, factors in sources[0].modules.items():
        mixing = torch.eye(factors.rank) + 0.5 * torch.ones(factors.rank, factors.rank)
        up, down = factors.up.float() @ mixing, torch.linalg.inv(mixing) @ factors.down.float()
        modules[path] = replace(factors, up=up, down=down)
    made, same = renderer(sources), replace(sources[0], modules=modules)
    difference = made.render(PROMPTS, same).int() - made.render(PROMPTS, sources[0]).int()
    assert int(difference.abs().max()) <= 1
    assert float(difference.abs().float().mean()) < 0.01


def test_every_module_matters_and_matters_smoothly(sources: list[Adapter]) -> None:
    made, whole = renderer(sources, "fake:size=64"), sources[0].modules
    reference = made.render(PROMPTS, sources[0]).int()
    for path, factors in whole.items():
        moved = []
        for strength in (0.0, 0.99):
            changed = replace(sources[0], modules={**whole, path: replace(factors, alpha=strength * factors.alpha)})
            moved.append(float((made.render(PROMPTS, changed).int() - reference).abs().float().mean()))
        assert moved[0] > moved[1], path
        assert moved[1] < 1, path


def test_a_weighted_sum_moves_pictures_by_the_sum(sources: list[Adapter]) -> None:
    made = renderer(sources)
    base, first, second, both = (
        made.render(PROMPTS, adapter).double() for adapter in (None, *(mixed(sources, *w) for w in ((0.4, 0), (0, 0.3), (0.4, 0.3))))
    )
    moved = [pictures - base for pictures in (first, second, both)]
    inside = (both > 0) & (both < 255) & (first > 0) & (first < 255) & (second > 0) & (second < 255)
    assert inside.double().mean() > 0.95
    assert float((moved[2] - moved[0] - moved[1])[inside].abs().max()) <= 3
    cosine = torch.nn.functional.cosine_similarity(moved[0].flatten(), moved[1].flatten(), dim=0)
    assert abs(float(cosine)) < 0.7
    assert all(float(m.abs().mean()) > 4 for m in moved)


def test_too_much_burns_pictures_out(sources: list[Adapter]) -> None:
    made = renderer(sources)
    clipped = [
        float(((p == 0) | (p == 255)).double().mean()) for p in (made.render(PROMPTS, mixed(sources, w, w)) for w in (0.5, 1.0, 2.0, 4.0))
    ]
    assert clipped == sorted(clipped)
    assert clipped[0] < 0.02
    assert clipped[-1] > 0.3


def test_the_strongest_source_is_seen_however_small_its_numbers_are(sources: list[Adapter]) -> None:
    small = [stronger(s, 1e-6) for s in sources]
    found, expected = renderer(small).render(PROMPTS, small[0]).int(), renderer(sources).render(PROMPTS, sources[0]).int()
    assert int((found - expected).abs().max()) <= 1


def test_a_change_of_nothing_is_the_base(sources: list[Adapter]) -> None:
    nothing = Adapter(name="nothing", modules={}, base="unknown")
    for made in (renderer(sources, "fake:fail=1"), renderer([nothing])):
        assert torch.equal(made.render(PROMPTS, nothing), made.render(PROMPTS))


def test_latency_is_spent_and_changes_nothing(sources: list[Adapter], monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pictures = renderer(sources, "fake:latency=0.3", batch=2).render(PROMPTS, sources[0])
    assert sum(slept) == pytest.approx(0.3)
    assert torch.equal(pictures, renderer(sources).render(PROMPTS, sources[0]))


def outcomes(made: FakeRenderer, source: Adapter) -> list[str]:
    found = []
    for step in range(200):
        merged = stronger(source, 1.1 + 0.01 * step)
        try:
            made.render(PROMPTS[:1], merged)
        except (TrialError, torch.OutOfMemoryError) as error:
            found.append(str(error))
        else:
            found.append("")
    return found


def test_the_shares_asked_for_fail_and_the_same_ones_again(sources: list[Adapter]) -> None:
    found = outcomes(renderer(sources, "fake:fail=0.3&oom=0.2&size=4"), sources[0])
    assert found == outcomes(renderer(sources, "fake:fail=0.3&oom=0.2&size=8&latency=0.0001"), sources[0])
    nan = "1 of 1 pictures hold NaN, the first is 'a cat' with seed 1 — lower fail in the fake base's settings"
    memory = "fake: out of memory"
    assert set(found) == {"", nan, memory}
    assert 0.2 < found.count(nan) / 200 < 0.4
    assert 0.1 < found.count(memory) / 200 < 0.3


def test_sources_and_the_base_never_fail(sources: list[Adapter]) -> None:
    made = renderer(sources, "fake:fail=1")
    rounded = Merger(sources, "cpu").merge(Recipe(method="linear", weights=(1.0, 0.0)), dtype=torch.float16)
    for adapter in (None, *sources, rounded):
        made.render(PROMPTS, adapter)
    with pytest.raises(TrialError):
        made.render(PROMPTS, mixed(sources, 1.0, 1.0))


def test_a_base_is_turned_into_its_renderer() -> None:
    with pytest.raises(UsageError, match="--vae: a fake base has no autoencoder — leave it out"):
        load_renderer("fake:", RenderSettings(), Loading(vae="x"))
    made = load_renderer("fake:size=8", RenderSettings(), Loading(device="cuda"))
    assert isinstance(made, FakeRenderer)
    assert (made.device.type, made.precision) == ("cpu", "cpu torch.float64")


def test_settings_are_read_from_the_name() -> None:
    assert FakeSpec.of("fake:") == FakeSpec()
    assert FakeSpec.of("fake:latency=0.2&fail=0.1&oom=0.05&size=8") == FakeSpec(0.2, 0.1, 0.05, 8)


def test_the_identity_leaves_the_latency_out_and_spells_one_base_in_one_way() -> None:
    assert FakeSpec.of("fake:latency=2&size=8").identity == FakeSpec.of("fake:size=8&fail=0.0").identity == "fake:fail=0.0&oom=0.0&size=8"
    assert FakeSpec.of("fake:fail=0.1").identity != FakeSpec.of("fake:").identity


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("fake:speed=1", "a fake base has no setting 'speed'"),
        ("fake:latency", "'latency' is not a list of settings"),
        ("fake:?fail=1", "a fake base has no setting '?fail'"),
        ("fake:fail=", "fail is '', not a share from 0 to 1"),
        ("fake:fail=1.5", "fail is '1.5', not a share from 0 to 1"),
        ("fake:oom=nan", "oom is 'nan', not a share from 0 to 1"),
        ("fake:latency=-1", "latency is '-1', not a number from 0 to 3600"),
        ("fake:size=8.5", "size is '8.5', not a whole number from 4 to 512"),
        ("fake:size=2", "size is '2', not a whole number from 4 to 512"),
        ("fake:fail=0.1&fail=0.2", "fail is given twice"),
        ("fake:fail=0.6&oom=0.6", "fail and oom are 0.6 and 0.6, more than 1 together"),
    ],
)
def test_settings_that_cannot_be_used(spec: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        FakeSpec.of(spec)
    assert str(caught.value) == f"--base: {problem} — {REMEDY}"
