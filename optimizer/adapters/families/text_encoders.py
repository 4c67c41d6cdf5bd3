"""Text encoders: their modules and their key prefixes in each dialect.

The paths of CLIP keep the inner ``text_model.`` of the published files (``text_encoder.text_model.encoder.layers.0.self_attn.q_proj``),
although transformers 5 removed that level from ``CLIPTextModel``: the paths do not depend on the library version.
"""

from __future__ import annotations

from dataclasses import dataclass

INNER = "text_model."
"""Module level that a key in a file may lack."""

_CLIP_LEAVES = (*(f"self_attn.{leaf}_proj" for leaf in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
CLIP = (*(f"{INNER}encoder.layers.#.{leaf}" for leaf in _CLIP_LEAVES), "text_projection")
T5 = (
    *(f"encoder.block.#.layer.0.SelfAttention.{leaf}" for leaf in "qkvo"),
    *(f"encoder.block.#.layer.1.DenseReluDense.{leaf}" for leaf in ("wi", "wi_0", "wi_1", "wo")),
)


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a family.

    Attributes:
        part: part name in diffusers' pipeline.
        modules: templates of the encoder's modules.
        kohya: key prefix in sd-scripts' files.
        comfyui: key prefix in ComfyUI's files.
    """

    part: str
    modules: tuple[str, ...]
    kohya: str
    comfyui: str


def clip(part: str, kohya: str, comfyui: str) -> TextEncoder:
    """Returns a CLIP text encoder; ComfyUI's names are ``clip_l`` and ``clip_g`` by size, and ``clip_h`` for SD 2.x."""
    return TextEncoder(part, CLIP, kohya, f"text_encoders.{comfyui}.transformer.")


def t5(part: str, kohya: str) -> TextEncoder:
    """Returns the T5 XXL text encoder."""
    return TextEncoder(part, T5, kohya, "text_encoders.t5xxl.transformer.")
