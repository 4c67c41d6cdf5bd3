"""The package: what it exports, and what it does not drag in."""

from __future__ import annotations

import subprocess
import sys

import pytest

import studies

EXPORTS = [
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


def test_exports_are_pinned_and_there() -> None:
    assert studies.__all__ == EXPORTS
    assert all(getattr(studies, name) is not None for name in EXPORTS)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'studies' has no attribute 'nothing'"):
        _ = studies.nothing


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("studies, studies.summary, studies.frames, studies.cache", "torch pandas jinja2 PIL numpy optimizer"),
        ("studies.store_urls, studies.s3, studies.store", "torch pandas optimizer boto3 botocore urllib3"),
        ("studies.report.report, studies.report.page, studies.report.figures", "torch pandas optimizer diffusers matplotlib"),
    ],
)
def test_importing_is_cheap(modules: str, absent: str) -> None:
    program = f"import sys, {modules}; print([m for m in {absent.split()!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
