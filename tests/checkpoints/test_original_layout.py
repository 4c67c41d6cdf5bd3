"""The original layout: conversions read off tracers, for the published models in full size, and refused where they are not understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizer.adapters.families import MODEL_TYPES, PIPELINE_CLASSES
from optimizer.checkpoints.conversions import CONVERSIONS, conversion_named
from optimizer.checkpoints.model import canonical
from optimizer.checkpoints.original_layout import original_layout
from optimizer.checkpoints.row_tracers import StoredRows, Tracers
from tests.ldm import clip, ldm_unet, open_clip, original_flux, original_sd3, prefixed
from tests.rendering.pipelines.test_single_file import models_of_blueprint

State = Mapping[str, Tensor]


def texts_of(kind: str, models: Mapping[str, Any]) -> dict[str, Tensor]:
    states = [models[f"text_{i}"].state_dict() for i in range(len(MODEL_TYPES[kind].blueprints[kind].texts))]
    l_, g, xxl = (f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl"))
    placed: dict[str, Callable[[], dict[str, Tensor]]] = {
        "v1": lambda: prefixed("cond_stage_model.transformer.", clip(states[0])),
        "v2": lambda: prefixed("cond_stage_model.model.", open_clip(clip(states[0]))),
        "xl_base": lambda: {
            **prefixed("conditioner.embedders.0.transformer.", clip(states[0])),
            **prefixed("conditioner.embedders.1.model.", open_clip(clip(states[1]))),
        },
        "sd3": lambda: {**prefixed(l_, clip(states[0])), **prefixed(g, clip(states[1])), **prefixed(xxl, states[2])},
        "flux": lambda: {**prefixed(l_, clip(states[0])), **prefixed(xxl, states[1])},
    }
    return placed[kind if kind in placed else kind[:3] if kind.startswith("sd3") else kind.partition("-")[0]]()


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("kind", ["v1", *(pytest.param(k, marks=pytest.mark.slow) for k in MODEL_TYPES if k not in ("v1", "v2-base"))])
def test_published_models_in_full_size(kind: str) -> None:
    """Every tensor of the pipeline is found, in its shape; of a tracer there is not much more than its rows."""
    models, pipeline = models_of_blueprint(kind), MODEL_TYPES[kind].pipeline.name
    original = {"StableDiffusion3Pipeline": original_sd3, "FluxPipeline": original_flux}.get(pipeline, ldm_unet)
    denoiser = models["denoiser"].state_dict()
    with torch.device("meta"):
        shapes = shapes_of(prefixed("model.diffusion_model.", original(denoiser)) | texts_of(kind, models))
    layout = original_layout(pipeline, shapes)
    parts = [denoiser, *(models[f"text_{i}"].state_dict() for i in range(len(MODEL_TYPES[kind].blueprints[kind].texts)))]
    assert len(layout.stored) == len(parts)
    for (part, tensors), state in zip(layout.stored.items(), parts, strict=True):
        assert {name: stored.shape for name, stored in tensors.items()} == {
            canonical(part, name): tuple(tensor.shape) for name, tensor in state.items()
        }
    assert layout.pieces.keys() == shapes.keys()
    tracers = Tracers(shapes).tensors
    assert sum(tensor.untyped_storage().nbytes() for tensor in tracers.values()) < 64 << 20


def test_what_a_conversion_does_is_read_off() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a": (6, 5), "b": (4, 3, 3, 3), "scalar": ()}
    tracers = Tracers(shapes)
    a, b, scalar = (tracers.tensors[name] for name in shapes)
    assert tracers.rows_of(a) == StoredRows("a", (6, 5), ((0, 6),))
    assert tracers.rows_of(torch.cat([a[4:], a[:2]])) == StoredRows("a", (4, 5), ((4, 2), (0, 2)))
    assert tracers.rows_of(a.T.contiguous()) == StoredRows("a", (5, 6), ((0, 6),), transposed=True)
    assert tracers.rows_of(b.chunk(2)[1]) == StoredRows("b", (2, 3, 3, 3), ((2, 2),))
    assert tracers.rows_of(scalar) == StoredRows("scalar", (), ((0, 1),))
    for message, made in {
        "it was made up": torch.eye(3),
        "it is made of a and others": torch.cat([a, b[:, :, 0, 0]]),
        "it is not made of rows of a": a[:3].T,
        "it is not made of rows of b": b[:, :, 0, 0],
    }.items():
        with pytest.raises(ValueError, match=message):
            tracers.rows_of(made)


TINY: dict[str, tuple[int, ...]] = {
    "model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (8, 4),
}


@pytest.mark.parametrize(
    ("pipeline", "shapes", "message"),
    [
        (
            "StableDiffusionPipeline",
            TINY | {"model.diffusion_model.control.weight": (2, 2)},
            "1 tensors of unet are not understood, the fi",
        ),
        (
            "FluxPipeline",
            {"model.diffusion_model.double_blocks.0.x": (2,), "model.diffusion_model.single_blocks.0.x": (2,)},
            "lacks time_in",
        ),
        ("StableDiffusionXLPipeline", TINY | {"conditioner.embedders.1.model.logits": (2,)}, "1 tensors of text_encoder_2 are not underst"),
    ],
)
def test_what_is_not_understood_is_named(pipeline: str, shapes: Mapping[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        original_layout(pipeline, shapes)


def test_text_encoders_may_hold_what_diffusers_leaves_out() -> None:
    layout = original_layout("StableDiffusionPipeline", TINY | {"cond_stage_model.transformer.logit_bias": (2,)})
    assert layout.stored["text_encoder"].keys() == {"embeddings.token_embedding.weight"}


def test_conversions_by_name() -> None:
    named = {p.conversion for c in PIPELINE_CLASSES.values() for ways in c.file_parts.values() for p in ways}
    assert named == set(CONVERSIONS)
    found: object = conversion_named("optimizer.checkpoints.model:canonical")
    assert found is canonical
