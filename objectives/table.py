"""The tables of objectives: a new objective is one file and one line here.

Names and versions of the objectives belong to the key of every evaluation, so that a study is continued only with the table it began with.
"""

from __future__ import annotations

from objectives.artifacts import ArtifactObjective
from objectives.familiarity import FamiliarityObjective
from objectives.metrics.kernel_distance import KernelDistanceObjective
from objectives.metrics.similarity import SimilarityObjective
from objectives.preservation import PreservationObjective, SeparationObjective
from objectives.scorer import AnyObjective

OBJECTIVES: tuple[AnyObjective, ...] = (
    PreservationObjective(),
    SeparationObjective(),
    ArtifactObjective(),
    FamiliarityObjective(),
)
"""Objectives that the score of every run is made of, in the order of their values in records."""

COLUMNS: tuple[AnyObjective, ...] = (
    KernelDistanceObjective(),
    SimilarityObjective(),
)
"""Objectives that add columns to the records and do not change the score.

A run on a fake base does without them, because they import torchmetrics, and with it libraries of models.
"""
