"""``optimize preview``: what it draws, what the files say, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from optimizer import Adapter, Recipe, load_adapter, merge
from optimizer.cli.main import execute
from optimizer.jobs.preview_grid import parse_grid
from optimizer.rendering import Prompt, load_renderer
from optimizer.rendering.settings import RenderSettings
from optimizer.search.images.labelled_sheet import Band, labelled_sheet
from studies.demo.world import demo_sources
from tests.files import LINEAR, kohya_file, random_parts

pytestmark = pytest.mark.usefixtures("one_thread")

FAKE = ("--base", "fake:size=8")
PROMPTS = ("--prompt", "a tree", "a house")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert execute(["preview", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def drawn(text: str, seed: int, candidate: Adapter | None = None, sources: Sequence[Adapter] = ()) -> np.ndarray:
    """What the fake base draws, which takes the strength of its sources for its unit."""
    renderer = load_renderer("fake:size=8", RenderSettings())
    for adapter in sources or filter(None, [candidate]):
        renderer.fit_adapter(adapter)
    return renderer.render([Prompt(text, seed)], candidate)[0].permute(1, 2, 0).numpy()


def test_loras_beside_each_other(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told([*files, *FAKE, *PROMPTS, "--seed", "3", "--count", "2", "--pictures", "each"], capsys)
    assert found["shown"] == ["base", "a alone", "b alone", "stack"]
    assert (found["prompts"], len(found["pictures"]), found["sheet"]) == (4, 16, "preview.png")
    names = {Path(path).name: path for path in found["pictures"]}
    a, b = (load_adapter(path) for path in files)
    stack = merge([a, b], Recipe(method="linear", weights=(1, 1)))
    for name, text, seed, candidate in (
        ("01-01-base", "a tree", 3, None),
        ("02-02-a_alone", "a tree", 4, a),
        ("03-03-b_alone", "a house", 3, b),
        ("04-04-stack", "a house", 4, stack),
    ):
        distance = np.abs(pixels(names[f"{name}.png"]).astype(int) - drawn(text, seed, candidate, [a, b]))
        assert distance.max() <= (candidate is stack), name  # as its file stores the stack, in half precision
    with Image.open(found["sheet"]) as sheet:
        assert sheet.width > 4 * 128
        assert sheet.height > 4 * 128


def test_every_picture_says_what_it_shows(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*files, *FAKE, "--prompt", "ein Bäumchen", "--grid", "a=0.5:1:0.5", "--pictures", "each"]
    found = told(words, capsys)
    assert found["shown"] == ["a 0.5", "a 1"]
    with Image.open(found["pictures"][0]) as picture:
        text = picture.text  # type: ignore[attr-defined]
    first, facts = text["parameters"].splitlines()
    assert first == "ein Bäumchen <lora:a:0.5> <lora:b:1>"
    assert "Seed: 0" in facts
    assert "Size: 8x8" in facts
    recipe = yaml.safe_load(text["recipe"])
    assert (recipe["method"], recipe["weights"]) == ("linear", [0.5, 1.0])
    assert recipe["sources"] == [load_adapter(path).sha256 for path in files]


def test_a_merged_file_is_drawn_as_it_is_beside_its_sources(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", "--sources", *files, "--weights", "0.7", "0.4", "--method", "ties", "--out", "mine.safetensors"]) == 0
    capsys.readouterr()
    where = ["--sources", str(Path(files[0]).parent)]
    found = told(["mine.safetensors", *where, *FAKE, *PROMPTS, "--pictures", "each"], capsys)
    assert found["shown"] == ["base", "a alone", "b alone", "stack", "mine"]
    mine = load_adapter("mine.safetensors")
    last = next(path for path in found["pictures"] if "/01-05-" in path)
    assert np.array_equal(pixels(last), drawn("a tree", 0, mine, [mine, *map(load_adapter, files)]))
    again = told(["mine.yaml", *FAKE, *PROMPTS], capsys)
    assert (again["shown"][-1], again["sheet"]) == ("merge", "preview_v2.png")


def test_a_merged_file_without_its_sources(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", "--sources", *files, "--out", "mine.safetensors"]) == 0
    (place / "away").mkdir()
    (place / "mine.safetensors").rename(place / "away" / "mine.safetensors")
    capsys.readouterr()
    assert execute(["preview", "away/mine.safetensors", *FAKE, *PROMPTS]) == 0
    shown = capsys.readouterr()
    assert "shows     2 prompts: base, mine" in shown.out
    assert "note: the file alone is drawn" in " ".join(shown.err.split())
    assert execute(["preview", "away/mine.safetensors", *FAKE, *PROMPTS, "--grid", "a=0:1:0.5"]) == 2
    assert "--grid: the sources are not known" in capsys.readouterr().err
    assert execute(["preview", "away/mine.safetensors", *FAKE]) == 2
    assert "--prompt: the triggers of the sources are not known — give prompts, in quotes" in capsys.readouterr().err


def test_a_grid_of_two_sources(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*files, *FAKE, "--prompt", "a tree", "--grid", "b=0:1:0.5", "a=0:1:1", "--pictures", "each"]
    found = told(words, capsys)
    assert found["shown"] == ["b 0, a 0", "b 0, a 1", "b 0.5, a 0", "b 0.5, a 1", "b 1, a 0", "b 1, a 1"]
    assert found["rows"] == 3
    a, b = map(load_adapter, files)
    assert np.array_equal(pixels(found["pictures"][0]), drawn("a tree", 0))
    assert np.array_equal(pixels(found["pictures"][1]), drawn("a tree", 0, a, [a, b]))


def test_one_lora_and_its_strengths(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told([files[0], *FAKE, *PROMPTS], capsys)["shown"] == ["base", "a"]
    assert told([files[0], *FAKE, *PROMPTS, "--grid", "a=-0.5:1:0.5"], capsys)["shown"] == ["a -0.5", "a 0", "a 0.5", "a 1"]


def test_the_demo_world_composes_its_own_prompts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(["demo:octopus", "demo:hat", "--steps", "1", "--pictures", "each"], capsys)
    assert found["shown"] == ["base", "octopus alone", "hat alone", "composition", "stack"]
    with Image.open(found["pictures"][0]) as picture:
        assert demo_sources()["octopus"].trigger in picture.text["parameters"]  # type: ignore[attr-defined]
        assert picture.size == (64, 64)


def test_the_composition_draws_the_sources_that_a_prompt_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    octopus, hat = (demo_sources()[name].trigger for name in ("octopus", "hat"))
    prompts = [f"{octopus}, left, night", f"a mushroom, left, night, {hat}", "a mushroom, left, night", f"{octopus}, left, night, {hat}"]
    found = told(["demo:octopus", "demo:hat", "--steps", "2", "--prompt", *prompts, "--pictures", "each"], capsys)
    shown = {Path(path).name[:5]: pixels(path).astype(int) for path in found["pictures"]}
    base, first, second, composition = "01", "02", "03", "04"
    for prompt, like in (("01", first), ("02", second), ("03", base)):
        assert np.abs(shown[f"{prompt}-{composition}"] - shown[f"{prompt}-{like}"]).max() <= 2, prompt
    for other in (base, first, second):
        assert np.abs(shown[f"04-{composition}"] - shown[f"04-{other}"]).max() > 20, other


REFUSED = [
    (("demo:hat", "--base", "demo"), "demo: does not exist — leave it out: demo:NAME sources bring their base"),
    ((), "parameter FILES requires an argument — see optimize --help"),
    (("nothing.yaml", *FAKE), "nothing.yaml: there is no such file"),
    (("demo:hat", "--count", "0"), "--count: got 0 — give 1 or more"),
    (("demo:hat", "--steps", "0"), "--steps: got 0"),
    (("demo:hat", "--out", "sheet.jpg"), "--out sheet.jpg: is no PNG file's name — name a file that ends in .png"),
    (("demo:hat", "--out", "no/sheet.png"), "--out no/sheet.png: the directory does not exist — create it, or name another file"),
    (("demo:hat", "--grid", "hat=0:1"), "--grid: got 'hat=0:1' — write NAME=LOW:HIGH:STEP with three numbers, such as hero=0:1.2:0.3"),
    (("demo:hat", "--grid", "hat=0:1:0"), "--grid: got 'hat=0:1:0' — write NAME=LOW:HIGH:STEP"),
    (("demo:hat", "--grid", "hat=0:9:0.1"), "--grid: 'hat=0:9:0.1' gives 31 weights or more — give 2 to 30, by another range or step"),
    (("demo:hat", "--grid", "owl=0:1:1"), "--grid: there is no source 'owl' — name one of hat, or a position from 1 to 1"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_is_refused(words: Sequence[str], message: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["preview", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(place.iterdir()) == []


def test_a_file_without_a_base(files: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["preview", files[0]]) == 2
    assert "--base: no base model is given — name the model that the sources were trained on" in capsys.readouterr().err


def test_a_recipe_that_is_not_solved(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"method": "distill", "weights": [1, 1], "setup": {"files": ["demo:octopus", "demo:owl"]}}
    (place / "plan.yaml").write_text(yaml.safe_dump(recipe))
    assert execute(["preview", "plan.yaml"]) == 2
    assert "plan.yaml: the merge by distill has yet to be solved — solve it first: optimize merge plan.yaml" in capsys.readouterr().err


def test_the_axes() -> None:
    axes = parse_grid(["2=0:0.3:0.1", "hero=-1:1:1"], ["hero", "style"])
    assert [(axis.name, axis.values) for axis in axes] == [("style", (0.0, 0.1, 0.2, 0.3)), ("hero", (-1.0, 0.0, 1.0))]
    assert axes[1].labels == ("hero -1", "hero 0", "hero 1")


def test_a_sheet_has_every_picture_in_its_place() -> None:
    colours = torch.arange(6, dtype=torch.uint8) * 40
    pictures = colours[:, None, None, None].expand(6, 3, 128, 128)
    sheet = np.asarray(labelled_sheet([Band("a", ("x", "y", "z"), (("up", pictures[:3]), ("down", pictures[3:])))]))
    found = [[int(line[x]) for x in range(0, sheet.shape[1], 16)] for line in sheet[:, :, 0]]
    for row in (colours[:3].tolist(), colours[3:].tolist()):
        assert any(all(colour in line for colour in row) for line in found)


def test_large_pictures_are_reduced() -> None:
    sheet = labelled_sheet([Band("a", ("x",), (("", torch.zeros(1, 3, 1024, 768, dtype=torch.uint8)),))])
    assert 384 <= sheet.width <= 420
    assert sheet.height >= 512
