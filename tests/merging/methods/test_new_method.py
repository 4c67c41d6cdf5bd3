"""A new merge method is one file and one line in the table: recipes, merges, search, options and docs/methods.md derive from them.

The tests do what a contributor does, in a copy of the package, and then use the method as anybody would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from optimizer import load_adapter
from optimizer.cli.main import execute
from studies import EvaluationCache
from studies.store import FolderStore
from studies.trial_log import TrialLog
from tests.files import LINEAR, kohya_file, random_parts
from tests.merging.samples import relative_error

ROOT = Path(__file__).parents[3]
FILE = '''"""Rounding: stores each source's entries on a coarse grid before they are added."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.weighted_sum import total

Toward = Literal["nearest", "zero"]

CLIP_AT = Parameter(
    name="clip_at",
    description="Share of the largest entry of a row at which rounding clips the row.",
    default=1.0,
    start=0.5,
    gt=0,
    le=1,
    low=0.1,
    high=0.9,
)
LEVELS = Parameter(name="levels", description="Number of levels on each side of 0.", default=8, start=4, ge=1, low=2, high=16)
TOWARD = Parameter(
    name="toward", description="Where entries between two levels go.", default="nearest", start="nearest", choices=get_args(Toward)
)


class RoundedSettings(Protocol):
    """Settings of rounding."""

    @property
    def clip_at(self) -> float: ...
    @property
    def levels(self) -> int: ...
    @property
    def toward(self) -> Toward: ...


def rounded(deltas: Deltas, settings: RoundedSettings, /) -> Tensor:
    """Returns Σ wᵢ · round(ΔWᵢ) on a grid of each row's own."""
    return deltas.dense.merged(lambda parts: total([_rounded(part, settings) for part in parts], deltas.columns))


def _rounded(part: Tensor, settings: RoundedSettings) -> Tensor:
    limit = part.abs().amax(dim=2, keepdim=True) * settings.clip_at
    steps = part.clamp(-limit, limit) / (limit / settings.levels).masked_fill(limit == 0, 1)
    return (steps.round() if settings.toward == "nearest" else steps.trunc()) * limit / settings.levels


