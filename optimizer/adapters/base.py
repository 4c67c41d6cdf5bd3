"""The family of the base model that an adapter was trained on: from its shapes, else from its metadata."""

from __future__ import annotations

from collections.abc import Mapping

from optimizer.adapters.factors import Factors

_CROSS_ATTENTION_WIDTH = {768: "sd1", 1024: "sd2", 2048: "sdxl"}

_ARCHITECTURES = (
    ("stable-diffusion-xl", "sdxl"),
    ("stable-diffusion-v1", "sd1"),
    ("stable-diffusion-v2", "sd2"),
    ("stable-diffusion-3", "sd3"),
    ("flux-1", "flux1"),
)
_VERSIONS = (
    ("sdxl", "sdxl"),
    ("sd_v1", "sd1"),
    ("sd_v2", "sd2"),
    ("sd3", "sd3"),
    ("medium", "sd3"),
    ("5-medium", "sd3"),
    ("5-large", "sd3"),
    ("flux1", "flux1"),
)


def base_family(modules: Mapping[str, Factors], metadata: Mapping[str, str]) -> str:
    """``sd1``, ``sd2``, ``sdxl``, ``sd3``, ``flux1`` or ``unknown``.

    The width of the text that cross-attention reads tells the families of U-Nets apart and cannot be wrong in a file that loads;
    metadata (sd-scripts' ``ss_base_model_version``, ModelSpec's ``architecture``) often is, after a merge.
    """
    for path, factors in modules.items():
        if path.endswith(".attn2.to_k") and factors.shape[1] in _CROSS_ATTENTION_WIDTH:
            return _CROSS_ATTENTION_WIDTH[factors.shape[1]]
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    for text, table in ((version, _VERSIONS), (architecture, _ARCHITECTURES)):
        for start, family in table:
            if text.lower().startswith(start):
                return family
    return "unknown"
