"""Labels: what the trials are called that a study begins with, and under which names the study keeps what it knows of each trial."""

from __future__ import annotations

STACK, NAIVE = "stack", "naive"
_ALONE = " alone"

KEY, LABEL, ERROR, IMPORTED = "evaluation", "label", "error", "imported"
"""Attributes of a trial: the key of its evaluation, its label, why it failed, and whether it came from another study."""
BUDGET, INPUTS, TOTAL = "budget", "inputs", "total"
"""Attributes of the study: the budget and the inputs that it began with, and the trials that it may have, baselines included."""
FIXED = "fixed_params"
"""Where Optuna keeps the values of a trial that waits."""


def alone_label(name: str) -> str:
    """Label of the baseline that is one source alone."""
    return f"{name}{_ALONE}"


def is_alone(label: str) -> bool:
    """Whether a trial of this label is one source alone, which is no merge and never shipped."""
    return label.endswith(_ALONE)


def source_of(label: str) -> str:
    """The name of the source whose baseline this is the label of."""
    return label.removesuffix(_ALONE)


def is_baseline(label: str) -> bool:
    """Whether a trial of this label comes before the budget."""
    return is_alone(label) or label in (STACK, NAIVE)
