"""Names and notes that a study provides for Optuna's own tools, such as optuna-dashboard."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial

from optimizer.search.labels import KEY, LABEL
from optimizer.search.trials.optuna_storage import id_of, storage_of, study_id_of
from optimizer.search.workers.trial_writer import TrialResult
from studies.records import KEEPS, Evaluation, printable

METRIC = "score"
CONSTRAINT = "constraints:"
"""Prefix of the system attributes in which Optuna keeps constraints."""
_NOTE_LENGTH = 2045
_STUDY_NOTE = """Each trial is one merge of the sources.

The **score** is √(smallest share × geometric mean of the shares) × a factor of at most 1 for image damage. The shares are those that the
merge keeps of each source: 0 is the base model, 1 is that source alone. A merge that loses a source scores 0.
Trials with a label are the baselines and recipes that people try first.
"""


def introduce(study: optuna.Study, priorities: str = "") -> None:
    """Sets the metric name and the study note; idempotent.

    Args:
        study: Optuna study.
        priorities: priorities of the sources as text; empty if they are equal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([METRIC])
    weighted = f"Shares count by the priorities of the sources: {_plain(priorities)}.\n" if priorities else ""
    for name, value in note_attributes(_STUDY_NOTE + weighted).items():
        storage_of(study).set_study_system_attr(study_id_of(study), name, value)


def attributes(evaluation: Evaluation) -> dict[str, float]:
    """Returns a trial's user attributes: the preservation of each source that counts, and the artifact level."""
    shares = {name: share.preservation for name, share in evaluation.sources.items() if not math.isnan(share.preservation)}
    kept = {f"preservation {printable(name)}": share for name, share in shares.items()}
    return kept | {"artifacts": evaluation.artifacts}


def constraint_attributes(evaluation: Evaluation) -> dict[str, float]:
    """Returns the system attributes in which ``Trial.set_constraint`` stores constraints, which samplers and the dashboard read."""
    return {f"{CONSTRAINT}{name}": excess for name, excess in sorted(evaluation.constraints.items())}


def result_of(trial: FrozenTrial, key: str, evaluation: Evaluation, links: Mapping[str, str]) -> TrialResult:
    """Returns what Optuna stores for a trial's evaluation: score, constraints, attributes, link to the contact sheet, and a note.

    Args:
        trial: the ended trial; only its label and id are read.
        key: cache key of the evaluation.
        evaluation: evaluation of the trial.
        links: system attribute that links the contact sheet; empty without a sheet.
    """
    words = note_attributes(note(str(trial.user_attrs.get(LABEL, "")), evaluation), id_of(trial))
    told = {KEY: key} | attributes(evaluation)
    return TrialResult(evaluation.score, told, {**links, **constraint_attributes(evaluation)}, words)


def note(label: str, evaluation: Evaluation) -> str:
    """Returns the result as Markdown text; source names are escaped."""
    counted = [name for name, share in evaluation.sources.items() if not math.isnan(share.preservation)]
    weakest = min(counted, key=lambda name: evaluation.sources[name].preservation)
    lines = [
        f"{_plain(label) or 'Proposed by the search'}: **score {evaluation.score:.3f}**, held down by {_plain(weakest)}.",
        "",
        "| source | preservation | own prompts | joint prompts | leakage |",
        "|---|---|---|---|---|",
    ]
    for name, share in evaluation.sources.items():
        cells = (share.preservation, share.own, share.joint, share.leakage)
        lines.append(f"| {_plain(name)} | " + " | ".join("–" if math.isnan(value) else f"{value:.0%}" for value in cells) + " |")
    method = _plain(str(evaluation.recipe.get("method", "")))
    lines += ["", f"Method {method}, image damage {evaluation.artifacts:.3f}, evaluated in {evaluation.seconds:.1f} s."]
    metrics = {name: excess for name, excess in evaluation.violated.items() if not name.startswith(KEEPS)}
    lines += [f"Violates the constraint on {_plain(name)} by {excess:.3g}." for name, excess in metrics.items()]
    lines += [f"It {_plain(words)}." for words in evaluation.misses[bool(metrics) :]]
    lines += [f"Pictures: {evaluation.images[0].rpartition('/')[0]}/"] if evaluation.images else []
    return "\n".join(lines)


def note_attributes(body: str, trial: int | None = None) -> Mapping[str, int | str]:
    """Returns the study's system attributes in which optuna-dashboard stores a note on the study, or on the trial with this id."""
    prefix = "dashboard:" if trial is None else f"dashboard:{trial}:"
    parts = [body[start : start + _NOTE_LENGTH] for start in range(0, len(body), _NOTE_LENGTH)]
    return {f"{prefix}note_str:{index}": part for index, part in enumerate(parts)} | {f"{prefix}note_ver": 1}


def _plain(text: str) -> str:
    """Returns the text with all Markdown and table markup escaped."""
    return "".join(c if c.isalnum() or c in " .-/√" else f"&#{ord(c)};" for c in printable(text))
