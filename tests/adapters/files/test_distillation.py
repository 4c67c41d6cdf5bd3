"""Distillation LoRAs, by what they are called."""

from __future__ import annotations

import pytest

from optimizer.adapters import distillation


@pytest.mark.parametrize(
    ("name", "metadata", "kind"),
    [
        ("pytorch_lora_weights.safetensors", {"ss_output_name": "lcm-lora-sdxl"}, "LCM"),
        ("lcm_lora_v1.safetensors", {}, "LCM"),
        ("sdxl_lightning_8step_lora.safetensors", {}, "Lightning"),
        ("Hyper-SDXL-8steps-lora.safetensors", {}, "Hyper-SD"),
        ("FLUX.1-Turbo-Alpha.safetensors", {}, "Turbo"),
        ("dmd2_sdxl_4step_lora.safetensors", {}, "DMD2"),
        ("x.safetensors", {"modelspec.title": "Qwen 4-step"}, "few-step"),
        ("x.safetensors", {"modelspec.tags": "acceleration, tcd"}, "LCM"),
        ("C:\\loras\\turbo\\hero.safetensors", {}, None),
        ("loras/lcm/hero.safetensors", {}, None),
        ("turbocharger.safetensors", {}, None),
        ("film_footsteps.safetensors", {}, None),
        ("hero-step00004000.safetensors", {"modelspec.title": "Hero"}, None),
        ("", {}, None),
    ],
)
def test_names_and_metadata(name: str, metadata: dict[str, str], kind: str | None) -> None:
    assert distillation(name, metadata) == kind
