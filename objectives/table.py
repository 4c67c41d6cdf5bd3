"""The table of objectives: a new objective is one file and one line here.

Names and versions of the objectives belong to the key of every evaluation, so that a study is continued only with the table it began with.
"""

from __future__ import annotations

from objectives.artifacts import ArtifactObjective
from objectives.familiarity import FamiliarityObjective
from objectives.preservation import PreservationObjective
from objectives.scorer import AnyObjective

OBJECTIVES: tuple[AnyObjective, ...] = (
    PreservationObjective(),
    ArtifactObjective(),
    FamiliarityObjective(),
)
"""Objectives of every run, in the order of their values in records."""
