"""Rendering: pipelines, prompt sets, matched noise, and putting a delta into a live model and out again."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from optimizer.rendering.prompts import GENERAL, ROLES, Prompt, PromptSet, Role, Subject, Vocabulary, compose

if TYPE_CHECKING:
    from optimizer.rendering.live import applied, base_weights
    from optimizer.rendering.load import load_pipeline
    from optimizer.rendering.renderer import Renderer, RenderSettings

__all__ = [
    "GENERAL",
    "ROLES",
    "Prompt",
    "PromptSet",
    "RenderSettings",
    "Renderer",
    "Role",
    "Subject",
    "Vocabulary",
    "applied",
    "base_weights",
    "compose",
    "load_pipeline",
]

_HOMES = {"applied": "live", "base_weights": "live", "load_pipeline": "load", "Renderer": "renderer", "RenderSettings": "renderer"}


def __getattr__(name: str) -> object:
    """Import what needs diffusers on first use: who only speaks of prompts and subjects does not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
