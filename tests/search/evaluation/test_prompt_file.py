"""Prompt files: complete prompts, words, triggers and roles of the user, and what is said where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from optimizer import optimize
from optimizer.errors import StudyError, UsageError
from optimizer.rendering import GENERAL
from optimizer.rendering.prompts import PromptSet, Vocabulary
from optimizer.search.config import Config
from optimizer.search.evaluation import prompt_sets
from optimizer.search.evaluation.prompt_file import read_prompt_file, read_words
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, notes_on_prompts, search_prompts, warnings_about_prompts
from optimizer.search.evaluation.session import Session, prepare
from optimizer.search.observer import Silent
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After

FILE: dict[str, Any] = {
    "sources": {
        "hero": {"trigger": "robo", "role": "character", "prompts": ["{trigger} on a horse", "close-up of {trigger}", "{trigger} asleep"]},
        "hat": {"trigger": "red hat", "prompts": ["a cat with a {trigger}", "a dog with a {hat}"]},
    },
    "joint": ["{hero} wears a {hat} in the rain", "{hero} and a child with a {hat}"],
}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    names = ("hero", "hat")
    files = [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate(names)]
    return {"sources": files, "base": "fake:size=4", "budget": 2, "own": 1, "joint": 1, "confirm": 1, "out": tmp_path / "study"}


def written(folder: Path, content: object) -> str:
    path = folder / "prompts.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def session(options: dict[str, Any], folder: Path, content: object, **changes: Any) -> Session:
    return prepare(Config.of(**options | {"prompts": written(folder, content)} | changes), Silent())


def texts(prompts: PromptSet, source: int | None) -> list[str]:
    return [prompts.prompts[i].text for i in prompts.indices(source)]


class Notes(Silent):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_complete_prompts_need_no_words(options: dict[str, Any], tmp_path: Path) -> None:
    found = session(options, tmp_path, FILE, own=3, joint=2)
    prompts = search_prompts(found.config, found.sources)
    assert set(texts(prompts, 0)) == {"robo on a horse", "close-up of robo", "robo asleep"}
    assert set(texts(prompts, 1)) == {"a cat with a red hat", "a dog with a red hat"}
    assert set(texts(prompts, None)) == {"robo wears a red hat in the rain", "robo and a child with a red hat"}
    assert [(s.subject.role, s.subject.trigger) for s in found.sources] == [("character", "robo"), ("concept", "red hat")]
    assert warnings_about_prompts(found.config.protocol.prompts, found.sources) == []


def test_the_command_line_wins(options: dict[str, Any], tmp_path: Path) -> None:
    found = session(options, tmp_path, FILE, own=3, roles=("style", "concept"), triggers=("zig", "zag"))
    assert [(s.subject.role, s.subject.trigger) for s in found.sources] == [("style", "zig"), ("concept", "zag")]
    assert "zig on a horse" in texts(search_prompts(found.config, found.sources), 0)


def test_words_and_prompts_together(options: dict[str, Any], tmp_path: Path) -> None:
    content = {"subjects": ["a ball"], "settings": ["here", "there"], "sources": {"hat": {"prompts": ["a fez"]}}}
    found = session(options, tmp_path, content, own=2, joint=2, triggers=("robo", "fez"), roles=("character", "concept"))
    prompts = search_prompts(found.config, found.sources)
    assert set(texts(prompts, 0)) == {"robo, here", "robo, there"}
    assert set(texts(prompts, 1)) == {"a fez"}
    assert set(texts(prompts, None)) == {"robo, here, fez", "robo, there, fez"}


def test_what_the_file_leaves_out_is_composed_of_the_usual_words_with_a_note(options: dict[str, Any], tmp_path: Path) -> None:
    found = session(options, tmp_path, {"sources": {"hero": {"prompts": ["a knight", "a knight at sea"]}}})
    prompts = search_prompts(found.config, found.sources)
    assert texts(prompts, 1)[0].split(", ")[0] in GENERAL.subjects
    assert notes_on_prompts(found.config, found.sources) == [
        f"{tmp_path / 'prompts.yaml'} has no words: the prompts of hat and joint prompts are composed of the usual ones"
    ]
    assert notes_on_prompts(Config.of(**options), found.sources) == []


def test_texts_recur_with_other_noise_and_a_note_where_there_are_too_few(options: dict[str, Any], tmp_path: Path) -> None:
    found = session(options, tmp_path, FILE, own=2, joint=2, confirm=2)
    seen, unseen = search_prompts(found.config, found.sources), confirmation_prompts(found.config, found.sources)
    assert len(set(texts(unseen, 0)) - set(texts(seen, 0))) == 1, "the third text is left for the confirmation"
    assert not {p.noise_seed for p in seen.prompts} & {p.noise_seed for p in unseen.prompts}
    assert notes_on_prompts(found.config, found.sources) == [
        "there are fewer texts than pictures for prompts of hero (3 for 4), prompts of hat (2 for 4), joint prompts (2 for 4): texts recur "
        "with other noise, in the confirmation too; --prompts can give more"
    ]
    fewer = found.config.replaced(own=1, joint=1, confirm=1)
    assert notes_on_prompts(fewer, found.sources) == []


def test_a_prompt_without_its_trigger_is_told_and_used(options: dict[str, Any], tmp_path: Path) -> None:
    content = {
        "sources": {"hero": {"trigger": "robo, tin man", "prompts": ["ROBO, the tin man", "portrait of robo"]}},
        "joint": ["robo and tin man in a red hat", "nobody"],
    }
    asked = options | {"prompts": written(tmp_path, content), "own": 2, "joint": 2, "confirm": 1}
    notes = Notes()
    study = optimize(**asked, observer=notes)
    place = tmp_path / "prompts.yaml"
    expected = [
        f"{place}: sources.hero.prompts[1] lacks the trigger 'robo, tin man' of hero, so it does not ask for the source: write {{trigger}}",
        f"{place}: joint[1] lacks the trigger 'robo, tin man' of hero, so it does not ask for all sources: write {{hero}}",
    ]
    assert [f"warning: {line}" for line in expected] == [note for note in notes.notes if "lacks" in note]
    assert [line for line in study.summary.warnings if "lacks" in line] == expected


def test_the_example_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/prompts.md").read_text(encoding="utf-8")
    found = read_prompt_file(Path(written(tmp_path, page.split("```yaml\n")[1].split("```")[0])))
    assert list(found.sources or {}) == ["hero", "inkwash"]
    assert found.of("hero").trigger == "ohwx woman"
    assert found.joint == ("{hero} in a harbour in the rain, {inkwash}", "close-up of {hero}, {inkwash}")
    assert found.words == Vocabulary(("a castle", "a cat"), ("in the snow", "at night", "in a crowd"), ("in the snow",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "subjects: [a]",
            ": subjects and settings go together: prompts are composed of one of each — docs/prompts.md shows a complete file",
        ),
        ("wide_settings: [a]", ": wide_settings go with subjects and settings — docs/prompts.md shows a complete file"),
        ("{}", ": the file says nothing — docs/prompts.md"),
        ("", ": there should be keys with values — docs/prompts.md shows a complete file"),
        ("subjects: []\nsettings: [b]", ": subjects: the list is empty — fill it, or leave it out"),
        ("joint: []", ": joint: the list is empty — fill it, or leave it out"),
        ("sources: {hero: {prompts: []}}", ": sources.hero.prompts: the list is empty — fill it, or leave it out"),
        ("sources: {}", ": sources: the list is empty — fill it, or leave it out"),
        ("joints: [a]", ": joints: there is no such key — use subjects, settings, wide_settings, sources, joint; docs/prompts.md"),
        ("sources: {hero: {promts: [a]}}", ": sources.hero.promts: there is no such key — use prompts, trigger, role; docs/prompts.md"),
        ("sources: {hero: {role: hero}}", ": sources.hero.role: input should be 'style', 'character' or 'concept' — docs/prompts.md"),
        ("sources: {hero: {prompts: [a, 3]}}", ": sources.hero.prompts[1]: input should be a valid string — docs/prompts.md"),
        ("joint: ['  ']", ": joint[0]: string should have at least 1 character — docs/prompts.md"),
        ("joint: [", ": the prompts cannot be read: while parsing a flow node"),
        ("sources: {hreo: {prompts: [a]}}", ": sources.hreo: there is no such source — name one of hero, hat"),
        ("joint: ['{villain} waves']", ": joint[0]: there is nothing to put in place of {villain} — use one of {hero}, {hat}"),
        ("joint: ['{trigger} waves']", ": joint[0]: there is nothing to put in place of {trigger} — use one of {hero}, {hat}"),
        (
            "sources: {hat: {prompts: ['a {trigger}']}}",
            ": sources.hat.prompts[0]: {trigger} stands for a trigger, and the source has none — leave {trigger} out, or give a trigger, "
            "in the file (trigger:) or with --triggers",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(options: dict[str, Any], tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        optimize(**options | {"prompts": written(tmp_path, content)})
    assert str(caught.value).startswith(f"{tmp_path / 'prompts.yaml'}{message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_words_alone_are_read_from_a_file_that_has_some(tmp_path: Path) -> None:
    path = Path(written(tmp_path, {"subjects": ["a"], "settings": ["b"], "joint": ["c"]}))
    assert read_words(path) == Vocabulary(("a",), ("b",))
    assert read_prompt_file(path).joint == ("c",)
    path.write_text("joint: [c]")
    with pytest.raises(UsageError, match=r"there are no words in it — add the lists subjects and settings"):
        read_words(path)


def test_a_study_that_began_with_other_general_words_is_refused_with_the_reason(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = replace(
        GENERAL, subjects=("a house by a river", "a cat on a chair"), settings=("in a forest", "in a kitchen"), wide_settings=()
    )
    with monkeypatch.context() as earlier:
        earlier.setattr(prompt_sets, "GENERAL", older)
        optimize(**options, observer=After(1, rendering=False))
        assert optimize(**options, observer=After(1, rendering=False)).trials, "with the same words it goes on"
    with pytest.raises(StudyError) as caught:
        optimize(**options)
    assert "has changed since it began (prompts: " in str(caught.value)
    assert "the general words of this version — put it back, or start a new study with what is still valid: --fork NAME" in str(
        caught.value
    )


def test_a_study_with_prompts_of_its_own_goes_on_whatever_the_general_words_are(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options | {"prompts": written(tmp_path, FILE)}
    optimize(**asked, observer=After(1, rendering=False))
    monkeypatch.setattr(prompt_sets, "GENERAL", replace(GENERAL, subjects=("a stone",)))
    assert optimize(**asked).complete
