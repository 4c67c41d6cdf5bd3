"""Objectives: pictures become numbers. Knows pictures and embeddings, nothing of LoRAs or of the search."""

from __future__ import annotations

from objectives.artifacts import Envelope, artifact_level, envelope, image_statistics
from objectives.embedder import Embedder, EmbedderError, load_embedder
from objectives.preservation import JOINT, Effects, Moments, Preservation, moments, preservation, shares
from objectives.score import balance, score, soundness
from objectives.statistics import Interval, bootstrap, interval, kept, probability_better, resamples

__all__ = [
    "JOINT",
    "Effects",
    "Embedder",
    "EmbedderError",
    "Envelope",
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
    "preservation",
    "probability_better",
    "resamples",
    "score",
    "shares",
    "soundness",
]
