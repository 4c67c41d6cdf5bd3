"""Priorities and targets of the user in whole runs on a fake base: what they decide, what they leave alone, and what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import balance
from optimizer.cli.main import execute
from optimizer.errors import NoFeasibleMerge, UsageError
from optimizer.search.config import Config
from optimizer.search.config.named import Named, by_source
from optimizer.search.config.protocol import Protocol
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.confirmation import confirm
from optimizer.search.evaluation.fingerprint import changes
from optimizer.search.evaluation.prompt_sets import confirmation_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import NAIVE, STACK, is_alone
from optimizer.search.observer import Silent
from optimizer.search.run import run
from optimizer.search.trials.optuna_notes import note
from optimizer.search.trials.optuna_storage import storage_of, study_id_of
from optimizer.search.trials.repair import repair
from optimizer.search.workers.storage import open_local_study
from studies import StudyDirectory, load_summary
from studies.records import Evaluation, SourceScore
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import trials, watch_evaluations

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sources, in which the command is run."""
    for index, name in enumerate(("hero", "style")):
        kohya_file(tmp_path / f"{name}.safetensors", random_parts(LINEAR, rank=2 + index, seed=index))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*aims: str, out: str = "study", budget: int = 2, seed: int = 0) -> list[str]:
    options = ["--base", "fake:size=8", "--budget", str(budget), "--own", "2", "--joint", "2", "--confirm", "2", "--out", out]
    return ["--sources", "hero.safetensors", "style.safetensors", *options, "--seed", str(seed), *aims]


def evaluations(out: Path) -> dict[str, Evaluation]:
    return {r.label or f"trial {r.number}": r.evaluation for r in load_summary(out).trials if r.evaluation}


def kept(found: Evaluation) -> list[float]:
    return [source.preservation for source in found.sources.values()]


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        ("--priority hero", "got 'hero' — write NAME=NUMBER with a number from 0.001 to 1000, such as hero=2; what is not named has 1"),
        ("--priority hero=much", "got 'hero=much' — write NAME=NUMBER"),
        ("--priority hero=0", "got 'hero=0' — write NAME=NUMBER"),
        ("--priority hero=-1", "got 'hero=-1' — write NAME=NUMBER"),
        ("--priority hero=nan", "got 'hero=nan' — write NAME=NUMBER"),
        ("--priority hero=1001", "got 'hero=1001' — write NAME=NUMBER"),
        ("--priority =2", "got '=2' — write NAME=NUMBER"),
        ("--priority hero=2 hero=3", "names hero twice — give one number for each source"),
        ("--priority hero=2 1=3", "names hero twice — give one number for each source"),
        ("--priority her=2", "there is no source 'her' — name one of hero, style, or a position from 1 to 2"),
        ("--priority 3=2", "there is no source '3' — name one of hero, style, or a position from 1 to 2"),
        ("--keep hero=0", "got 'hero=0' — write NAME=SHARE with a share above 0 and at most 1, such as hero=0.9"),
        ("--keep hero=1.1", "got 'hero=1.1' — write NAME=SHARE"),
        ("--keep 2", "got '2' — write NAME=SHARE"),
        ("--keep style=0.5 2=0.5", "names style twice — give one number for each source"),
        ("--keep stile=0.5", "there is no source 'stile' — name one of hero, style, or a position from 1 to 2"),
    ],
)
def test_what_is_no_aim_is_told_before_anything_is_drawn(place: Path, aim: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, *values = aim.split()
    assert execute(words(option, *values)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"optimize: {option}: {message}")
    assert err.count("\n") == 1
    assert not (place / "study").exists()


def test_sources_are_named_by_their_names_or_else_by_position() -> None:
    assert by_source([Named("b=c", 2.0), Named("1", 3.0)], ["a", "b=c"], "--keep") == {"a": 3.0, "b=c": 2.0}
    assert by_source([Named("1", 2.0)], ["2", "1"], "--keep") == {"1": 2.0}, "a name wins over a position"
    assert Aims.of(Protocol(priority=("b=c=2",)), ["a", "b=c"]).priorities == {"a": 1.0, "b=c": 2.0}
    assert Aims.of(Protocol(priority=("a=2", "b=2")), ["a", "b"]) == Aims(), "equal priorities are none"
    with pytest.raises(UsageError, match=r"there is no source 'c' — name one of a, b, or a position from 1 to 2$"):
        Aims.of(Protocol(keep=("c=0.5",)), ["a", "b"])


def test_priorities_are_in_every_score_and_told_where_it_is_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words(out="plain")) == 0
    assert execute(words("--priority", "hero=3")) == 0
    out = capsys.readouterr().out
    plain, weighted = evaluations(place / "plain"), evaluations(place / "study")
    for name in (STACK, NAIVE, "hero alone"):
        assert kept(weighted[name]) == kept(plain[name])
        shares = torch.tensor(kept(plain[name]), dtype=torch.float64)
        factor = float(balance(shares, (3, 1)) / balance(shares))
        assert weighted[name].score == pytest.approx(plain[name].score * factor)
        assert weighted[name].score != plain[name].score
    assert "priorities in the score: hero 3, style 1" in out
    report = (place / "study" / "report.html").read_text()
    assert "by their priorities (<bdi>hero 3, style 1</bdi>)" in report
    assert "by their priorities" not in (place / "plain" / "report.html").read_text()
    assert "Priorities of the sources in the score\\: hero 3\\, style 1\\." in (place / "study" / "best" / "README.md").read_text()
    assert "What was asked for" not in (place / "plain" / "best" / "README.md").read_text()
    shared = open_local_study(StudyDirectory(place / "study"), create=False)
    attributes = storage_of(shared.study).get_study_system_attrs(study_id_of(shared.study))
    shared.close()
    assert "Shares count by the priorities of the sources: hero 3, style 1." in attributes["dashboard:note_str:0"].replace("&#44;", ",")


