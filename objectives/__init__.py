"""Objectives: pictures become numbers. Knows pictures and embeddings, nothing of LoRAs or of the search."""

from __future__ import annotations

from objectives.artifacts import Envelope, artifact_level, envelope, image_statistics
from objectives.embedder import Embedder, EmbedderError, load_embedder
from objectives.preservation import JOINT, Effects, Moments, Preservation, moments, preservation, shares
from objectives.score import score, soundness
from objectives.statistics import Interval, bootstrap, interval, probability_better, resamples, weakest_share

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
    "bootstrap",
    "envelope",
    "image_statistics",
    "interval",
    "load_embedder",
    "moments",
    "preservation",
    "probability_better",
    "resamples",
    "score",
    "shares",
    "soundness",
    "weakest_share",
]
