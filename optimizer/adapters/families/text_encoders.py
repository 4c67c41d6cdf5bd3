"""Text encoders: their modules, and what each dialect calls them.

The paths of CLIP keep the inner ``text_model.`` of the published files (``text_encoder.text_model.encoder.layers.0.self_attn.q_proj``),
although transformers 5 dropped that level from ``CLIPTextModel``'s own modules: files outlive library versions.
"""

from __future__ import annotations

from dataclasses import dataclass

INNER = "text_model."
"""The level that a name in a file may lack."""

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
        part: its name in diffusers' pipeline.
        modules: templates of its modules.
        kohya: prefix of its modules in sd-scripts' files.
        comfyui: prefix in ComfyUI's files.
    """

    part: str
    modules: tuple[str, ...]
    kohya: str
    comfyui: str


def clip(part: str, kohya: str, comfyui: str) -> TextEncoder:
    """One of CLIP's kind; ComfyUI calls the two sizes ``clip_l`` and ``clip_g``, and that of SD 2.x ``clip_h``."""
    return TextEncoder(part, CLIP, kohya, f"text_encoders.{comfyui}.transformer.")


def t5(part: str, kohya: str) -> TextEncoder:
    """T5 XXL."""
    return TextEncoder(part, T5, kohya, "text_encoders.t5xxl.transformer.")
