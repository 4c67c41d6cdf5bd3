"""Objectives: convert pictures to scores. This package depends on pictures and embeddings, not on LoRAs or the search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from objectives.any_embedder import AnyEmbedder, load_embedder
from objectives.artifacts import Envelope, artifact_level, envelope, image_statistics
from objectives.errors import EmbedderError
from objectives.fake import FakeEmbedder
from objectives.preservation import JOINT, Effects, Moments, Preservation, moments, others, preservation, shares
from objectives.score import balance, score, soundness
from objectives.statistics import Interval, bootstrap, interval, kept, probability_better, resamples

if TYPE_CHECKING:
    from objectives.embedder import Embedder

__all__ = [
    "JOINT",
    "AnyEmbedder",
    "Effects",
    "Embedder",
    "EmbedderError",
    "Envelope",
    "FakeEmbedder",
    "Interval",
    "Moments",
    "Preservation",
    "artifact_level",
    "balance",
    "bootstrap",
    "envelope",
    "image_statistics",
    "interval",
    "kept",
    "load_embedder",
    "moments",
    "others",
    "preservation",
    "probability_better",
    "resamples",
    "score",
    "shares",
    "soundness",
]


def __getattr__(name: str) -> object:
    """Imports the open_clip embedder on first use, because the import takes seconds and the fake embedder does not need it."""
    if name != "Embedder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("objectives.embedder").Embedder
