"""Objectives: convert pictures to scores. This package depends on pictures and embeddings, not on LoRAs or the search."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from objectives.any_embedder import AnyEmbedder
from objectives.artifacts import ArtifactLevel, ArtifactObjective, Envelope, artifact_level, envelope, image_statistics, soundness
from objectives.drift import drift
from objectives.embedder_loading import embedder_names, load_embedder
from objectives.ensemble import EmbedderEnsemble
from objectives.errors import EmbedderError, MetricError
from objectives.fake import FakeEmbedder
from objectives.familiarity import FamiliarityObjective, familiar_share
from objectives.metrics import (
    KernelDistanceObjective,
    MetricObjective,
    References,
    SimilarityObjective,
)
from objectives.objective import EMBEDDINGS, JOINT, Baselines, Objective, Outcome, Pictures, weighted_mean
from objectives.preservation import (
    Effects,
    Moments,
    PreservationObjective,
    SeparationObjective,
    leakage,
    leaks,
    mean_shares,
    moments,
    others,
    shares,
    standard_errors,
    unidentifiable,
)
from objectives.score import Outcomes, balance, combined_shares, counted_shares, score
from objectives.scorer import AnyObjective, Measurements, Scorer, check_objectives, needed_features
from objectives.statistics import LEVEL, Interval, interval, lead_bound, noise, resamples, without_each

if TYPE_CHECKING:
    from objectives.embedder import Embedder

__all__ = [
    "EMBEDDINGS",
    "JOINT",
    "LEVEL",
    "AnyEmbedder",
    "AnyObjective",
    "ArtifactLevel",
    "ArtifactObjective",
    "Baselines",
    "Effects",
    "Embedder",
    "EmbedderEnsemble",
    "EmbedderError",
    "Envelope",
    "FakeEmbedder",
    "FamiliarityObjective",
    "Interval",
    "KernelDistanceObjective",
    "Measurements",
    "MetricError",
    "MetricObjective",
    "Moments",
    "Objective",
    "Outcome",
    "Outcomes",
    "Pictures",
    "PreservationObjective",
    "References",
    "Scorer",
    "SeparationObjective",
    "SimilarityObjective",
    "artifact_level",
    "balance",
    "check_objectives",
    "combined_shares",
    "counted_shares",
    "drift",
    "embedder_names",
    "envelope",
    "familiar_share",
    "image_statistics",
    "interval",
    "lead_bound",
    "leakage",
    "leaks",
    "load_embedder",
    "mean_shares",
    "moments",
    "needed_features",
    "noise",
    "others",
    "resamples",
    "score",
    "shares",
    "soundness",
    "standard_errors",
    "unidentifiable",
    "weighted_mean",
    "without_each",
]


def __getattr__(name: str) -> object:
    """Imports the open_clip embedder on first use, because the import takes seconds and the fake embedder does not need it."""
    if name != "Embedder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("objectives.embedder").Embedder