ROUNDED = Method("rounded", rounded, "nobody, a test", "Σ wᵢ·round(ΔWᵢ)", (CLIP_AT, LEVELS, TOWARD))
'''
IMPORT = "from optimizer.merging.methods.element_wise.rounded import ROUNDED\n"
LINE = "    ROUNDED,\n"
TIES = {"method": "ties", "weights": [0.7, -0.5], "blocks": [{"IN": 0.5}, {}], "density": 0.4, "rank": 32, "seed": 1}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package to which the method was added."""
    place = tmp_path_factory.mktemp("contributed")
    shutil.copytree(ROOT / "optimizer", place / "optimizer", ignore=shutil.ignore_patterns("__pycache__"))
    methods = place / "optimizer" / "merging" / "methods"
    (methods / "element_wise" / "rounded.py").write_text(FILE, encoding="utf-8")
    table = (methods / "table.py").read_text(encoding="utf-8")
    first, last = "from optimizer.merging.methods.method import Method\n", "    ROUTED,\n)\n"
    assert (table.count(first), table.count(last)) == (1, 1)
    (methods / "table.py").write_text(table.replace(first, IMPORT + first).replace(last, last[:-2] + LINE + ")\n"), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate(("a", "b"))]


def run(package: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with the copy of the package."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(package), str(ROOT))), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return done


COMMANDS = """
import contextlib, io, json, sys
from optimizer.cli.main import execute
told = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert execute(words) == 0
    told.append(out.getvalue())
print(json.dumps(told))
"""


def told(package: Path, place: Path, *commands: list[str]) -> list[str]:
    """What each command prints on stdout; all run in one process, which imports torch once."""
    return list(json.loads(run(package, place, "-c", COMMANDS, json.dumps(commands)).stdout))


def rounded(matrix: np.ndarray, clip_at: float, levels: int) -> np.ndarray:
    """The method once more, row by row."""
    rows = []
    for row in matrix:
        limit = clip_at * np.abs(row).max()
        rows.append(np.round(np.clip(row, -limit, limit) / limit * levels) / levels * limit)
    return np.stack(rows)


RECIPES = f"""
import json
from optimizer import Recipe
from optimizer.errors import RecipeError
from tests.methods import page

def message(**fields):
    try:
        Recipe(weights=(1, 0.5), **fields)
    except RecipeError as error:
        return str(error)

recipe = Recipe(method="rounded", weights=(1, 0.5), clip_at=0.3, toward="zero")
text = recipe.to_yaml()
print(json.dumps({{
    "attributes": [recipe.clip_at, recipe.levels, recipe.toward],
    "yaml": text,
    "again": Recipe.from_yaml(text) == recipe and Recipe.from_json(json.dumps(recipe.data())) == recipe,
    "hashes": [r.hash for r in (recipe, Recipe.from_yaml(text), recipe.replaced(clip_at=0.4), recipe.replaced(levels=9))],
    "ties": Recipe.from_data({TIES!r}).hash,
    "page": page(),
    "messages": [
        message(method="rounded", clip_at=2),
        message(method="rounded", levels=0),
        message(method="rounded", toward="up"),
        message(method="ties", levels=3),
    ],
}}))
"""


@pytest.fixture(scope="module")
def found(package: Path) -> dict[str, Any]:
    """What recipes with the method are, and the page of methods."""
    return dict(json.loads(run(package, package, "-c", RECIPES).stdout))


def test_a_recipe_holds_checks_hashes_and_writes_the_parameters(found: dict[str, Any]) -> None:
    assert found["attributes"] == [0.3, 8, "zero"]
    assert found["yaml"] == (
        "method: rounded\nweights:\n- 1.0\n- 0.5\nsources: []\nblocks: []\nclip_at: 0.3\nlevels: 8\ntoward: zero\nrank: null\ndtype: fp16\n"
        "seed: 0\n"
    )
    assert found["again"]
    first, again, *others = found["hashes"]
    assert first == again
    assert len({first, *others}) == 3
    assert found["messages"] == [
        "recipe: clip_at: got 2 — it should be less than or equal to 1",
        "recipe: levels: got 0 — it should be greater than or equal to 1",
        "recipe: toward: got 'up' — it should be 'nearest' or 'zero'",
        "recipe: levels: the method 'ties' does not read levels (got 3) — leave it out; 'ties' reads: density, elect_on, majority, "
        "normalise, scale",
    ]
    assert found["ties"] == "56d8a1e5d7610e2d8813da2a45359c03fa9575e7380c685b26a6e18c40eca9d0", "a new method changed the hash of a recipe"


def test_the_command_line_merges_by_it_and_lists_its_options(package: Path, files: list[str], tmp_path: Path) -> None:
    sources = ["--sources", *files, "--json"]
    words = ["--weights", "1", "0.5", "--method", "rounded", "--clip-at", "0.3", "--rank", "full", "--dtype", "fp32"]
    out = ["--out", "x.safetensors"]
    once, replayed = ["merge", *sources, *words, *out], ["merge", "x.yaml", *sources, *out, "--force"]
    first, again, help_text = told(package, tmp_path, once, replayed, ["merge", "--help"])
    facts = json.loads(first)
    assert {name: facts["merge"][name] for name in ("method", "clip_at", "levels", "toward")} == {
        **{"method": "rounded", "clip_at": 0.3, "levels": 4, "toward": "nearest"}
    }, "what is not given starts where a search does"
    adapters, merged = [load_adapter(file) for file in files], load_adapter(tmp_path / "x.safetensors")
    for path, factors in merged.modules.items():
        a, b = (rounded(adapter.modules[path].delta().double().numpy(), 0.3, 4) for adapter in adapters)
        assert relative_error(factors.delta(), torch.from_numpy(a + 0.5 * b)) < 1e-5
    assert json.loads(again)["sha256"] == facts["sha256"]
    listed = " ".join(help_text.split())
    assert "--clip-at FLOAT Share of the largest entry of a row at which rounding clips the row." in listed
    assert "--levels INT Number of levels on each side of 0." in listed
    assert "--toward CHOICE Where entries between two levels go. [choices: nearest, zero]" in listed


def test_a_search_varies_its_parameters(package: Path, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "study"
    small = ["--base", "fake:size=4", "--own", "1", "--joint", "1", "--confirm", "1", "--finalists", "1"]
    words = ["--sources", *files, *small, "--budget", "12", "--sampler", "tpe", "--methods", "rounded", "--out", str(out)]
    done = run(package, tmp_path, "-m", "optimizer", *words)
    assert "methods linear, rounded; clip_at, levels, toward\n" in done.stderr
    log, cache = TrialLog(FolderStore(out)), EvaluationCache(FolderStore(out))
    found = {entry.label or str(entry.number): cache.get(entry.key) for entry in log.entries()}
    recipes: dict[str, dict[str, Any]] = {label: evaluation.recipe for label, evaluation in found.items() if evaluation is not None}
    assert recipes.keys() == found.keys()
    own = {label: recipe for label, recipe in recipes.items() if recipe["method"] == "rounded"}
    start = own.pop("rounded default")
    assert (start["clip_at"], start["levels"], start["toward"]) == (0.5, 4, "nearest")
    assert len({recipe["clip_at"] for recipe in own.values()}) > 2
    assert len({recipe["levels"] for recipe in own.values()}) > 1
    for recipe in own.values():
        assert 0.1 <= recipe["clip_at"] <= 0.9
        assert recipe["levels"] in range(2, 17)
        assert recipe["toward"] in ("nearest", "zero")
    assert yaml.safe_load((out / "study.yaml").read_text())["methods"] == ["rounded"]


def test_the_page_of_methods_lists_it(found: dict[str, Any]) -> None:
    page = found["page"]
    assert "| `rounded` | Σ wᵢ·round(ΔWᵢ) | `clip_at`, `levels`, `toward` | any | entries | full |" in page
    assert "| `levels` | Number of levels on each side of 0. | ≥ 1 | 8 | 2 to 16 | 4 | `rounded` |" in page


def test_the_package_itself_knows_no_such_method(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the other tests find comes from the file and the line alone."""
    assert execute(["merge", "--sources", *files, "--method", "rounded"]) == 2
    assert "unknown method 'rounded'" in capsys.readouterr().err
    assert execute(["merge", "--sources", *files, "--clip-at", "0.3"]) == 2
    assert "Unknown option: --clip-at" in capsys.readouterr().err
