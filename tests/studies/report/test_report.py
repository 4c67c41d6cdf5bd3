"""The report as text: complete, self-contained, and deaf to hostile strings."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studies import StudyDirectory, StudySummary, TrialRecord, load_summary, save_summary, write_report
from studies.report.page import build_page, duration, loading_snippet
from studies.report.pictures import LARGEST, inline_picture
from tests.studies.samples import HOSTILE, LONG, SOURCES, sample

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and text as a browser would see them, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.scripts = "", ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["script"], ["style"]):
            self.scripts += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(folder: Path, **options: Any) -> tuple[StudySummary, str]:
    summary = sample(folder, **options)
    path = write_report(summary, folder)
    assert path == folder / "report.html"
    return summary, path.read_text(encoding="utf-8")


def test_everything_is_there_with_the_verdict_first(tmp_path: Path) -> None:
    summary, text = report(tmp_path)
    page = Reader(text)
    assert summary.verdict
    headings = [
        "Pictures",
        "What each source keeps",
        "Search",
        "The best recipe",
        "All trials",
        "Warnings and failures",
        "Use and reproduce",
    ]
    places = [text.index(words) for words in (f">{summary.verdict.sentence}<", *(f"<h2>{h}</h2>" for h in headings))]
    assert places == sorted(places)
    for words in (*summary.warnings, summary.command, "ab" * 8, "<robot>", "NVIDIA RTX 4090", "0.57 to 0.67", "trials.csv"):
        assert words in page.text
    assert "pipe.load_lora_weights('best', weight_name='merged.safetensors')" in page.text
    assert page.text.count("failed: CUDA out of memory") >= 2
    assert len([row for row in page.all("tr") if row.get("id", "").startswith("trial-")]) == len(summary.trials)


def test_trials_show_parameters_that_tell_them_apart(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16)
    solved = {"train_steps": 150, "truncation": "outputs", "checkpoint": 80, "calibration": "ab" * 32}
    recipes: dict[int, dict[str, object]] = {6: {"density": 0.25}, 7: solved, 8: solved | {"truncation": "delta"}}
    trials = list(summary.trials)
    for number, changes in recipes.items():
        found = trials[number].evaluation
        assert found
        changed = found.model_copy(update={"recipe": found.recipe | changes, "metrics": {"seconds_solve": 100.0}})
        trials[number] = trials[number].model_copy(update={"evaluation": changed})
    summary = summary.model_copy(update={"trials": tuple(trials), "best_number": 7})
    page = build_page(summary, StudyDirectory(tmp_path))
    assert [page.trials[n].parameters for n in (0, 6, 7, 8)] == [
        "",
        "density 0.25",
        "truncation outputs, checkpoint 80 %",
        "truncation delta, checkpoint 80 %",
    ]
    assert page.recipe["checkpoint"] == "80 %"
    text = write_report(summary, tmp_path).read_text(encoding="utf-8")
    assert ">Parameters</th>" in text
    assert 'title="2 min of it for solving the merge"' in text
    plain = tuple(t for t in summary.trials if not t.evaluation or not {"density", "checkpoint"} & t.evaluation.recipe.keys())
    shown = write_report(summary.model_copy(update={"trials": plain, "best_number": None}), tmp_path).read_text(encoding="utf-8")
    assert "Parameters" not in shown


def test_trials_have_a_column_for_errors_only_if_there_are_some(tmp_path: Path) -> None:
    summary, text = report(tmp_path)
    assert ">Error</th>" in text
    complete = summary.model_copy(update={"trials": tuple(t for t in summary.trials if t.evaluation)})
    assert ">Error</th>" not in write_report(complete, tmp_path).read_text(encoding="utf-8")


def test_trials_that_miss_what_was_asked_for_are_marked(tmp_path: Path) -> None:
    summary = sample(tmp_path)
    (first, second), verdict = summary.names, summary.verdict
    assert verdict

    def held(record: TrialRecord) -> TrialRecord:
        """The trial with a target that its first source misses unless it is kept well."""
        if record.evaluation is None:
            return record
        constraints = {f"keep:{first}": 0.6 - record.evaluation.sources[first].preservation}
        return record.model_copy(update={"evaluation": record.evaluation.model_copy(update={"constraints": constraints})})

    rows = verdict.rows | {"stack": verdict.rows["stack"].model_copy(update={"missed": {f"keep:{first}": 0.25}})}
    held_trials = tuple(map(held, summary.trials))
    changes = {"targets": {first: 0.6}, "priorities": {first: 2.0, second: 1.0}, "trials": held_trials}
    summary = summary.model_copy(update=changes | {"verdict": verdict.model_copy(update={"rows": rows})})
    text = write_report(summary, tmp_path).read_text(encoding="utf-8")
    page = Reader(text)
    missing = [t.evaluation for t in held_trials if t.evaluation and not t.evaluation.feasible]
    complete = [t.evaluation for t in held_trials if t.evaluation]
    assert 0 < len(missing) < len(complete)
    assert text.count('<td class="bad">infeasible</td>') == len(missing)
    assert all(f"{found.misses[0]}</bdi>" in text for found in missing)
    assert text.count('<span title="misses the target by 0.250">✗</span>') == 1
    assert "<small>≥ 0.6</small>" in text
    assert f"by their priorities ({first} 2, {second} 1)" in page.text
    assert f"A recipe that keeps less than 0.6 of {first} is marked ✗ and never exported." in page.text
    assert "What is hollow misses what was asked for." in page.text
    assert 'class="dot member"' in text
    assert 'class="dot infeasible member"' not in text


def test_every_picture_is_inlined_once(tmp_path: Path) -> None:
    summary, text = report(tmp_path)
    pictures = [i for i in Reader(text).all("img") if i.get("src")]
    assert len(pictures) == len(summary.columns) * len(summary.prompts)
    assert all(i["src"].startswith("data:image/webp;base64,") and i["class"] == "pixelated" and i["alt"] for i in pictures)


def test_a_saved_summary_gives_the_same_report(tmp_path: Path) -> None:
    summary, text = report(tmp_path, size=16)
    save_summary(summary, tmp_path)
    (tmp_path / "report.html").unlink()
    assert write_report(load_summary(tmp_path), StudyDirectory(tmp_path)).read_text(encoding="utf-8") == text


def test_nothing_is_asked_from_elsewhere(tmp_path: Path) -> None:
    _, text = report(tmp_path, size=16, hostile="https://example.org/x.png")
    page = Reader(text)
    allowed = re.compile(r"(data:image/webp;base64,|#)")
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert name not in attributes or allowed.match(attributes[name])
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket|innerHTML|eval\(", page.scripts)


def test_content_security_policy_fits_the_content(tmp_path: Path) -> None:
    _, text = report(tmp_path, size=16)
    (policy,) = [m["content"] for m in Reader(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_hostile_strings_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    names = ("neon" + HOSTILE, LONG, "\u202egnp.exe")
    summary, text = report(tmp_path, names=names, hostile=HOSTILE, size=16)
    page = Reader(text)
    assert len(page.all("script")) == 1
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "alert" not in page.scripts
    assert text.count("<script") == 1
    assert page.text.count(HOSTILE) > 20
    for name in names:
        assert name in page.text
    assert summary.prompts[0].text in page.text


def test_text_that_utf8_cannot_hold_does_not_cost_the_report(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16)
    write_report(summary.model_copy(update={"base": "sd\udce9"}), tmp_path)
    assert "sd\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_study(tmp_path: Path) -> None:
    summary, text = report(tmp_path, size=16, finished=False, count=17)
    page = Reader(text)
    best = summary.best
    assert best is not None
    assert best.evaluation is not None
    expected = f"No verdict yet, the study has not finished; trial {best.number} is ahead with a score of {best.evaluation.score:.2f}"
    assert expected in page.text
    assert page.text.index("optimize resume runs/first") < page.text.index("Pictures\n")
    assert "13 of 50 and 4 baselines, 1 failed" in page.text
    assert "not rendered" in page.text
    assert "the file is missing" in page.text
    last = summary.prompts[-1]
    assert f"The picture of best for “{last.text}” (seed {last.seed}) is not shown: the file is missing." in page.text
    assert "load_lora_weights" not in page.text


def test_a_study_before_its_first_trial(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16, finished=False)
    empty = summary.model_copy(update={"trials": (), "best_number": None, "columns": (), "prompts": ()})
    page = Reader(write_report(empty, tmp_path).read_text(encoding="utf-8"))
    assert "No verdict yet, the study has not finished; no trial is complete." in page.text
    assert page.all("section")[-1]["id"] == "use"


def test_only_failures(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16, finished=False)
    failed = tuple(TrialRecord(number=i, state="FAIL", error=f"reason {i}") for i in range(3))
    page = Reader(write_report(summary.model_copy(update={"trials": failed, "best_number": None}), tmp_path).read_text(encoding="utf-8"))
    assert "3 failed trials" in page.text
    assert all(f"Trial {i} failed: reason {i}" in page.text for i in range(3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_left_empty(tmp_path: Path, value: float) -> None:
    summary = sample(tmp_path, size=16)
    found = summary.trials[12].evaluation
    assert found is not None
    scores = {name: s.model_copy(update={"preservation": value}) for name, s in found.sources.items()}
    odd = TrialRecord(number=12, evaluation=found.model_copy(update={"score": value, "sources": scores, "artifacts": value}))
    changed = summary.model_copy(update={"trials": (*summary.trials[:12], odd, *summary.trials[13:])})
    text = write_report(changed, tmp_path).read_text(encoding="utf-8")
    row = re.search(r'<tr id="trial-12".*?</tr>', text, re.DOTALL)
    assert row is not None
    assert "nan" not in row[0]
    assert "inf" not in row[0]


def test_marks_at_the_edge_are_explained(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16)
    above = tuple(t for t in summary.trials if t.evaluation and all(s.preservation > -0.2 for s in t.evaluation.sources.values()))
    note = "A triangle at the edge stands for a value below −0.25."
    assert build_page(summary, StudyDirectory(tmp_path)).trade_offs[0].caption.endswith(note)
    page = build_page(summary.model_copy(update={"trials": above}), StudyDirectory(tmp_path))
    assert page.history is not None
    assert note not in page.history.caption + page.trade_offs[0].caption


@pytest.mark.parametrize(("count", "charts"), [(1, 0), (2, 1), (3, 3), (4, 6)])
def test_one_trade_off_per_pair_of_sources(tmp_path: Path, count: int, charts: int) -> None:
    page = build_page(sample(tmp_path, names=SOURCES[:count], size=16), StudyDirectory(tmp_path))
    assert len(page.trade_offs) == charts


def test_a_shipped_baseline_is_marked_as_such(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16)
    assert summary.verdict is not None
    verdict = summary.verdict.model_copy(update={"winner": "naive", "sentence": "The naive merge is as good."})
    text = write_report(summary.model_copy(update={"verdict": verdict}), tmp_path).read_text(encoding="utf-8")
    (row,) = re.findall(r'<tr class="chosen">(.*?)</tr>', text[: text.index('id="pictures"')], re.DOTALL)
    assert "naive" in row
    assert "exported" in row


def test_a_recipe_that_does_not_fit_is_named(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16)
    one = summary.model_copy(update={"sources": summary.sources[:1], "prompts": (), "columns": ()})
    with pytest.raises(ValueError, match="the recipe has 2 weights for 1 sources"):
        write_report(one, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_snippet_is_python_whatever_the_names(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16, hostile='\'; import os; """\n\\')
    program = ast.parse(loading_snippet(summary))
    assert [type(statement) for statement in program.body] == [ast.Import, ast.ImportFrom, ast.Assign, ast.Expr, ast.Assign]


