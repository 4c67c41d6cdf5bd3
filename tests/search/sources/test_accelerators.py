"""Accelerators of a run: which can be used, how several add up, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optimizer.errors import BaseModelError, UsageError
from optimizer.export import AcceleratorRecord, DrawnWith
from optimizer.rendering import RenderSettings
from optimizer.search.sources.accelerators import about_eval_base, advice_on_steps, drawn_with, joined, load_accelerators
from optimizer.search.sources.loras import LoraSource, load_loras
from tests.search.sources.test_run_sources import K, Q, inputs, made


@pytest.fixture
def sources(tmp_path: Path) -> list[LoraSource]:
    return load_loras(inputs(*(made(tmp_path, name, None, seed, ss_base_model_version="sd_v1") for seed, name in enumerate("ab"))))


def test_several_add_up_at_their_weights(sources: list[LoraSource], tmp_path: Path) -> None:
    lcm, fast = made(tmp_path, "lcm", None, 5), made(tmp_path, "fast", {Q: (24, 24), K: (24, 16)}, 6)
    found = load_accelerators([f"{lcm}:0.5", f"{fast}:-2"], sources, base="sd")
    first, second = (one.adapter.modules for one in found)
    whole = joined(found)
    assert whole is not None
    torch.testing.assert_close(whole.modules[Q].delta(), 0.5 * first[Q].delta() - 2 * second[Q].delta())
    torch.testing.assert_close(whole.modules[K].delta(), -2 * second[K].delta())
    assert joined(()) is None
    told = drawn_with(found, "", RenderSettings(steps=4, guidance=1.0))
    sha256 = [one.adapter.sha256 for one in found]
    assert told == DrawnWith(
        accelerators=(
            AcceleratorRecord(name="lcm", file="lcm.safetensors", sha256=sha256[0], weight=0.5),
            AcceleratorRecord(name="fast", file="fast.safetensors", sha256=sha256[1], weight=-2.0),
        ),
        steps=4,
        guidance=1.0,
    )
    assert told.text == "lcm at 0.5 and fast at -2"
    assert not drawn_with((), "", RenderSettings(steps=4, guidance=1.0))


def test_ones_that_cannot_be_used(sources: list[LoraSource], tmp_path: Path) -> None:
    lcm, (a, b) = made(tmp_path, "lcm", None, 5), (str(source.file) for source in sources)
    flux = made(tmp_path, "flux", None, 7, ss_base_model_version="sdxl_base_v1-0")
    for texts, message in {
        (lcm, b): f"--with {b}: is the same file as the source b — merge it, or draw with it: leave it out of --sources or of --with",
        (lcm, f"{lcm}:2"): f"--with {lcm}: is named twice — name every accelerator once",
        ("nothing:2",): "--with nothing: does not exist — check the path; a weight follows a colon, such as lcm.safetensors:0.8",
        ("demo:nothing",): "demo:nothing: there is no demo source 'nothing' — choose from ",
        (flux,): f"--with {flux}: is for Stable Diffusion XL (",
    }.items():
        with pytest.raises(UsageError) as caught:
            load_accelerators(texts, sources, base="sd")
        assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("), the sources are for Stable Diffusion 1.x — give an accelerator for the base model of the sources")
    assert a != b


def test_two_of_different_models_do_not_go_together(sources: list[LoraSource], tmp_path: Path) -> None:
    lcm, wide = made(tmp_path, "lcm", None, 5), made(tmp_path, "wide", {Q: (32, 32)}, 6)
    with pytest.raises(UsageError) as caught:
        joined(load_accelerators([lcm, wide], sources, base="sd"))
    assert str(caught.value) == (
        f"--with: {lcm} and {wide} do not go together: the sources change weights of different shapes (lcm: (24, 24), wide: (32, 32)) — "
        "give accelerators of one base model"
    )


def test_who_gives_no_steps_is_told_once(sources: list[LoraSource], tmp_path: Path) -> None:
    found, used = load_accelerators([made(tmp_path, "lcm", None, 5)], sources, base="sd"), RenderSettings(steps=20, guidance=7.0)
    assert advice_on_steps(found, None, used) == (
        "lcm: accelerators want few steps and a guidance near 1, such as --steps 8 --guidance 1; "
        "without --steps, pictures are drawn in 20 steps, with guidance 7"
    )
    assert (advice_on_steps(found, 20, used), advice_on_steps((), None, used)) == ("", "")


def test_the_model_that_draws_is_named_where_a_source_does_not_fit_it() -> None:
    error = BaseModelError("does not fit the base model: x", where="hero", remedy="use the base model that it was trained on")
    with pytest.raises(BaseModelError, match=r"^hero: does not fit"), about_eval_base(""):
        raise error
    with pytest.raises(BaseModelError) as caught, about_eval_base("turbo"):
        raise error
    wanted = "--eval-base turbo: the source hero does not fit the base model: x — name a model of the base model's family and size"
    assert str(caught.value) == wanted
