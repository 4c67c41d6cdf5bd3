"""Labels of the initial trials, and names of the attributes that a study stores for each trial."""

from __future__ import annotations

STACK, NAIVE = "stack", "naive"
COMPOSITION = "composition (cannot be saved)"
"""Label of the composition of all sources, which shows what a merge should draw."""
EQUAL_NORM, EQUAL_USUAL, EQUAL_MEDIUM, EQUAL_LOW = "equal 1/√N", "equal 0.8", "equal 0.7", "equal 0.6"
"""Labels of weighted sums with one weight for all sources: the one that keeps the norm of a single source, and common ones."""
BALANCED, BY_ROLE = "equal strength", "by role"
"""Labels of weighted sums whose weights follow from the sources' strengths, and from their roles."""
SIMPLE = (STACK, NAIVE, EQUAL_NORM, EQUAL_USUAL, EQUAL_MEDIUM, EQUAL_LOW)
"""Labels of the simple merges: one weight for all sources. One of them is exported if no other merge is better beyond noise."""
_ALONE = " alone"

KEY, LABEL, ERROR, IMPORTED = "evaluation", "label", "error", "imported"
"""Trial attributes: evaluation key, label, failure reason, and whether the trial was imported from another study."""
BUDGET, INPUTS, TOTAL = "budget", "inputs", "total"
"""Study attributes: initial budget, initial inputs, and maximum number of trials, baselines included."""
EXHAUSTED, SINCE = "exhausted", "since"
"""Study attributes: number of trials and budget at which a search ended for want of gains, and number of trials at its extension."""
FIXED = "fixed_params"
"""System attribute in which Optuna keeps the values of a queued trial."""


def alone_label(name: str) -> str:
    """Returns the label of the baseline for one source alone."""
    return f"{name}{_ALONE}"


def is_alone(label: str) -> bool:
    """Returns whether a label belongs to a single-source baseline, which is not a merge and never exported."""
    return label.endswith(_ALONE)


def primary_label(name: str) -> str:
    """Returns the label of a weighted sum in which one source has a greater weight than the others."""
    return f"{name} leading"


def source_of(label: str) -> str:
    """Returns the name of the source that a single-source baseline's label refers to."""
    return label.removesuffix(_ALONE)


def is_baseline(label: str) -> bool:
    """Returns whether a label belongs to a baseline, which does not count towards the budget."""
    return is_alone(label) or label in (STACK, NAIVE)