def test_a_model_in_one_file_is_loaded_by_the_class_that_the_study_names(tmp_path: Path) -> None:
    model = {"kind": "model", "file": "best/mine.safetensors"}
    summary = sample(tmp_path, size=16).model_copy(update={**model, "pipeline": "FluxPipeline"})
    assert "pipe = FluxPipeline.from_single_file('best/mine.safetensors')" in loading_snippet(summary)
    page = Reader(write_report(summary.model_copy(update={"pipeline": ""}), tmp_path).read_text(encoding="utf-8"))
    assert "from_single_file" not in page.text
    assert "among your checkpoints" in page.text


def test_a_file_for_comfyui_is_not_said_to_load_elsewhere(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=16).model_copy(update={"comfyui_only": True})
    page = Reader(write_report(summary, tmp_path).read_text(encoding="utf-8"))
    assert "Its names are ComfyUI's own, which no other loader reads." in page.text
    assert "load_lora_weights" not in page.text
    assert "<lora:" not in page.text


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    gradient = np.linspace(0, 255, 1024 * 512 * 3).reshape(512, 1024, 3).astype(np.uint8)
    Image.fromarray(gradient).save(tmp_path / "large.png")
    found = inline_picture(StudyDirectory(tmp_path), "large.png")
    assert (found.width, found.height, found.pixelated) == (LARGEST, LARGEST // 2, False)
    with Image.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2]))) as shown:
        assert (shown.format, shown.size) == ("WEBP", (LARGEST, LARGEST // 2))


def test_tiny_pictures_keep_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tiny.png")
    found = inline_picture(StudyDirectory(tmp_path), "tiny.png")
    assert found.pixelated
    with Image.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2]))) as shown:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), pixels)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("absent.png", "the file is missing"),
        ("text.png", "the file is not a picture"),
        ("torn.png", "the file cannot be read"),
        ("../secret.png", "the name '../secret.png' leads out of the study"),
        ("", ""),
    ],
)
def test_pictures_that_cannot_be_shown(tmp_path: Path, name: str, problem: str) -> None:
    study = StudyDirectory(tmp_path / "study").create()
    (study.path / "text.png").write_text("<svg onload=alert(1)>")
    picture = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(picture, "PNG")
    (study.path / "torn.png").write_bytes(picture.getvalue()[:900])
    (tmp_path / "secret.png").write_bytes(picture.getvalue())
    found = inline_picture(study, name)
    assert found.uri == ""
    assert found.problem.startswith(problem)
    assert bool(found.problem) == bool(problem)


@pytest.mark.parametrize(("seconds", "words"), [(4.2, "4 s"), (89, "89 s"), (600, "10 min"), (7 * 3600 + 290, "7 h 05 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
