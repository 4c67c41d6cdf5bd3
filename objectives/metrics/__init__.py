"""Metrics: measurements by torchmetrics, and those that users bring, as objectives."""

from __future__ import annotations

from objectives.metrics.function import FunctionCall
from objectives.metrics.kernel_distance import KernelDistanceObjective
from objectives.metrics.objective import MetricIdentity, MetricObjective
from objectives.metrics.references import References
from objectives.metrics.rule import Constraint, Rule, Term
from objectives.metrics.scale import Scale, quality
from objectives.metrics.self_test import self_test
from objectives.metrics.similarity import SimilarityObjective
from objectives.metrics.torch_metric import TorchMetricCall, build_metric, inputs_of

__all__ = [
    "Constraint",
    "FunctionCall",
    "KernelDistanceObjective",
    "MetricIdentity",
    "MetricObjective",
    "References",
    "Rule",
    "Scale",
    "SimilarityObjective",
    "Term",
    "TorchMetricCall",
    "build_metric",
    "inputs_of",
    "quality",
    "self_test",
]
