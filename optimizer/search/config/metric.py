"""Metrics that the user brings: their specifications on the command line and in YAML files.

A specification names a module, which is code. It is imported only because the user has named it for this very run: ``study.yaml`` repeats
the specifications, but whoever resumes or joins a study has to name its metrics again.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.errors import UsageError

OPTION = "--metric"
_FORM = "NAME=MODULE:NAME_IN_MODULE[:RULE]"
_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<module>\w+(\.\w+)*):(?P<attribute>\w+(\.\w+)*)(:(?P<rule>.*))?")


@dataclass(frozen=True)
class MetricSpec:
    """Specification of one metric. At most one of weight, at_least and at_most is given; without them the metric is a column.

    Attributes:
        name: name in records and reports.
        module: module that contains it.
        attribute: name in the module.
        weight: exponent with which it multiplies the score, greater than 0.
        at_least: smallest value that a merge may have.
        at_most: largest value that a merge may have.
    """

    name: str
    module: str
    attribute: str
    weight: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """Where the metric is."""
        return f"{self.module}:{self.attribute}"

    @property
    def rule(self) -> str:
        """Rule as text: ``weight 0.5``, ``>= 0.2``, ``<= 3``; empty for a column."""
        if self.weight is not None:
            return f"weight {self.weight:g}"
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


def parse_metric(text: str) -> MetricSpec:
    """Returns the specification in a text ``NAME=MODULE:NAME_IN_MODULE[:RULE]``, where RULE is a weight, ``>=X`` or ``<=X``.

    Raises:
        UsageError: the text has another form.

    Example:
        >>> parse_metric("sharpness=my_metrics:sharpness:>=0.2").rule
        '>= 0.2'
    """
    found = _SPEC.fullmatch(text)
    if not found:
        raise UsageError(f"got {text!r}", where=OPTION, remedy=f"write {_FORM}, such as tv=torchmetrics.image:TotalVariation")
    return MetricSpec(found["name"], found["module"], found["attribute"], **_rule(found["rule"], text))


def _rule(rule: str | None, text: str) -> dict[str, float]:
    if rule is None:
        return {}
    kind, number = next(((kind, rule[2:]) for kind in (">=", "<=") if rule.startswith(kind)), ("", rule))
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (not kind and value <= 0):
        remedy = "leave it out for a column, or give a weight above 0, >=X or <=X"
        raise UsageError(f"{rule!r} in {text!r} is no rule", where=OPTION, remedy=remedy)
    return {{">=": "at_least", "<=": "at_most", "": "weight"}[kind]: value}


def parse_metrics(texts: Sequence[str]) -> tuple[MetricSpec, ...]:
    """Returns the specifications in texts.

    Raises:
        UsageError: a text has another form, or two metrics have one name.
    """
    specs = tuple(parse_metric(text) for text in texts)
    names = [spec.name for spec in specs]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"two metrics have the name {twice}", where=OPTION, remedy="rename one of them")
    return specs


def check_named(saved: Sequence[str], given: Sequence[str]) -> None:
    """Checks that the metrics of a saved study are those that the user has named now, so that no code is imported on a file's word.

    Args:
        saved: specifications in the study.
        given: specifications on the command line.

    Raises:
        UsageError: they differ.
    """
    if sorted(saved) == sorted(given):
        return
    if not saved:
        raise UsageError("the study has no metrics of its own", where=OPTION, remedy="leave it out, or start a new study")
    problem = "the study measures with code that is imported only if you name it"
    raise UsageError(problem, where=OPTION, remedy=f"if you trust it, add {metric_words(saved)}")


def metric_words(specs: Sequence[str]) -> str:
    """Returns the specifications as words of a command line; empty if there are none."""
    return shlex.join([OPTION, *specs]) if specs else ""
