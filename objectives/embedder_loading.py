"""Loads an embedder, or an ensemble of embedders, by name."""

from __future__ import annotations

from pathlib import Path

from objectives.any_embedder import AnyEmbedder
from objectives.ensemble import EmbedderEnsemble
from objectives.errors import EmbedderError
from objectives.fake import FAKE, FakeEmbedder


def load_embedder(spec: str | Path, *, device: str = "cpu") -> AnyEmbedder:
    """Loads an embedder, or several as one.

    Args:
        spec: specification for ``objectives.open_clip_models.load_open_clip`` or ``objectives.timm_models.load_timm``, or ``fake:``;
            several of them, separated by commas, are an ``EmbedderEnsemble``.
        device: torch device; the fake embedder always runs on the CPU.

    Raises:
        EmbedderError: a model is not found, needs a download that is not possible, or does not tell pictures apart, or one is named twice.

    Example:
        >>> load_embedder("fake:").name
        'fake:'
    """
    names = embedder_names(str(spec))
    if len(names) == 1:
        return _one(names[0], device)
    if len(set(names)) < len(names):
        raise EmbedderError(f"{spec}: an embedder is named twice — name each once")
    return EmbedderEnsemble([_one(name, device) for name in names])


def embedder_names(spec: str) -> list[str]:
    """Returns the embedders that a specification names; a folder whose name holds commas is one.

    Example:
        >>> embedder_names("ViT-B-32/laion2b_s34b_b79k,timm:vit_base_patch14_dinov2.lvd142m")
        ['ViT-B-32/laion2b_s34b_b79k', 'timm:vit_base_patch14_dinov2.lvd142m']
    """
    return [spec] if Path(spec).is_dir() else [name.strip() for name in spec.split(",")]


def _one(spec: str, device: str) -> AnyEmbedder:
    if not spec.startswith(FAKE):
        return _model(spec, device)
    if spec != FAKE:
        raise EmbedderError(f"{spec}: the fake embedder has no settings — write {FAKE}")
    return FakeEmbedder()


def _model(spec: str, device: str) -> AnyEmbedder:
    """Returns the tested embedder of a model. open_clip and timm are imported here: it takes seconds, and the fake one needs neither."""
    from objectives.embedder_check import check_embedder
    from objectives.timm_models import is_timm, load_timm

    if is_timm(spec):
        found = load_timm(spec, device=device)
    else:
        from objectives.open_clip_models import load_open_clip

        found = load_open_clip(spec, device=device)
    check_embedder(found)
    return found
