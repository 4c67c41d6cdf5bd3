"""Tables: the trials of a study as a data frame, CSV or Parquet, with stable columns.

=========================  =======  ==================================================================================
column                     type     meaning
=========================  =======  ==================================================================================
number                     int64    trial number
label                      str      name of a baseline (``stack``, ``naive``, ``hero alone`` …), empty for a proposed trial
state                      str      ``COMPLETE`` or ``FAIL``
error                      str      reason of the failure, empty otherwise
score                      float64  objective value that the search maximizes
artifacts                  float64  image damage relative to base and sources, 0 = none
seconds                    float64  wall time of the trial, with solving its merge on the base model if that was necessary
method                     str      the recipe's merge method
rank                       Int64    rank of the merged file; empty: the full rank
density                    float64  share of entries that a sparsifying method keeps; empty for methods without one
seed                       Int64    the recipe's seed, for methods that draw random numbers
checkpoint                 Int64    percentage of the training steps after which a solved merge is taken; empty for others
seconds_solve              float64  part of ``seconds`` for solving the merge; 0 if it was solved before, or needs no solving
feasible                   boolean  whether the trial satisfies all constraints and targets; others are never exported
score_low                  float64  lower end of the 95 % bootstrap interval of the score over the prompts; empty with one prompt of a kind
score_high                 float64  upper end of the interval
pruned                     boolean  whether only half of the prompts was drawn, because the merge lagged behind the best there
weight:<source>            float64  the source's weight in the recipe
preservation:<source>      float64  share of the source that is seen, 0 = base, 1 = the source alone; empty if it does not count
own:<source>               float64  preservation on prompts that ask for this source only
joint:<source>             float64  preservation on prompts that ask for all sources
leakage:<source>           float64  share of the source seen where only others are asked for, 0 = none, and without a trigger
leakage:<source>:<other>   float64  share of the source seen where this other one alone is asked for; with three sources or more
block:<source>:<block>     float64  the source's factor in a block or family of blocks; empty: not named in the recipe
metric:<objective>:<name>  float64  value of an objective besides preservation and artifacts, e.g. ``factor``, its factor on the score
=========================  =======  ==================================================================================

One row per trial, ordered by number. A failed trial has number, label, state and error; all other cells are empty.
Sources are in the order of the study, blocks in natural order (``IN02`` before ``IN10``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.atomic import write_bytes
from studies.directory import StudyDirectory
from studies.records import Evaluation, SourceScore, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Mapping[str, str] = {
    "number": "int64",
    "label": "str",
    "state": "str",
    "error": "str",
    "score": "float64",
    "artifacts": "float64",
    "seconds": "float64",
    "method": "str",
    "rank": "Int64",
    "density": "float64",
    "seed": "Int64",
    "checkpoint": "Int64",
    "seconds_solve": "float64",
    "feasible": "boolean",
    "score_low": "float64",
    "score_high": "float64",
    "pruned": "boolean",
}
"""Columns that every table has, with their pandas types."""

SOURCE_COLUMNS = ("weight", "preservation", "own", "joint", "leakage")
"""Columns that exist once per source, as ``<column>:<source>``, all float64."""

_METRIC = "metric:"
_MEASURES: Mapping[str, Callable[[SourceScore], float]] = {
    "preservation": lambda s: s.preservation,
    "own": lambda s: s.own,
    "joint": lambda s: s.joint,
    "leakage": lambda s: s.leakage,
}


def trials_frame(records: Iterable[TrialRecord], sources: Sequence[str] = ()) -> pd.DataFrame:
    """Returns the trials as a data frame with the columns listed in the module docstring.

    Args:
        records: the trials, in any order.
        sources: names of the sources in the order of the recipes' weights; if empty, they are taken from the evaluations.

    Raises:
        ValueError: a recipe's number of weights differs from the number of sources; the message names the trial.
    """
    import pandas as pd

    ordered = sorted(records, key=lambda r: r.number)
    names = tuple(sources) or source_names(ordered)
    rows = [_row(record, names) for record in ordered]
    types = dict(COLUMNS) | {f"{column}:{name}": "float64" for column in SOURCE_COLUMNS for name in names}
    types |= {f"leakage:{name}:{other}": "float64" for name in names for other in names if len(names) > 2 and other != name}
    types |= dict.fromkeys(_block_columns(rows, names), "float64")
    types |= dict.fromkeys((column for row in rows for column in row if column.startswith(_METRIC)), "float64")
    columns = {column: pd.Series([row.get(column) for row in rows], dtype=kind) for column, kind in types.items()}
    return pd.DataFrame(columns)


def write_tables(records: Iterable[TrialRecord], directory: StudyDirectory | str | Path, sources: Sequence[str] = ()) -> tuple[Path, Path]:
    """Writes ``trials.csv`` and ``trials.parquet`` atomically and returns their paths.

    Args:
        records: trials, in any order.
        directory: study directory.
        sources: names of the sources in the order of the recipes' weights; if empty, they are taken from the evaluations.

    Raises:
        ValueError: a recipe's number of weights differs from the number of sources; the message names the trial.
        OSError: the directory cannot be written.
    """
    study = directory if isinstance(directory, StudyDirectory) else StudyDirectory(directory)
    frame = trials_frame(records, sources)
    packed = io.BytesIO()
    frame.to_parquet(packed, index=False)
    write_bytes(study.trials_csv, frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
    write_bytes(study.trials_parquet, packed.getvalue())
    return study.trials_csv, study.trials_parquet


def source_names(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Returns the names of all sources in the evaluations, in order of first appearance."""
    return tuple(dict.fromkeys(name for r in records if r.evaluation for name in r.evaluation.sources))


