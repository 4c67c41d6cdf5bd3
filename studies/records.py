"""Records of evaluations and trials, as plain data that does not depend on models or library versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def printable(text: str) -> str:
    """Returns the text with lone surrogates (undecodable bytes of a file name) escaped, so that it can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


Text = Annotated[str, AfterValidator(printable)]
RECORD = ConfigDict(frozen=True, ser_json_inf_nan="strings")
"""Configuration of all records: frozen; NaN and ±∞ are stored in JSON as strings, which every JSON reader accepts."""


KEEPS = "keep:"
"""Prefix of the constraints that ask for a share of a source; the name of the source follows. Metrics of the user have no such names."""


def told_misses(missed: Mapping[str, float], targets: Mapping[str, float], *, amounts: bool = True) -> list[str]:
    """Returns what a merge misses, one phrase for each constraint, such as ``keeps 0.71 of hero, asked for 0.9``.

    Args:
        missed: constraint → amount by which the merge misses it, greater than 0.
        targets: source → share that was asked for, for all constraints on shares.
        amounts: whether to say by how much constraints on metrics are missed.

    Example:
        >>> told_misses({"sharpness": 0.25, "keep:hero": 0.19}, {"hero": 0.9})
        ['misses sharpness by 0.25', 'keeps 0.71 of hero, asked for 0.9']
    """
    plain = {name: excess for name, excess in missed.items() if not name.startswith(KEEPS)}
    words = [f"{name} by {excess:.3g}" if amounts else name for name, excess in plain.items()]
    shares = {name.removeprefix(KEEPS): excess for name, excess in missed.items() if name.startswith(KEEPS)}
    kept = [f"keeps {_rounded_down(targets[name] - excess)} of {name}, asked for {targets[name]:.4g}" for name, excess in shares.items()]
    return [*([f"misses {' and '.join(words)}"] if words else []), *kept]


def targets_in(constraints: Mapping[str, float], kept: Mapping[str, float]) -> dict[str, float]:
    """Returns source → share that was asked for, from the amounts by which constraints are missed and the shares that are kept."""
    names = [name.removeprefix(KEEPS) for name in constraints if name.startswith(KEEPS)]
    return {name: kept[name] + constraints[f"{KEEPS}{name}"] for name in names}


def told_numbers(numbers: Mapping[str, float]) -> str:
    """Returns the number of each source as text.

    Example:
        >>> told_numbers({"hero": 2.0, "style": 1.0})
        'hero 2, style 1'
    """
    return ", ".join(f"{name} {number:g}" for name, number in numbers.items())


def _rounded_down(share: float) -> str:
    """Returns a share with two decimals, never rounded up to a target that it misses."""
    return f"{math.floor(100 * share + 1e-9) / 100:.2f}"


class SourceScore(BaseModel):
    """Scores of one source in one candidate.

    Attributes:
        preservation: share of the source that is seen in the candidate's pictures, 0 = base, 1 = the source alone; averaged over prompts.
            NaN for a source that does not count in the score, because its effect cannot be told from chance.
        own: preservation on prompts that ask for this source only, or, without a trigger, on all that are not joint.
        joint: preservation on prompts that ask for all sources.
        leakage: share of this source that is seen on prompts that ask for the others only, 0 = none, 1 = as on its own. 0 for a source
            without a trigger, which every prompt asks for.
        leaks: other source → share of this source that is seen on the prompts of that one alone; with three sources or more.
    """

    model_config = RECORD

    preservation: float
    own: float
    joint: float
    leakage: float = 0.0
    leaks: dict[Text, float] = Field(default_factory=dict)


class FirstHalf(BaseModel):
    """Score of a candidate on the first half of the prompts, which tells whether it lags behind another one.

    Attributes:
        score: score on these prompts.
        without: score without each of them in turn, in their order.
    """

    model_config = RECORD

    score: float
    without: tuple[float, ...]


class Evaluation(BaseModel):
    """Measurements of one candidate.

    Attributes:
        recipe: the recipe as JSON-ready data.
        recipe_hash: content hash of the recipe.
        score: value that the search maximizes: sqrt(smallest preservation × geometric mean of the preservations), over the sources that
            count and by their priorities, × factors below 1 for image damage and further objectives.
        interval: ends of the 95 % bootstrap interval of the score over the prompts; None with one prompt of a kind, and in files of earlier
            versions.
        sources: source name → its scores.
        artifacts: image damage relative to base and sources, 0 = none.
        metrics: further named values: artifact parts, compression error, seconds by stage (``seconds_solve``, ``seconds_merge``,
            ``seconds_render``, ``seconds_score``), and ``OBJECTIVE:VALUE`` of every objective besides preservation and artifacts.
        constraints: metric, or ``keep:SOURCE``, → amount by which the candidate misses its constraint, at most 0 if it satisfies it.
        first_half: score on the first half of the prompts, which candidates are pruned by; None if it was not measured.
        pruned: whether only that half was drawn, because the candidate lagged behind the best one there; all values are of that half, and
            the score is scaled to all prompts.
        images: picture file names relative to the study directory, in prompt order.
        seconds: wall time of the evaluation, with the time for solving its merge on the base model if that had to be done for it.
    """

    model_config = RECORD

    recipe: dict[str, object]
    recipe_hash: str
    score: float
    interval: tuple[float, float] | None = None
    sources: dict[Text, SourceScore]
    artifacts: float
    metrics: dict[str, float] = Field(default_factory=dict)
    constraints: dict[Text, float] = Field(default_factory=dict)
    first_half: FirstHalf | None = None
    pruned: bool = False
    images: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def violated(self) -> dict[str, float]:
        """Constraints that the candidate misses, with the amounts."""
        return {name: excess for name, excess in self.constraints.items() if excess > 0}

    @property
    def misses(self) -> list[str]:
        """What the candidate misses, in words, as ``told_misses`` puts it."""
        return told_misses(self.violated, targets_in(self.constraints, {name: s.preservation for name, s in self.sources.items()}))

    @property
    def feasible(self) -> bool:
        """Whether the candidate satisfies all constraints. One that does not is never exported."""
        return not self.violated


class TrialRecord(BaseModel):
    """A numbered trial with its state and, if complete, its evaluation.

    Attributes:
        number: Optuna's trial number; baselines are numbered like every other trial.
        label: ``""`` for a proposed trial, else the name of the baseline (``stack``, ``naive``, ``hero alone`` …).
        state: ``COMPLETE`` or ``FAIL``.
        error: reason of the failure; empty for a complete trial.
        evaluation: evaluation of the trial; None for a failed trial.
    """

    model_config = RECORD

    number: int
    label: Text = ""
    state: str = "COMPLETE"
    error: Text = ""
    evaluation: Evaluation | None = None
