"""Rendering: pipelines, prompt sets, matched noise, and putting a delta into a live model and out again."""

from __future__ import annotations

from optimizer.rendering.live import applied, base_weights
from optimizer.rendering.load import load_pipeline
from optimizer.rendering.prompts import GENERAL, ROLES, Prompt, PromptSet, Role, Subject, Vocabulary, compose
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
