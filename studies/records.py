"""Records of evaluations and trials, as plain data that does not depend on models or library versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def printable(text: str) -> str:
    """Returns the text with lone surrogates (undecodable bytes of a file name) escaped, so that it can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


Text = Annotated[str, AfterValidator(printable)]
RECORD = ConfigDict(frozen=True, ser_json_inf_nan="strings")
"""Configuration of all records: frozen; NaN and ±∞ are stored in JSON as strings, which every JSON reader accepts."""


class SourceScore(BaseModel):
    """Scores of one source in one candidate.

    Attributes:
        preservation: share of the source that is seen in the candidate's pictures, 0 = base, 1 = the source alone; averaged over prompts.
            NaN for a source that does not count in the score, because its effect cannot be told from chance.
        own: preservation on prompts that ask for this source only.
        joint: preservation on prompts that ask for all sources.
        leakage: share of this source that is seen on prompts that ask for the others only, 0 = none, 1 = as on its own.
    """

    model_config = RECORD

    preservation: float
    own: float
    joint: float
    leakage: float = 0.0


class Evaluation(BaseModel):
    """Measurements of one candidate.

    Attributes:
        recipe: the recipe as JSON-ready data.
        recipe_hash: content hash of the recipe.
        score: value that the search maximizes: sqrt(smallest preservation × geometric mean of the preservations) × factors below 1 for
            image damage and further objectives, over the sources that count.
        sources: source name → its scores.
        artifacts: image damage relative to base and sources, 0 = none.
        metrics: further named values: artifact parts, compression error, seconds by stage (``seconds_solve``, ``seconds_merge``,
            ``seconds_render``, ``seconds_score``), and ``OBJECTIVE:VALUE`` of every objective besides preservation and artifacts.
        constraints: metric → amount by which the candidate misses its constraint, at most 0 if it satisfies it.
        images: picture file names relative to the study directory, in prompt order.
        seconds: wall time of the evaluation, with the time for solving its merge on the base model if that had to be done for it.
    """

    model_config = RECORD

    recipe: dict[str, object]
    recipe_hash: str
    score: float
    sources: dict[Text, SourceScore]
    artifacts: float
    metrics: dict[str, float] = Field(default_factory=dict)
    constraints: dict[Text, float] = Field(default_factory=dict)
    images: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def violated(self) -> dict[str, float]:
        """Constraints that the candidate misses, with the amounts."""
        return {name: excess for name, excess in self.constraints.items() if excess > 0}

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
