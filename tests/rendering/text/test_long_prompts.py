"""Long and weighted prompts in every family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizer.errors import UsageError
from optimizer.rendering import Prompt, Renderer, RenderSettings
from optimizer.rendering.prompt_encoding import encode_texts
from optimizer.rendering.text.encodings import encoding_named
from optimizer.rendering.text.prompt_weights import parse_prompt
from optimizer.rendering.text.weighted_states import _weight_states
from tests.rendering.test_families import KINDS

CPU = torch.device("cpu")
LONG = "a red fox, on a hill, at sea"


@pytest.fixture(params=KINDS)
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return Renderer(KINDS[request.param](), RenderSettings(steps=1, guidance=3.0, resolution=32))


def states(renderer: Renderer, text: str) -> dict[str, Any]:
    with torch.inference_mode():
        return encode_texts(renderer._record, renderer.pipeline, [text], CPU, renderer._skip)[text]


def test_the_weighing_path_gives_diffusers_own_states_of_plain_text(renderer: Renderer) -> None:
    with torch.inference_mode():
        own = encoding_named(renderer._record.encoding).plain(renderer.pipeline, ["a fox"], CPU, None)
        found = encoding_named(renderer._record.encoding).weighted(renderer.pipeline, parse_prompt("a fox"), CPU, None)
    assert own.keys() == found.keys()
    assert all(torch.equal(own[name], found[name]) for name in own)
    assert all(torch.equal(own[name], states(renderer, "(a:1.0) fox")[name]) for name in own)


def test_a_weight_scales_its_tokens(renderer: Renderer) -> None:
    plain, weighted = (states(renderer, text)["prompt_embeds"] for text in ("a fox", "a (fox:1.5)"))
    factors = torch.ones(plain.shape[1])
    if renderer._record.chunked:
        factors[2:5] = 1.5  # start, a, f, o, x
    if renderer._record.t5_tokenizer and renderer.pipeline.components[renderer._record.t5_tokenizer] is not None:
        begin = renderer.pipeline.tokenizer.model_max_length if renderer._record.chunked else 0
        factors[begin + 2 : begin + 6] = 1.5  # space, a, space, f, o, x
    expected = plain * factors[:, None]
    if renderer._record.title.startswith("SD 1"):  # 2.x too
        expected = expected * plain.mean() / expected.mean()
    torch.testing.assert_close(weighted, expected)


def test_a_chunk_whose_mean_is_zero_is_weighed_and_not_scaled() -> None:
    states, weights = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]]), torch.tensor([[1.0, 1.5]])
    assert torch.equal(_weight_states(states, weights, keep_mean=True), torch.tensor([[[1.0, -1.0], [3.0, -3.0]]]))
    assert torch.equal(_weight_states(states, torch.ones(1, 2), keep_mean=True), states)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 3.0]])
def test_states_whose_mean_is_zero_have_gradients(weights: list[float]) -> None:
    states = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(_weight_states(states, torch.tensor([weights]), keep_mean=True).sum(), states)
    assert gradient[0, :, 0].tolist() == weights


def test_the_end_of_a_long_prompt_is_seen(renderer: Renderer) -> None:
    one, other = (states(renderer, text)["prompt_embeds"] for text in (LONG, f"{LONG} x"))
    assert one.shape == other.shape
    assert not torch.equal(one, other)


def test_prompts_of_all_lengths_in_one_batch_are_drawn_as_alone(renderer: Renderer) -> None:
    prompts = [Prompt(text, 1) for text in ("a fox", "a (fox)", LONG, f"{LONG}, {LONG}", "a fox BREAK b")]
    alone = torch.cat([renderer.render([prompt]) for prompt in prompts])
    assert (renderer.render(prompts).int() - alone.int()).abs().max() <= 1
    if renderer._record.negates:
        renderer.settings = RenderSettings(steps=1, guidance=3.0, resolution=32, negative=f"{LONG}, (fog)")
        assert renderer.render(prompts).shape[0] == len(prompts)


def test_short_and_long_prompts_in_turn_fill_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(KINDS["sd1"](), RenderSettings(steps=1, guidance=3.0, resolution=32, batch=4))
    prompts = [Prompt(text, seed) for seed in range(5) for text in ("a fox", LONG)]
    alone = torch.cat([renderer.render([prompt]) for prompt in prompts])
    sizes, told = list[int](), list[int]()
    batch = Renderer._batch

    def counted(renderer: Renderer, some: Sequence[Prompt], *states: Any) -> Tensor:
        sizes.append(len(some))
        return batch(renderer, some, *states)

    monkeypatch.setattr(Renderer, "_batch", counted)
    assert (renderer.render(prompts, tick=told.append).int() - alone.int()).abs().max() <= 1
    assert sizes == [4, 4, 1, 1]
    assert told == [4, 8, 9, 10]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_layer_of_clip_that_is_asked_for_holds_for_weights(kind: str) -> None:
    renderer = Renderer(KINDS[kind](), RenderSettings(clip_skip=2 if kind == "sd1" else 3))
    encoding, pipeline, skip = encoding_named(renderer._record.encoding), renderer.pipeline, renderer._skip
    assert skip == 1
    with torch.inference_mode():
        own, found = encoding.plain(pipeline, ["a fox"], CPU, skip), encoding.weighted(pipeline, parse_prompt("a fox"), CPU, skip)
    assert all(torch.equal(own[name], found[name]) for name in own)


def test_what_t5_does_not_read_is_an_error(renderer: Renderer) -> None:
    if not renderer._record.t5_tokenizer or renderer.pipeline.components[renderer._record.t5_tokenizer] is None:
        return
    with pytest.raises(UsageError, match=r"the prompt 'aaa.*…' has 302 tokens for T5, of which .* reads 256 — shorten it"):
        renderer.special([Prompt("a" * 300, 1)])
    assert renderer.special([Prompt("(a)", 1)])
    assert not renderer.special([Prompt("a", 1)])
