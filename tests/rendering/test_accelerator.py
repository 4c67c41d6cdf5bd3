"""Accelerators in a loaded base: everything is drawn with them, beside candidates of every kind, in the weights or in branches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from optimizer.adapters import Adapter
from optimizer.calibration.live.model import LiveModel
from optimizer.errors import BaseModelError
from optimizer.merging import Recipe, merge
from optimizer.rendering import Loading, Prompt, Renderer, RenderSettings, Subject, load_pipeline, load_renderer
from optimizer.rendering.accelerator import add_accelerator
from optimizer.rendering.loading import Apply
from tests.rendering.candidates.test_branches import BRANCH, base_state, change, farthest, same
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_v2_pipeline, tiny_xl_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2)]
SETTINGS = RenderSettings(steps=2, guidance=3.0, resolution=32, batch=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bases") / "sd"
    tiny_pipeline().save_pretrained(place)
    return place


def both(*adapters: Adapter) -> Adapter:
    return merge(list(adapters), Recipe(method="concat", weights=[1.0] * len(adapters)))


@pytest.mark.parametrize("apply", ["weights", "branch"])
def test_base_and_candidates_are_drawn_with_it(base: Path, apply: Apply) -> None:
    plain = Renderer(tiny_pipeline(), SETTINGS)
    fast, candidate = change(plain.pipeline, seed=1), change(plain.pipeline, rank=2, seed=2)
    renderer = load_renderer(str(base), SETTINGS, Loading(device="cpu", apply=apply), accelerator=fast)
    assert isinstance(renderer, Renderer)
    before = base_state(renderer.pipeline)
    for adapter, wanted in ((None, fast), (candidate, both(fast, candidate)), (None, fast)):
        assert farthest(renderer.render(PROMPTS, adapter), plain.render(PROMPTS, wanted)) <= 1
    assert farthest(renderer.render(PROMPTS, candidate), plain.render(PROMPTS, candidate)) > 5
    assert same(base_state(renderer.pipeline), before)


@pytest.mark.parametrize("kind", ["int8", "gguf"])
def test_it_stands_in_branches_beside_quantised_weights(tmp_path: Path, kind: str) -> None:
    """CLIP's weights are plain and take it, T5's and the transformer's do not."""
    pytest.importorskip("torchao")
    from tests.rendering.pipelines.test_quantisation import as_gguf

    pipeline: Any = tiny_flux_pipeline(width=32)
    pipeline.save_pretrained(tmp_path / "flux")
    loading = Loading(device="cpu", quantize="int8")
    if kind == "gguf":
        loading = Loading(device="cpu", denoiser=str(as_gguf(pipeline.transformer, tmp_path / "flux-Q8_0.gguf")))
    exact = Renderer(pipeline, SETTINGS)
    fast, candidate = change(pipeline, seed=1, strength=0.1), change(pipeline, rank=2, seed=2)
    narrow = replace(candidate, modules={path: factors for path, factors in candidate.modules.items() if "to_q" in path})
    renderer = load_renderer(str(tmp_path / "flux"), SETTINGS, loading, accelerator=fast)
    drawn = renderer.render(PROMPTS)
    for adapter, wanted in ((None, fast), (candidate, both(fast, candidate)), (narrow, both(fast, narrow)), (None, fast)):
        assert farthest(renderer.render(PROMPTS, adapter), exact.render(PROMPTS, wanted)) <= 8
    assert farthest(drawn, exact.render(PROMPTS)) > 20
    assert torch.equal(renderer.render(PROMPTS), drawn)


def test_compositions_and_routed_merges_are_drawn_with_it() -> None:
    """In the branches of PEFT as in the weights: the branches of the solver are beside both."""
    plain, fast = tiny_pipeline(), change(tiny_pipeline(), seed=1)
    adapters = [replace(change(plain, rank=2, seed=seed, strength=0.03), name=name) for seed, name in ((2, "a"), (3, "b"))]
    inside = tiny_pipeline()
    assert add_accelerator(inside, fast, CPU) is None
    found = []
    for renderer in (Renderer(inside, SETTINGS), Renderer(plain, SETTINGS, placement=BRANCH, standing=fast)):
        live = LiveModel.of(renderer, adapters, [Subject("a", "style", ""), Subject("b", "character", "zig")])
        found.append(renderer.render(PROMPTS, live.composed(live.teacher)))
    assert farthest(*found) <= 1
    without = LiveModel.of(Renderer(tiny_pipeline(), SETTINGS), adapters, live.subjects)
    assert farthest(found[0], without.renderer.render(PROMPTS, without.composed(without.teacher))) > 5


def test_one_that_does_not_fit_is_refused(base: Path) -> None:
    xl = replace(change(tiny_xl_pipeline()), name="lightning", base="sdxl")
    problem = "is for Stable Diffusion XL, the base model is of SD 1.x and 2.x — give an accelerator that is made for the base model"
    with pytest.raises(BaseModelError) as caught:
        load_renderer(str(base), SETTINGS, Loading(device="cpu"), accelerator=xl)
    assert str(caught.value) == f"--with lightning: {problem}"
    pipeline = load_pipeline(base, device="cpu", dtype=torch.float32)
    before = base_state(pipeline)
    with pytest.raises(BaseModelError, match=r"^--with wide: does not fit the base model: unet\.conv_in: the adapter changes a weight"):
        add_accelerator(pipeline, replace(change(tiny_pipeline(widths=(32, 32, 24, 24))), name="wide"), CPU)
    assert same(base_state(pipeline), before)


def test_another_model_draws_if_it_is_of_the_family(base: Path, tmp_path: Path) -> None:
    tiny_pipeline(seed=1).save_pretrained(tmp_path / "turbo")
    tiny_v2_pipeline().save_pretrained(tmp_path / "two")
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    drawn = load_renderer(str(tmp_path / "turbo"), SETTINGS, Loading(device="cpu"), trained_on=str(base)).render(PROMPTS)
    assert torch.equal(drawn, Renderer(tiny_pipeline(seed=1), SETTINGS).render(PROMPTS))
    with pytest.raises(BaseModelError) as caught:
        load_renderer(str(tmp_path / "xl"), SETTINGS, Loading(device="cpu"), trained_on=str(base))
    assert str(caught.value) == (
        f"--eval-base {tmp_path / 'xl'}: is of SDXL, the base model is of SD 1.x and 2.x — name a model of the base model's family"
    )
    with pytest.raises(BaseModelError, match="nothing: does not exist"):
        load_renderer(str(tmp_path / "turbo"), SETTINGS, Loading(device="cpu"), trained_on=str(tmp_path / "nothing"))
