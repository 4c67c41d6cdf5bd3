"""Where a worker works: in the study of a directory, wherever its trials are, or in a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.cli.main import execute
from optimizer.search.workers.storage import open_database_study
from tests.postgres import PASSWORD
from tests.workers.runs import Job, Sources


def test_a_directory_on_this_machine(
    sources: Sources, out: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(sources, out, budget=1)
    assert job.begin(job.words(), out.with_suffix(".log")).popen.wait() == 0
    monkeypatch.setenv("OPTIMIZE_STORAGE", "postgresql://elsewhere.example/lab")  # meant for other studies
    assert execute(["worker", str(out)]) == 0
    assert capfd.readouterr().out == "0 trials evaluated here; the study has none left\n"


@pytest.mark.postgres
@pytest.mark.parametrize("words", [["OUT"], ["OUT", "--storage", "URL"], ["--storage", "URL", "--study", "s", "--artifacts", "STORE"]])
def test_a_database(
    sources: Sources, out: Path, database: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # which no directory knows
    monkeypatch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
    job = Job(sources, out, budget=1, storage=database, artifacts=str(out.parent / "store"))
    assert job.begin(job.words(), out.with_suffix(".log")).popen.wait() == 0
    shared = open_database_study(database, "s", create=False)
    shared.study.set_user_attr("total", 6)
    shared.close()
    meant = {"OUT": str(out), "URL": database, "STORE": job.artifacts}
    assert execute(["worker", *[meant.get(word, word) for word in words]]) == 0
    assert capfd.readouterr().out == "1 trial evaluated here; the study has none left\n"


@pytest.mark.parametrize("words", [[], ["--storage", "postgresql://h/d"], ["--study", "s", "--artifacts", "a"]])
def test_a_place_that_cannot_be_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["worker", *words]) == 2
    assert capsys.readouterr().err == (
        "optimize: where the study is cannot be told — give the study's directory, or --storage, --study and --artifacts together\n"
    )
