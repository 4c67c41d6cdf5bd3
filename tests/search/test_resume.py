"""An interrupted run that is resumed equals one that was not interrupted, wherever it was broken off."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from optimizer import Study, optimize
from optimizer.errors import StudyError
from optimizer.search.proposals import sampler
from optimizer.search.trials.run_lock import lock_run
from optimizer.search.workers.trial_writer import StorageTrialWriter
from studies import StudyDirectory
from studies.trial_log import TrialLog
from tests.search.runs import After, trials, watch_evaluations
from tests.studio import Studio


class Killed(BaseException):
    """What nobody catches, as nobody catches a power cut."""


@pytest.fixture(scope="module")
def options(studio: Studio) -> dict[str, Any]:
    """Trials 0 to 3 are the baselines, 4 a default recipe, 5 is random, 6 and 7 come from the sampler's model."""
    return studio.options(budget=4, finalists=1, methods=("ties", "dare_linear"))


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The uninterrupted run."""
    return optimize(**options, out=tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("ended", "rendering"), [(2, True), (6, False)])
def test_a_stop_after_or_within_a_trial(whole: Study, options: dict[str, Any], tmp_path: Path, ended: int, rendering: bool) -> None:
    stopped = optimize(**options, out=tmp_path, observer=After(ended, rendering=rendering))
    assert (len(stopped.trials), stopped.best, stopped.complete) == (ended, None, False)
    assert (tmp_path / "report.html").is_file()
    assert stopped.summary.resume_command == f"optimize resume {tmp_path}"
    assert trials(stopped.trials) == trials(whole.trials)[:ended]
    resumed = optimize(**options, out=tmp_path)
    assert trials(resumed.trials) == trials(whole.trials)
    assert resumed.best is not None
    assert whole.best is not None
    assert resumed.best.read_bytes() == whole.best.read_bytes()


def test_a_run_in_a_space_that_is_too_large_for_a_gaussian_process(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_GP_DIMENSIONS", 0)
    whole = optimize(**options, out=tmp_path / "whole")
    optimize(**options, out=tmp_path / "broken", observer=After(7, rendering=True))
    assert trials(optimize(**options, out=tmp_path / "broken").trials) == trials(whole.trials)


def _run_until_killed(run: dict[str, Any], target: object, name: str, when: Callable[..., bool]) -> None:
    """Run, and end as if killed when a method is called for the first time with arguments for which ``when`` holds."""
    real = getattr(target, name)

    def dying(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise Killed
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, dying)
        with pytest.raises(Killed):
            optimize(**run)


@pytest.mark.parametrize(
    ("target", "name", "when", "written"),
    [
        pytest.param(StorageTrialWriter, "create", lambda writer, trial, number: number == 3, 0, id="while the first trials are queued"),
        pytest.param(TrialLog, "add", lambda log, entry: entry.number == 6, 7, id="between writing an evaluation and telling it"),
        pytest.param(
            optuna.Trial,
            "suggest_float",
            lambda trial, name, *_: (trial.number, name) == (5, "weight:bruno"),
            5,
            id="within a random proposal",
        ),
        pytest.param(
            optuna.Trial,
            "suggest_float",
            lambda trial, name, *_: (trial.number, name) == (7, "weight:bruno"),
            7,
            id="within a modelled proposal",
        ),
    ],
)
def test_a_kill(
    whole: Study,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: object,
    name: str,
    when: Callable[..., bool],
    written: int,
) -> None:
    _run_until_killed(options | {"out": tmp_path}, target, name, when)
    assert len(list((tmp_path / "evaluations").glob("*.json"))) == written
    evaluated = watch_evaluations(monkeypatch)
    resumed = optimize(**options, out=tmp_path)
    assert trials(resumed.trials) == trials(whole.trials)
    # What was written is not rendered again; the confirmation is: a finalist, the better merge of equal weights, stack and naive.
    assert len(evaluated) == 8 - written + 4


def test_a_torn_journal_and_the_locks_of_a_dead_process(whole: Study, options: dict[str, Any], tmp_path: Path) -> None:
    optimize(**options, out=tmp_path, observer=After(3, rendering=True))
    with (tmp_path / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":5,"worker_id":"a')
    (tmp_path / "journal.log.lock").unlink()
    (tmp_path / "journal.log.lock").symlink_to(tmp_path / "journal.log")
    (tmp_path / "journal.log.run").touch()
    assert trials(optimize(**options, out=tmp_path).trials) == trials(whole.trials)


def test_one_run_at_a_time(options: dict[str, Any], tmp_path: Path) -> None:
    with lock_run(StudyDirectory(tmp_path)), pytest.raises(StudyError) as caught:
        optimize(**options, out=tmp_path)
    assert str(caught.value) == f"{tmp_path}: another run is working on the study here — wait until it ends, or choose another --out"


def test_other_settings_are_refused_in_one_line_that_lists_them(studio: Studio, options: dict[str, Any], tmp_path: Path) -> None:
    optimize(**options, out=tmp_path, observer=After(1, rendering=False))
    before = (tmp_path / "study.yaml").read_bytes()
    with pytest.raises(StudyError) as caught:
        optimize(
            **options | {"out": tmp_path, "seed": 5, "sources": studio.sources[1:3], "budget": 9, "timeout": 60, "dialect": "diffusers"}
        )
    first, second, third = (str(path) for path in studio.sources[:3])
    assert str(caught.value) == (
        f"{tmp_path}: the study here was made with other settings "
        f"(sources: {[first, second]} → {[second, third]}; seed: 0 → 5) — repeat the command that began it, choose another --out, or "
        "start a new study with what is still valid: --fork NAME"
    )
    assert (tmp_path / "study.yaml").read_bytes() == before


def test_other_files_behind_the_same_names_are_refused(studio: Studio, options: dict[str, Any], tmp_path: Path) -> None:
    hero, words = tmp_path / "hero.safetensors", tmp_path / "words.yaml"
    hero.write_bytes(studio.sources[0].read_bytes())
    words.write_bytes(studio.words.read_bytes())
    options = options | {"sources": (hero, studio.sources[1]), "prompts": str(words), "out": tmp_path / "study"}
    optimize(**options, observer=After(1, rendering=False))
    hero.write_bytes(studio.sources[2].read_bytes())
    words.write_text("subjects: [a cone]\nsettings: [at home]\n")
    with pytest.raises(StudyError) as caught:
        optimize(**options)
    digest = "[0-9a-f]{8}"
    assert re.fullmatch(
        rf"{tmp_path / 'study'}: what the study here rests on has changed since it began \("
        rf"source hero: {digest} → {digest}; prompts: {digest} → {digest}; search space: {digest} → {digest}\); "
        "prompts follow from --prompts, the triggers of the sources, and the general words of this version — "
        "put it back, or start a new study with what is still valid: --fork NAME",
        str(caught.value),
    )
