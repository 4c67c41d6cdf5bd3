"""Records: what one evaluation found, as plain data that outlives every model and every library version."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def printable(text: str) -> str:
    """The text with lone surrogates (undecodable bytes of a file name) spelled out, so that it can be written as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


Text = Annotated[str, AfterValidator(printable)]
RECORD = ConfigDict(frozen=True, ser_json_inf_nan="strings")
"""What all records share: frozen, and NaN or ±∞ survive JSON (as strings, which every JSON reader accepts)."""


class SourceScore(BaseModel):
    """How one source fares in one candidate.

    Attributes:
        preservation: share of the source's effect that survives, 0 = base, 1 = the source alone; averaged over prompts.
        own: the same on prompts that ask for this source only.
        joint: the same on prompts that ask for all sources.
        leakage: effect of this source on prompts that ask for the others only, 0 = none, 1 = as strong as on its own.
    """

    model_config = RECORD

    preservation: float
    own: float
    joint: float
    leakage: float = 0.0


class Evaluation(BaseModel):
    """What was measured on one candidate.

    Attributes:
        recipe: the recipe as JSON-ready data.
        recipe_hash: its content hash.
        score: the scalar that the search maximises.
        sources: source name → its scores.
        artifacts: image damage relative to base and sources, 0 = none.
        metrics: further named numbers (artifact parts, cosines, seconds by stage).
        images: picture file names relative to the study directory, in prompt order.
        seconds: wall time of the evaluation.
    """

    model_config = RECORD

    recipe: dict[str, object]
    recipe_hash: str
    score: float
    sources: dict[Text, SourceScore]
    artifacts: float
    metrics: dict[str, float] = Field(default_factory=dict)
    images: tuple[str, ...] = ()
    seconds: float = 0.0


class TrialRecord(BaseModel):
    """One line of the study: a numbered trial with its state and, when complete, its evaluation.

    Attributes:
        number: Optuna's trial number; baselines are numbered like every other trial.
        label: ``""`` for a proposed trial, else the baseline's name (``stack``, ``naive``, ``hero alone`` …).
        state: ``COMPLETE`` or ``FAIL``.
        error: why it failed.
        evaluation: None for a failed trial.
    """

    model_config = RECORD

    number: int
    label: Text = ""
    state: str = "COMPLETE"
    error: Text = ""
    evaluation: Evaluation | None = None
