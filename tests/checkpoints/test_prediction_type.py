"""What single files say of their noise is honoured: tensors first, metadata second, ComfyUI's rule for Stable Diffusion 2 last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from optimizer.adapters.families import MODEL_TYPES
from optimizer.checkpoints.header import read_checkpoint_header
from optimizer.checkpoints.prediction_type import Noise, scheduler_with, stated_noise
from optimizer.rendering import Loading, RenderSettings, load_pipeline, load_renderer
from optimizer.rendering.pipelines.single_file import checkpoint_remarks
from tests.ldm import save_single_file
from tests.rendering.pipelines.test_single_file import sd3
from tests.tiny import tiny_flux_pipeline, tiny_pipeline

TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
WIDE, NARROW = torch.tensor([0.2, -0.2]), torch.tensor([0.01, -0.01])


def written(path: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file({"any": torch.ones(1), **tensors}, path, {f"modelspec.{name}": text for name, text in metadata.items()})
    return path


SAID: dict[str, tuple[dict[str, Tensor], dict[str, str], str, Noise]] = {
    "nothing": ({}, {}, "xl_base", Noise()),
    "a tensor": ({"v_pred": torch.zeros(0)}, {"prediction_type": "epsilon"}, "xl_base", Noise("v_prediction", False, "its tensor v_pred")),
    "one of two tensors": ({"ztsnr": torch.zeros(0)}, {}, "xl_base", Noise("", True, "its tensor ztsnr")),
    "two tensors": ({n: torch.zeros(0) for n in ("v_pred", "ztsnr")}, {}, "xl_base", Noise("v_prediction", True, "its tensor v_pred")),
    "metadata": ({}, {"prediction_type": "v"}, "v1", Noise("v_prediction", False, "its metadata")),
    "metadata before the rule": ({TELLING: WIDE}, {"prediction_type": "epsilon"}, "v2", Noise("epsilon", False, "its metadata")),
    "metadata of another kind": ({}, {"prediction_type": "flow"}, "v1", Noise()),
    "the rule, wide": ({TELLING: WIDE}, {}, "v2", Noise("v_prediction", False, "ComfyUI's rule of thumb for Stable Diffusion 2")),
    "the rule, narrow": ({TELLING: NARROW}, {}, "v2", Noise("epsilon", False, "ComfyUI's rule of thumb for Stable Diffusion 2")),
    "the rule, elsewhere": ({TELLING: WIDE}, {}, "v1", Noise()),
}


@pytest.mark.parametrize("case", SAID)
def test_what_a_file_says(tmp_path: Path, case: str) -> None:
    tensors, metadata, kind, wanted = SAID[case]
    file = written(tmp_path / "one.safetensors", tensors, **metadata)
    assert stated_noise(file, read_checkpoint_header(file), kind) == wanted


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler
@pytest.mark.parametrize("kind", [kind for kind, family in MODEL_TYPES.items() if family.denoiser == "unet"])
def test_a_scheduler_goes_with_it_and_keeps_its_noise(kind: str) -> None:
    """Also that of Stable Diffusion 1, which cannot rescale."""
    name, config = MODEL_TYPES[kind].blueprints[kind].scheduler
    own = getattr(diffusers, name)(**config)
    found: Any = scheduler_with(own, Noise("v_prediction", True, "a test"))
    assert found.config.prediction_type == "v_prediction"
    assert found.config.rescale_betas_zero_snr
    assert not found.config.get("clip_sample", False)
    kept = ("beta_start", "beta_end", "beta_schedule", "steps_offset", "num_train_timesteps")
    assert {key: found.config[key] for key in kept} == {key: own.config[key] for key in kept}
    found.set_timesteps(4)
    assert found.alphas_cumprod[-1] < 1e-6
    assert scheduler_with(own, Noise()) is own


def test_models_that_match_flows_have_no_choice() -> None:
    own = tiny_flux_pipeline().scheduler
    assert scheduler_with(own, Noise("v_prediction", True, "a test")) is own


def test_a_layout_does_not_silence_the_file(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "folder")
    file = save_single_file(tiny_pipeline(), tmp_path / "v.safetensors", v_pred=torch.zeros(0), ztsnr=torch.zeros(0))
    pipeline: Any = load_pipeline(file, device="cpu", dtype=torch.float32, base_config=tmp_path / "folder")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.rescale_betas_zero_snr
    said: list[str] = []
    load_renderer(str(file), RenderSettings(), Loading(device="cpu", base_config=str(tmp_path / "folder")), note=said.append)
    assert said[-1] == "v.safetensors predicts velocities and was trained down to no signal, by its tensor v_pred"


def test_what_is_as_usual_needs_no_word(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "folder")
    file = save_single_file(tiny_pipeline(), tmp_path / "e.safetensors")
    save_file(load_file(file), file, {"modelspec.prediction_type": "epsilon"})
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == {"modelspec.prediction_type": "epsilon"}
    assert checkpoint_remarks(file, tmp_path / "folder") == []


def test_no_t5_is_said_and_drawn_without(tmp_path: Path) -> None:
    """Also where the layout has one."""
    sd3().save_pretrained(tmp_path / "folder")
    file = save_single_file(sd3(t5=False), tmp_path / "three.safetensors")
    assert checkpoint_remarks(file, tmp_path / "folder") == ["three.safetensors holds no T5: CLIP alone reads the prompts"]
    pipeline: Any = load_pipeline(file, device="cpu", dtype=torch.float32, base_config=tmp_path / "folder")
    assert pipeline.text_encoder_3 is None
    assert pipeline.tokenizer_3 is None
