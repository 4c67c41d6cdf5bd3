"""A study on disk: records, files, tables, the evaluation cache and the report.

This package contains only plain data and files. Nothing imports torch; pandas, Jinja2 and Pillow are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from studies.cache import BrokenEvaluationWarning, EvaluationCache, evaluation_key
from studies.directory import StudyDirectory, StudyDirectoryError
from studies.frames import trials_frame, write_tables
from studies.records import Evaluation, SourceScore, TrialRecord
from studies.summary import (
    DEMO_BASE,
    AcceleratorInfo,
    ConfirmedScore,
    FrontMember,
    PictureColumn,
    PromptInfo,
    SourceInfo,
    StudySummary,
    Verdict,
    load_summary,
    save_summary,
)

if TYPE_CHECKING:
    from studies.report.report import write_report

__all__ = [
    "DEMO_BASE",
    "AcceleratorInfo",
    "BrokenEvaluationWarning",
    "ConfirmedScore",
    "Evaluation",
    "EvaluationCache",
    "FrontMember",
    "PictureColumn",
    "PromptInfo",
    "SourceInfo",
    "SourceScore",
    "StudyDirectory",
    "StudyDirectoryError",
    "StudySummary",
    "TrialRecord",
    "Verdict",
    "evaluation_key",
    "load_summary",
    "save_summary",
    "trials_frame",
    "write_report",
    "write_tables",
]

_LAZY = {"write_report": "studies.report.report"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