def test_other_priorities_are_another_study_and_the_same_go_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words("--priority", "hero=3")) == 0
    first = load_summary(place / "study").trials
    capsys.readouterr()
    for other in ([], ["--priority", "hero=2"], ["--priority", "hero=3", "--keep", "style=0.5"]):
        assert execute(words(*other)) == 2
        told = capsys.readouterr().err
        assert "the study here was made with other settings (" in told
        assert told.endswith("or start a new study with what is still valid: --fork NAME\n")
    assert execute(["resume", "study", "--budget", "4"]) == 0
    assert trials(load_summary(place / "study").trials)[: len(first)] == trials(first)
    assert len(load_summary(place / "study").trials) == len(first) + 2


def options(**more: Any) -> dict[str, Any]:
    sources = ("hero.safetensors", "style.safetensors")
    return {"sources": sources, "base": "fake:size=8", "budget": 2, "own": 2, "joint": 2, "confirm": 2} | more


def test_aims_of_a_shared_study_are_compared_even_where_none_were_recorded() -> None:
    assert changes({"scorer": "version 3"}, {"scorer": "version 3", "priorities": "hero 2, style 1"}) == [
        "priorities: equal → hero 2, style 1"
    ]
    assert changes({"targets": "hero 0.9"}, {"scorer": "version 3"}) == ["targets: hero 0.9 → none"]
    assert changes({}, {"priorities": "hero 2, style 1"}) == []


def test_keys_without_aims_are_those_of_earlier_versions(place: Path) -> None:
    (plain, equal, weighted, bound) = (
        prepare(Config.of(**options(**aims)), Silent()).aims.described()
        for aims in ({}, {"priority": ("1=2", "2=2")}, {"priority": ("hero=2",)}, {"keep": ("style=0.5",)})
    )
    assert plain == equal == {}
    assert weighted == {"priorities": {"hero": 2.0, "style": 1.0}}
    assert bound == {"targets": {"style": 0.5}}


