"""StudyDirectory: layout, creation, refusals and their messages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from studies import StudyDirectory, StudyDirectoryError


def test_layout(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "run").create()
    assert sorted(os.listdir(study.path)) == ["best", "evaluations", "images"]
    files = [study.settings, study.journal, study.trials_csv, study.trials_parquet, study.summary, study.report]
    names = ["study.yaml", "journal.log", "trials.csv", "trials.parquet", "summary.json", "report.html"]
    assert [f.relative_to(study.path).as_posix() for f in files] == names


def test_naming_a_study_touches_nothing(tmp_path: Path) -> None:
    StudyDirectory(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_creating_again_changes_nothing(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "run").create()
    study.settings.write_text("budget: 5\n")
    (study.images / "a.png").write_bytes(b"x")
    (study.path / "notes.txt").write_text("my own")
    before = sorted(p.relative_to(study.path) for p in study.path.rglob("*"))
    StudyDirectory(str(tmp_path / "run")).create().open()
    assert sorted(p.relative_to(study.path) for p in study.path.rglob("*")) == before


def test_a_creation_that_was_interrupted_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "journal.log.lock").touch()
    (tmp_path / ".tmp-0123.yaml").touch()
    assert StudyDirectory(tmp_path).create().best.is_dir()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("thesis.tex", "a", "b", "c"):
        (tmp_path / name).touch()
    with pytest.raises(StudyDirectoryError) as caught:
        StudyDirectory(tmp_path).create()
    message = f"{tmp_path}: the directory holds other files and no study (a, b, c …) — choose a new or an empty directory"
    assert str(caught.value) == message
    assert not (tmp_path / "images").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(StudyDirectoryError, match=r"run: the study cannot be written here \(not a directory\) — choose a directory that"):
        StudyDirectory(tmp_path / "run").create()


def test_nothing_is_left_when_creation_fails(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "images").touch()
    with pytest.raises(StudyDirectoryError) as caught:
        StudyDirectory(root).create()
    assert caught.value.where == root / "images"
    assert isinstance(caught.value, ValueError)
    assert os.listdir(root) == ["images"]


def test_new_parents_are_removed_when_creation_fails(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError, match="name too long"):
        StudyDirectory(tmp_path / "a" / "b" / ("n" * 300)).create()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StudyDirectoryError, match=r"^/proc/run: the study cannot be written here"):
        StudyDirectory("/proc/run").create()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "run").create()
    study.images.chmod(0o500)
    with pytest.raises(StudyDirectoryError, match="permission denied"):
        study.create()


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError, match="null"):
        StudyDirectory(f"{tmp_path}/a\0b").create()


def test_opening_what_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError, match="there is no such directory — check the path"):
        StudyDirectory(tmp_path / "absent").open()
    with pytest.raises(StudyDirectoryError, match=r"not a study, it holds no study\.yaml — name the directory"):
        StudyDirectory(tmp_path).open()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../secret", "images/../../secret", "images\\..\\x", "a\0b", "."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudyDirectoryError, match=r"leads out of the study — name files relative"):
        StudyDirectory(tmp_path).inside(name)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "run").create()
    (tmp_path / "secret.png").touch()
    (study.images / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(StudyDirectoryError, match="leads out"):
        study.inside("images/link.png")


def test_names_inside(tmp_path: Path) -> None:
    assert StudyDirectory(tmp_path).inside("images/größe 1.png") == tmp_path / "images" / "größe 1.png"