def source_weights(evaluation: Evaluation, names: Sequence[str]) -> dict[str, float]:
    """Returns source → weight, from the recipe's ``weights``; empty if the recipe has none.

    Raises:
        ValueError: the number of weights differs from the number of sources.
    """
    weights = _sequence(evaluation.recipe.get("weights"))
    if weights and len(weights) != len(names):
        raise ValueError(f"the recipe has {len(weights)} weights for {len(names)} sources ({', '.join(names)})")
    return {name: float(weight) for name, weight in zip(names, weights, strict=False)}


def block_weights(evaluation: Evaluation, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns source → block → weight, from the recipe's ``blocks``, blocks in natural order; empty if the recipe has none.

    Raises:
        ValueError: the number of entries differs from the number of sources.
    """
    blocks = _sequence(evaluation.recipe.get("blocks"))
    if blocks and len(blocks) != len(names):
        raise ValueError(f"the recipe has block weights for {len(blocks)} sources instead of {len(names)} ({', '.join(names)})")
    found = {name: dict(entry or {}) for name, entry in zip(names, blocks, strict=False)}
    return {name: {b: float(entry[b]) for b in sorted(entry, key=natural)} for name, entry in found.items()}


def natural(text: str) -> tuple[tuple[str, int], ...]:
    """Returns a sort key under which ``IN02`` < ``IN10`` < ``MID`` and ``block 2`` < ``block 10``."""
    return tuple((word, int(digits or -1)) for word, digits in re.findall(r"([^0-9]*)([0-9]*)", text))


def _row(record: TrialRecord, names: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {"number": record.number, "label": record.label, "state": record.state, "error": record.error}
    found = record.evaluation
    if found is None:
        return row
    recipe = found.recipe
    row["score_low"], row["score_high"] = found.interval or (None, None)
    row |= {"score": found.score, "artifacts": found.artifacts, "seconds": found.seconds}
    row |= {f"{_METRIC}{name}": value for name, value in found.metrics.items() if ":" in name}
    row |= {name: recipe.get(name) for name in ("method", "rank", "density", "seed", "checkpoint")}
    row["feasible"], row["pruned"] = found.feasible, found.pruned
    row["seconds_solve"] = found.metrics.get("seconds_solve")
    for measure, value in _MEASURES.items():
        row |= {f"{measure}:{name}": value(score) for name, score in found.sources.items()}
    row |= {f"leakage:{name}:{other}": leak for name, score in found.sources.items() for other, leak in score.leaks.items()}
    try:
        row |= {f"weight:{name}": weight for name, weight in source_weights(found, names).items()}
        for name, blocks in block_weights(found, names).items():
            row |= {f"block:{name}:{block}": weight for block, weight in blocks.items()}
    except ValueError as error:
        raise ValueError(f"trial {record.number}: {error}") from None
    return row


def _block_columns(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> list[str]:
    found = {column for row in rows for column in row if column.startswith("block:")}
    place = {f"block:{name}": index for index, name in enumerate(names)}
    return sorted(found, key=lambda c: (place[c.rpartition(":")[0]], natural(c.rpartition(":")[2])))


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