def test_a_fork_with_other_aims_draws_nothing_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = run(Config.of(**options(out="study", budget=4)), Silent())
    aims = {"priority": ("hero=3",), "keep": ("style=0.5",)}
    with monkeypatch.context() as patch:
        evaluated = watch_evaluations(patch)
        study = run(Config.of(**options(out="study", fork="other", budget=1, **aims)), Silent())
    before = {t.evaluation.recipe_hash: t.evaluation for t in old.trials if t.evaluation}
    after = {t.evaluation.recipe_hash: t.evaluation for t in study.trials if t.evaluation}
    assert before.keys() < after.keys()
    assert len(after) == len(before) + 1
    assert study.summary.verdict is not None
    merges = [label for label in study.summary.verdict.rows if not is_alone(label)]
    assert len(evaluated) == 1 + len(merges), "the one new recipe, and the confirmation"
    session = prepare(Config.of(**options(out="fresh", **aims)), Silent())
    for recipe_hash, evaluation in before.items():
        found = after[recipe_hash]
        assert found.sources == evaluation.sources
        assert found.constraints == session.aims.shortfalls(dict(zip(("hero", "style"), kept(found), strict=True)))
        assert found.images in (evaluation.images, ())
        shares = torch.tensor(kept(found), dtype=torch.float64)
        assert found.score == pytest.approx(evaluation.score * float(balance(shares, (3, 1)) / balance(shares)))
    fresh = run(Config.of(**options(out="fresh", budget=1, **aims)), Silent())
    for trial in fresh.trials[:4]:
        assert trial.evaluation
        assert after[trial.evaluation.recipe_hash].score == pytest.approx(trial.evaluation.score, rel=1e-12)
    back = run(Config.of(**options(out="other", fork="back", budget=1)), Silent())
    for trial in back.trials:
        assert trial.evaluation
        if trial.evaluation.recipe_hash in before:
            assert trial.evaluation.constraints == {}
            assert trial.evaluation.score == pytest.approx(before[trial.evaluation.recipe_hash].score, rel=1e-12)


def test_a_merge_that_keeps_too_little_never_wins(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words(out="plain")) == 0
    summary = load_summary(place / "plain")
    assert summary.verdict is not None
    bound = round((evaluations(place / "plain")[STACK].sources["hero"].preservation + 0.9) / 2, 3)
    capsys.readouterr()
    assert execute(words("--keep", f"hero={bound}", budget=6)) == 0
    out, err = capsys.readouterr()
    share = int(100 * evaluations(place / "study")[STACK].sources["hero"].preservation) / 100
    assert f"stack: {evaluations(place / 'study')[STACK].score:.3f}, keeps {share:.2f} of hero, asked for {bound:g}\n" in err
    check_target(place / "study", bound)
    summary = load_summary(place / "study")
    assert summary.verdict is not None
    winner = summary.verdict.rows[summary.verdict.winner]
    assert not winner.missed
    assert winner.sources["hero"] >= bound
    assert set(summary.verdict.rows[STACK].missed) == {"keep:hero"}
    assert "hero >=" in out
    assert "✗" in out
    assert "✗: misses the constraint, and is not exported" in out
    least = min(evaluations(place / "study")[STACK].sources["hero"].preservation, summary.verdict.rows[STACK].sources["hero"])
    assert f"the stack keeps {int(100 * least) / 100:.2f} of hero, asked for {bound:g}" in summary.verdict.sentence
    report = (place / "study" / "report.html").read_text()
    assert f"A recipe that keeps less than {bound:g} of hero is marked ✗ and never exported." in report
    assert report.count('<td class="bad">infeasible</td>') == sum(not e.feasible for e in evaluations(place / "study").values())
    assert f"At least {bound:g} of hero".replace(".", "\\.") in (place / "study" / "best" / "README.md").read_text()
    (place / "study" / "journal.log").unlink()
    repair(StudyDirectory(place / "study"))
    check_target(place / "study", bound)
    assert execute(["status", "study", "--json"]) == 0
    assert evaluations(place / "study")[json.loads(capsys.readouterr().out)["best_label"]].feasible


def check_target(out: Path, bound: float) -> None:
    """Optuna has the target of every trial as a constraint, and the table says which trials miss it."""
    with (out / "trials.csv").open(newline="") as file:
        rows = {int(row["number"]): row for row in csv.DictReader(file)}
    shared = open_local_study(StudyDirectory(out), create=False)
    try:
        found = {t.number: t.constraints for t in shared.study.get_trials()}
    finally:
        shared.close()
    shares = {number: float(row["preservation:hero"]) for number, row in rows.items()}
    assert found == {number: {"keep:hero": pytest.approx(bound - share)} for number, share in shares.items()}
    assert {number: row["feasible"] for number, row in rows.items()} == {n: str(share >= bound) for n, share in shares.items()}
    assert {"True", "False"} == {row["feasible"] for row in rows.values()}


