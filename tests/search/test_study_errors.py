"""Errors of a study at rest reach the user as errors of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.errors import StudyError
from optimizer.search.study_errors import study_errors
from studies import StudyDirectory, StudyDirectoryError


def test_problem_place_and_remedy_are_kept(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught, study_errors():
        StudyDirectory(tmp_path / "nowhere").open()
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: there is no such directory — check the path of the study"
    assert isinstance(caught.value.__cause__, StudyDirectoryError)


def test_an_option_is_named_instead_of_the_place(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught, study_errors("--artifacts"):
        StudyDirectory(tmp_path / "nowhere").open()
    assert str(caught.value) == "--artifacts: there is no such directory — check the path of the study"


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), study_errors():
        raise KeyError("x")
