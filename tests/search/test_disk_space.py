"""Before anything is written: is there room for what the run will write?"""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from optimizer import optimize
from optimizer.errors import UsageError
from optimizer.rendering.memory.free import amount
from optimizer.search import disk_space as disk
from optimizer.search.config import Config
from optimizer.search.disk_space import need
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from studies import StudyDirectory
from tests.files import LINEAR, kohya_file, random_parts

Usage = namedtuple("Usage", "total used free")


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    files = [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=64", "budget": 2, "own": 1, "joint": 1, "confirm": 1, "out": tmp_path / "x/study"}


def test_the_need_is_told(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 12_345_000_000))
    observer = Noting()
    optimize(**options, observer=observer)
    assert observer.notes[0] == "this run needs about 17 MB of disk, 12 GB are free"


def test_too_little_space_is_refused_and_nothing_is_written(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1_000_000 if path.exists() else 0))
    with pytest.raises(UsageError) as caught:
        optimize(**options)
    assert str(caught.value) == (
        "--out: the run needs about 17 MB of disk, 1 MB are free — "
        "free some space, choose another --out, or keep fewer pictures (--keep-images)"
    )
    assert not options["out"].parent.exists()


def test_what_is_written_is_less_than_what_was_said(options: dict[str, Any]) -> None:
    study = optimize(**options | {"keep_images": "all"})
    written = sum(p.stat().st_size for p in study.directory.rglob("*") if p.is_file())
    assert written < needed(options | {"keep_images": "all"}, study.directory)
    assert needed(options, study.directory) < disk._SLACK * 2


def needed(options: dict[str, Any], directory: Path) -> int:
    config = Config.of(**options)
    session = prepare(config, Silent())
    return need(
        session, search_prompts(config, session.sources), confirmation_prompts(config, session.sources), StudyDirectory(directory)
    ).total


def test_pictures_are_counted_by_what_is_kept(options: dict[str, Any], tmp_path: Path) -> None:
    def pictures(**changes: Any) -> float:
        config = Config.of(**options | {"budget": 100, "finalists": 3} | changes)
        session = prepare(config, Silent())
        prompts, unseen = search_prompts(config, session.sources), confirmation_prompts(config, session.sources)
        assert len(prompts) == 3
        found = need(session, prompts, unseen, StudyDirectory(tmp_path / "none")).pictures / int(64 * 64 * 3 * 0.7)
        return found - 7 * len(unseen)

    assert pictures(keep_images="all") == 3 * (3 + 4 + 100)
    assert pictures(keep_images="best") == 3 * (3 + 4 + 3 + 1)
    assert pictures(keep_images="none") == 3 * 3
    assert pictures(storage="postgresql://x/y", artifacts="z") == 0


def test_a_picture_that_is_there_is_measured(options: dict[str, Any], tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path / "study")
    first = directory.images / "baselines/base/000.png"
    first.parent.mkdir(parents=True)
    before = needed(options, directory.path)
    first.write_bytes(b"x" * 1_000_000)
    assert needed(options, directory.path) > before + 10_000_000


@pytest.mark.parametrize(("size", "text"), [(340e6, "340 MB"), (1.24e9, "1.2 GB"), (12.3e9, "12 GB"), (2.5e12, "2500 GB"), (4e5, "0 MB")])
def test_sizes_as_people_say_them(size: float, text: str) -> None:
    assert amount(size) == text
