"""Rendering: pipelines, prompt sets, matched noise, and temporary application of ΔW to a loaded model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from optimizer.rendering.general_words import GENERAL
from optimizer.rendering.loading import Loading
from optimizer.rendering.prompts import (
    NOTHING,
    ROLES,
    Prompt,
    PromptSet,
    Role,
    Subject,
    Vocabulary,
    always_asked,
    compose,
    without_triggers,
)
from optimizer.rendering.settings import RenderSettings

if TYPE_CHECKING:
    from optimizer.rendering.any_renderer import AnyRenderer, draft_renderer, load_renderer
    from optimizer.rendering.candidates.in_place import applied, base_weights
    from optimizer.rendering.fake import FakeRenderer
    from optimizer.rendering.pipelines.load import load_pipeline
    from optimizer.rendering.renderer import Renderer

__all__ = [
    "GENERAL",
    "NOTHING",
    "ROLES",
    "AnyRenderer",
    "FakeRenderer",
    "Loading",
    "Prompt",
    "PromptSet",
    "RenderSettings",
    "Renderer",
    "Role",
    "Subject",
    "Vocabulary",
    "always_asked",
    "applied",
    "base_weights",
    "compose",
    "draft_renderer",
    "load_pipeline",
    "load_renderer",
    "without_triggers",
]

_HOMES = {
    "AnyRenderer": "any_renderer",
    "FakeRenderer": "fake",
    "Renderer": "renderer",
    "applied": "candidates.in_place",
    "base_weights": "candidates.in_place",
    "load_pipeline": "pipelines.load",
    "draft_renderer": "any_renderer",
    "load_renderer": "any_renderer",
}


def __getattr__(name: str) -> object:
    """Imports names that need torch or diffusers on first use, so that prompts and subjects load without them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