def test_nothing_keeps_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words("--keep", "hero=0.999", "style=0.999")) == 3
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"optimize: {place / 'study'}: no merge satisfies all constraints on the search's prompts; ")
    merges = {name: found for name, found in evaluations(place / "study").items() if not is_alone(name)}
    nearest = min(merges, key=lambda name: sum(merges[name].violated.values()))
    phrases = [
        f"keeps {int(100 * share) / 100:.2f} of {name}, asked for 0.999"
        for name, share in zip(("hero", "style"), kept(merges[nearest]), strict=True)
    ]
    assert f"{nearest} comes nearest, and {', and '.join(phrases)}" in told
    assert told.endswith(" — relax the constraint (--keep), or try more recipes (--budget), see report.html")
    report = (place / "study" / "report.html").read_text()
    assert "no merge keeps 0.999 of hero and keeps 0.999 of style." in report
    assert not list((place / "study").glob("best/*.safetensors"))


def test_a_target_is_judged_on_fresh_prompts_too(place: Path) -> None:
    """On the search's prompts of this seed, the stack keeps more of both than on those of the confirmation."""
    plain = run(Config.of(**options(budget=1, seed=10, out="plain")), Silent())
    assert plain.summary.verdict is not None
    (stack,) = (t for t in plain.trials if t.label == STACK)
    assert stack.evaluation
    there, here = stack.evaluation.sources, plain.summary.verdict.rows[STACK].sources
    bounds = {name: round((there[name].preservation + here[name]) / 2, 3) for name in here}
    assert all(here[name] < bound < there[name].preservation for name, bound in bounds.items())
    session = prepare(Config.of(**options(seed=10, keep=[f"{name}={bound}" for name, bound in bounds.items()])), Silent())
    found = stack.model_copy(update={"evaluation": session.aims.rejudged(stack.evaluation, Aims())})
    assert found.evaluation
    assert found.evaluation.feasible
    evaluator = session.evaluator(confirmation_prompts(session.config, session.sources), Silent(), final=True)
    with pytest.raises(NoFeasibleMerge) as caught:
        confirm([found], evaluator, count=1, seed=10, observer=Silent())
    phrases = [f"keeps {int(100 * here[name]) / 100:.2f} of {name}, asked for {bound:.4g}" for name, bound in bounds.items()]
    assert str(caught.value) == (
        f"no merge satisfies all constraints on fresh prompts; stack comes nearest, and {', and '.join(phrases)} — "
        "relax the constraint (--keep), or try more recipes (--budget)"
    )


def test_workers_judge_by_the_same_aims(place: Path) -> None:
    aims = ("--priority", "style=2", "--keep", "hero=0.3")
    assert execute(words(*aims, out="one", budget=1)) == 0
    command = [sys.executable, "-m", "optimizer", *words(*aims, out="two", budget=1), "--workers", "2"]
    subprocess.run(command, check=True, capture_output=True)
    one, two = (evaluations(place / out) for out in ("one", "two"))
    assert {name: (found.score, found.constraints) for name, found in one.items() if name in (STACK, NAIVE)} == {
        name: (found.score, found.constraints) for name, found in two.items() if name in (STACK, NAIVE)
    }


def test_what_a_trial_keeps_too_little_of_is_in_its_note() -> None:
    sources = {"a*": SourceScore(preservation=0.5, own=0.5, joint=0.5), "b": SourceScore(preservation=0.75, own=1.0, joint=0.5)}
    constraints = {"m": 0.5, "keep:a*": 0.25, "keep:b": -0.25}
    found = Evaluation(recipe={}, recipe_hash="", score=0.5, sources=sources, artifacts=0.0, constraints=constraints)
    text = note("", found).replace("&#44;", ",")
    assert "Violates the constraint on m by 0.5.\nIt keeps 0.50 of a&#42;, asked for 0.75." in text


def test_a_soup_is_not_held_to_targets(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words("--keep", "hero=0.2")) == 0
    capsys.readouterr()
    assert execute(["merge", "study", "--method", "soup"]) == 2
    assert capsys.readouterr().err == (
        "optimize: study: the study has targets, which a soup is not held to — name a study without --keep\n"
    )
