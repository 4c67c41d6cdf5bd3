"""``optimize merge``: what it writes and prints, how it replays, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from optimizer import Recipe, load_adapter, save_adapter
from optimizer import merge as merge_adapters
from optimizer.cli.main import execute
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import plan, suggestion
from optimizer.merging import METHODS, Router, save_router
from studies.demo.world import demo_sources
from tests.files import diffusers_file, kohya_file, random_parts
from tests.merging.samples import PATHS, UNCALIBRATED, make_adapter, relative_error

PAIR = ["--sources", "demo:neon", "demo:octopus"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """Three LoRAs of different dialects and ranks."""
    home = tmp_path / "loras"
    home.mkdir()
    kohya_file(home / "alba.safetensors", random_parts(seed=1, rank=lambda i: 3), metadata={"modelspec.trigger_phrase": "alba woman"})
    diffusers_file(home / "bruno.safetensors", random_parts(seed=2))
    kohya_file(home / "carla.safetensors", random_parts(seed=3, rank=lambda i: 2))
    return home


def told(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """stdout and stderr of a merge that succeeds."""
    code = execute(["merge", *(str(word) for word in arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def facts(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(told([*arguments, "--json"], capsys)[0]))


def refusal(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a merge that is refused, without ``optimize: ``."""
    assert execute(["merge", *(str(word) for word in arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("optimize: ").rstrip("\n")


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def header(path: str | Path) -> dict[str, str]:
    with safe_open(str(path), "pt") as file:
        return dict(file.metadata())


def test_from_a_shell(folder: Path) -> None:
    command = [sys.executable, "-m", "optimizer", "merge", *PAIR, "--weights", "0.6", "-0.4", "--method", "dare_ties", "--density", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    name = "neon-octopus_dare_ties_0.6-m0.4_v1"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}.md", f"{name}.safetensors", f"{name}.yaml"]
    assert f"LoRA    {name}.safetensors" in done.stdout
    assert "method  dare_ties: error " in done.stdout
    recipe = Recipe.from_yaml((folder / f"{name}.yaml").read_text())
    assert (recipe.method, recipe.weights, recipe.density, recipe.rank, recipe.rescale) == ("dare_ties", (0.6, -0.4), 0.5, 16, "inverse")


def test_what_torch_warns_of_when_it_is_imported_is_not_told() -> None:
    program = """
import importlib.abc, sys, warnings
class Loud(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            warnings.warn("for developers", FutureWarning)
sys.meta_path.insert(0, Loud())
from optimizer.cli.main import execute
print("torch" in sys.modules, execute(["merge", "--help"]), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("False 0 True", "")


def test_the_file_is_the_merge_of_its_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts([*PAIR, "--weights", "0.8", "0.5", "--method", "ties", "--blocks", "OUTD", "IN=0.5,TE=0", "--dtype", "fp32"], capsys)
    sources = [load_adapter(demo_sources()[name].path) for name in ("neon", "octopus")]
    recipe = Recipe.from_data(found["merge"])
    assert recipe.blocks[1] == {"IN": 0.5, "TE": 0.0}
    merged, read = merge_adapters(sources, recipe), load_adapter(found["file"])
    assert set(read.modules) == set(merged.modules)
    assert not any(path.startswith("text_encoder") for path in read.modules if path not in sources[0].modules)
    for path, factors in merged.modules.items():
        assert relative_error(read.modules[path].delta(), factors.delta()) < 1e-5
    assert (found["modules"], found["sha256"], found["bytes"]) == (len(read.modules), read.sha256, Path(found["file"]).stat().st_size)


def test_the_stack_written_and_read_back_is_the_weighted_sum(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files differ in dialect, rank and alpha; the sum is compared with their tensors as they lie on the disk."""
    names = ("alba", "bruno", "carla")
    files, weights = [loras / f"{name}.safetensors" for name in names], (0.7, -0.35, 1.2)
    found = facts(["--sources", *files, "--weights", *weights, "--dtype", "fp32"], capsys)
    sources = [load_adapter(file) for file in files]
    read = load_adapter(found["file"])
    assert set(read.modules) == {path for source in sources for path in source.modules}
    for path, factors in read.modules.items():
        parts = [(w, s.modules[path]) for w, s in zip(weights, sources, strict=True) if path in s.modules]
        wanted = sum(w * f.alpha / f.rank * f.up.double() @ f.down.double() for w, f in parts)
        assert isinstance(wanted, torch.Tensor)
        assert relative_error(factors.delta().flatten(1), wanted) < 1e-5
    assert found["total"]["error"] < 1e-6


def test_a_recipe_a_merged_file_and_its_header_alone_give_the_same_bytes(
    folder: Path, loras: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--weights",
        "0.65",
        "0.4",
        "--method",
        "dare_linear",
        "--seed",
        "7",
        "--rank",
        "4",
        "--triggers",
        "alba",
        "",
        "--dialect",
        "diffusers",
    ]
    first = facts(["--sources", loras / "alba.safetensors", loras / "bruno.safetensors", *options], capsys)
    again = facts([first["recipe"]], capsys)
    assert Path(again["file"]).name == "alba-bruno_dare_linear_0.65-0.4_v2.safetensors"
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    shutil.copy(first["file"], alone / "renamed_by_hand.safetensors")
    for name in ("alba", "bruno"):
        (loras / f"{name}.safetensors").rename(loras / f"{name} (1).safetensors")
    from_header = facts([alone / "renamed_by_hand.safetensors", "--sources", loras, "--out", alone], capsys)
    assert sha256(first["file"]) == sha256(again["file"]) == sha256(from_header["file"])
    assert header(first["file"])["modelspec.trigger_phrase"] == "alba"
    assert from_header["sources"] == ["alba", "bruno"]


def test_options_change_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = facts([*PAIR, "--method", "ties", "--density", "0.3", "--weights", "1", "0.5"], capsys)
    denser = facts([first["recipe"], "--density", "0.7"], capsys)["merge"]
    assert denser == {**first["merge"], "density": 0.7}
    other = facts([first["recipe"], "--method", "dare_linear", "--weights", "0.4", "0.4"], capsys)["merge"]
    assert (other["method"], other["density"], other["weights"], "elect_on" in other) == ("dare_linear", 0.4, [0.4, 0.4], False)


def test_a_recipe_written_by_hand_lists_its_files(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = {"method": "linear", "weights": [0.5, 0.5], "setup": {"files": ["../loras/alba.safetensors", "../loras/bruno.safetensors"]}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(recipe))
    found = facts(["mine.yaml"], capsys)
    assert found["sources"] == ["alba", "bruno"]
    assert all(len(source) == 64 for source in found["merge"]["sources"])


def test_nothing_is_written_over_unless_forced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [Path(facts([*PAIR, "--out", "mine.safetensors"], capsys)["file"]).name for _ in range(3)]
    assert names == ["mine.safetensors", "mine_v2.safetensors", "mine_v3.safetensors"]
    (folder / "mine_v2.safetensors").unlink()
    assert Path(facts([*PAIR, "--out", "mine.safetensors"], capsys)["file"]).name == "mine_v4.safetensors"  # its recipe is still there
    before = sha256("mine.safetensors")
    forced = facts([*PAIR, "--out", "mine.safetensors", "--weights", "0.2", "0.9", "--force"], capsys)
    assert (Path(forced["file"]).name, sha256("mine.safetensors") != before) == ("mine.safetensors", True)


@pytest.mark.parametrize(("count", "weight"), [(2, 0.7), (3, 0.6), (4, 0.5), (5, 0.45)])
def test_weights_that_are_not_given_are_suggested(count: int, weight: float) -> None:
    assert suggestion([make_adapter(seed) for seed in range(count)]) == weight
    assert suggestion([make_adapter(seed, paths=PATHS[seed : seed + 1]) for seed in range(count)]) == 1


def test_a_list_may_begin_with_a_minus_sign(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lbw = ",".join(["-1", *["1"] * 16])
    found = facts([*PAIR, "--blocks", lbw, "ALL", "--dtype", "fp32"], capsys)
    blocks = found["merge"]["blocks"][0]
    assert (blocks["TE"], blocks["IN01"]) == (-1.0, 1.0)


def test_a_source_is_never_written_over(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(loras / "alba.safetensors", "mine.safetensors")
    before = sha256("mine.safetensors")
    words = ["merge", "--sources", "mine.safetensors", str(loras / "bruno.safetensors"), "--out", "mine.safetensors", "--force"]
    assert execute(words) == 2
    told = "--out mine.safetensors: is one of the sources, which the recipe needs — name another file"
    assert told in " ".join(capsys.readouterr().err.split())
    assert sha256("mine.safetensors") == before


def test_names_of_any_script_are_kept(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, source in (("水墨风格", "alba"), ("角色", "bruno")):
        shutil.copy(loras / f"{source}.safetensors", f"{name}.safetensors")
    found = facts(["--sources", "水墨风格.safetensors", "角色.safetensors", "--weights", "0.7", "0.5"], capsys)
    assert Path(found["file"]).name == "水墨风格-角色_linear_0.7-0.5_v1.safetensors"
    assert facts([found["file"], "--out", "again.safetensors"], capsys)["merge"]["weights"] == [0.7, 0.5]


def test_sources_that_share_no_module(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = load_adapter(loras / "alba.safetensors")
    for name in ("text_encoder", "unet"):
        half = replace(whole, name=name, modules={path: f for path, f in whole.modules.items() if path.startswith(f"{name}.")})
        save_adapter(half, folder / f"{name}.safetensors", dialect="kohya", dtype=torch.float32)
    assert (
        execute(["merge", "--sources", "text_encoder.safetensors", "unet.safetensors", "--dtype", "fp32", "--out", "both.safetensors"]) == 0
    )
    told = capsys.readouterr()
    assert "text_encoder and unet change no module in common, so that neither disturbs the other's weights" in told.err
    assert "no weights given" not in told.err
    both = load_adapter("both.safetensors").modules
    assert both.keys() == whole.modules.keys()
    for path, factors in both.items():
        torch.testing.assert_close(factors.delta(), whole.modules[path].delta(), rtol=1e-5, atol=1e-6)


def test_what_should_be_known_is_told(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, suggested = told(PAIR, capsys)
    assert suggested == "warning: no weights given: 0.7 0.7, which keeps the size of a sum of unrelated sources\n"
    _, stacked = told([*PAIR, "--weights", "1", "1"], capsys)
    assert stacked.startswith("warning: all weights are 1: the sum of 2 unrelated sources is 1.4 times as large as one of them")
    assert "overdrives pictures; 0.7 each keeps the size of one" in stacked
    pair = [loras / "alba.safetensors", loras / "carla.safetensors"]
    _, idle = told(["--sources", *pair, "--weights", "0.5", "0.5", "--blocks", "OUT11=0", "ALL"], capsys)
    assert idle == "warning: alba: no module is in OUT11\n"


def test_the_size_is_bounded_in_every_way(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = [*PAIR, "--weights", "0.7", "0.7"]
    whole = facts(base, capsys)
    bounded = facts([*base, "--target-mb", "0.6"], capsys)
    assert bounded["bytes"] <= 600_000 < whole["bytes"]
    assert bounded["ranks"][0] < bounded["ranks"][1]
    kept = facts([*base, "--rank-energy", "0.9"], capsys)
    assert all(line["energy"] >= 0.9 - 1e-6 for line in kept["by_module"].values())
    pruned = facts([*base, "--prune", "0.02"], capsys)
    assert 0.97 < pruned["total"]["energy"] < 1
    assert [point["share"] for point in pruned["prune_curve"]] == [0.0, 0.001, 0.005, 0.01, 0.02, 0.05]
    sizes = [point["numbers"] for point in pruned["prune_curve"]]
    assert sizes == sorted(sizes, reverse=True)
    tensors = load_file(pruned["file"])
    assert sum(t.numel() for name, t in tensors.items() if not name.endswith(".alpha")) == pruned["prune_curve"][4]["numbers"]
    assert pruned["prune_curve"][4]["error"] == pytest.approx(pruned["total"]["error"], rel=1e-3)


def test_a_full_rank_is_stored_as_whole_matrices(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ["--sources", loras / "alba.safetensors", loras / "carla.safetensors", "--weights", "0.5", "0.5", "--dtype", "fp32"]
    found = facts([*pair, "--method", "ties", "--rank", "full"], capsys)
    assert all(name.endswith(".diff") for name in load_file(found["file"]))
    sources = [load_adapter(loras / f"{name}.safetensors") for name in ("alba", "carla")]
    exact = merge_adapters(sources, Recipe(method="ties", weights=(0.5, 0.5), density=0.4))
    for path, factors in load_adapter(found["file"]).modules.items():
        assert torch.equal(factors.delta(), exact.modules[path].delta())


def test_the_card_tells_how_to_load_it_and_no_folder_of_this_machine(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(["--sources", loras / "alba.safetensors", loras / "bruno.safetensors", "--weights", "0.5", "0.5"], capsys)
    card = Path(found["card"]).read_text()
    assert "alba-bruno_linear_0.5-0.5_v1.safetensors" in card
    assert "by `linear`, for the base model of its sources." in card
    assert "from_pretrained('path/to/base-model')" in card
    assert str(loras) not in card
    assert str(loras) not in json.dumps(header(found["file"]))
    assert "alba woman" in header(found["file"])["modelspec.trigger_phrase"]


def test_every_method_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert {p.name for method in METHODS.values() for p in method.parameters} <= set(MergeOptions.model_fields)
    assert set(Recipe.model_fields) - {"calibration"} <= set(MergeOptions.model_fields)


@pytest.mark.parametrize("method", UNCALIBRATED)
def test_every_method_merges_the_demo_sources(folder: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    rank = ["--rank", "8"] if method == "svd" else []
    found = facts([*PAIR, "--weights", "0.7", "0.7", "--method", method, *rank], capsys)
    assert found["modules"] == 284
    assert 0 <= found["total"]["error"] < 0.6
    assert all(cosine > 0.1 for cosine in found["total"]["cosine_sources"])


REFUSED: list[tuple[list[str], str]] = [
    ([], "--sources: no source given — give two to five LoRA files; one alone has nothing to be merged with"),
    (["--sources", "demo:neon"], "--sources: 1 source given — give two to five LoRA files"),
    (["--sources", *["demo:neon"] * 6], "--sources: 6 sources given — merge at most five, or add --force"),
    (["--sources", "demo:neon", "no.safetensors"], "no.safetensors: "),
    (["nowhere.yaml"], "nowhere.yaml: there is no such file — give a recipe (YAML) or a merged LoRA, or name --sources"),
    ([*PAIR, "--weights", "1"], "recipe: weights: 1 weights for 2 sources — give one weight a source"),
    ([*PAIR, "--weights", "0.5", "much"], "--weights: got 'much' — it should be a valid number"),
    ([*PAIR, "--weights", "0.5", "nan"], "recipe: weights.1: got nan — it should be a finite number"),
    ([*PAIR, "--weights", "0", "0"], "recipe: weights: nothing is left to merge: every module's weight is 0"),
    ([*PAIR, "--method", "tise"], "recipe: method: unknown method 'tise' — methods: linear, concat, svd, "),
    (
        [*PAIR, "--method", "linear", "--density", "0.5"],
        "recipe: density: the method 'linear' does not read density (got 0.5) — leave it out",
    ),
    ([*PAIR, "--method", "svd"], "recipe: rank: the method 'svd' needs an output rank — give a rank, or use the method 'linear'"),
    ([*PAIR, "--rank", "none"], "--rank: got 'none' — give a number, 1 or more, or full"),
    ([*PAIR, "--weights", "1", "0.5", "--target-mb", "0.01"], "recipe: target_mb: 0.01 MB do not hold rank 1 in all 284 modules — allow "),
    ([*PAIR, "--blocks", "ALL"], "--blocks: 1 given for 2 sources — give one per source, in the same order (ALL for none), or a YAML file"),
    ([*PAIR, "--blocks", "ALL", "IN99=1"], "--blocks 2: unknown block 'IN99' of the base 'unknown' — valid names: "),
    ([*PAIR, "--triggers", "x"], "--triggers: 1 given for 2 sources — give one per source, in the same order"),
    ([*PAIR, "--out", "x.pt"], "--out x.pt: is neither a safetensors file's name nor a directory — name a file that ends in .safetensors"),
    ([*PAIR, "--out", "no/x.safetensors"], "--out no/x.safetensors: the directory does not exist — create it, or name another file"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_makes_no_sense_is_refused(folder: Path, arguments: list[object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(arguments, capsys).startswith(message)
    assert list(folder.iterdir()) == []


def test_what_holds_no_recipe_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = demo_sources()["neon"].path
    assert refusal([plain], capsys) == f"{plain}: holds no recipe — give a LoRA that this software merged, or a recipe file"
    (folder / "a.yaml").write_text("[1, 2")
    assert refusal(["a.yaml"], capsys).startswith("a.yaml: the recipe is not readable: ")
    (folder / "a.yaml").write_text("[1, 2]")
    assert refusal(["a.yaml"], capsys) == "a.yaml: holds no recipe — start with 'method: …' and 'weights: …'"
    (folder / "a.yaml").write_text("method: linear\nweights: [1, 1]\nsetup: {dialect: klingon}\n")
    assert refusal(["a.yaml"], capsys).startswith("a.yaml: setup.dialect: got 'klingon' — ")


@pytest.fixture
def solved(folder: Path) -> tuple[Router, Path]:
    """A full router of two demo sources, and a recipe in a folder of its own that names it."""
    pair = [load_adapter(demo_sources()[name].path) for name in ("neon", "octopus")]
    generator = torch.Generator().manual_seed(1)
    plain = Router.identity(pair)
    noise = {path: torch.diag(m) + 0.1 * torch.randn(len(m), len(m), generator=generator) for path, m in plain.matrices.items()}
    router = replace(plain, matrices=noise)
    place = folder.parent / "first"
    save_router(router, place / "routers")
    told = Recipe(method="routed", weights=(0.8, 0.6), calibration=router.hash, dtype="fp32").to_yaml()
    (place / "recipe.yaml").write_text(told + "setup:\n  files: ['demo:neon', 'demo:octopus']\n")
    return router, place / "recipe.yaml"


def test_a_recipe_that_names_a_router_merges_by_it_and_replays(
    folder: Path, solved: tuple[Router, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    router, recipe = solved
    found = facts([recipe], capsys)
    pair = [load_adapter(demo_sources()[name].path) for name in ("neon", "octopus")]
    merged, read = merge_adapters(pair, Recipe.from_data(found["merge"]), routers=[router]), load_adapter(found["file"])
    plain = merge_adapters(pair, Recipe(method="linear", weights=(0.8, 0.6)))
    for path, factors in merged.modules.items():
        assert relative_error(read.modules[path].delta(), factors.delta()) < 1e-5
        assert relative_error(factors.delta(), plain.modules[path].delta()) > 0.01
    assert found["total"]["error"] < 1e-5
    assert Path(found["router"]) == Path("routers") / f"{router.hash}.safetensors"
    assert facts([found["recipe"]], capsys)["sha256"] == facts([found["file"]], capsys)["sha256"] == found["sha256"]
    out, _ = told([found["recipe"]], capsys)
    assert f"router  routers/{router.hash}.safetensors\n" in out
    assert "router" not in facts(PAIR, capsys)


def test_a_router_that_is_missing_or_damaged_is_refused(
    folder: Path, solved: tuple[Router, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    router, recipe = solved
    path = recipe.parent / "routers" / f"{router.hash}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-4])
    assert refusal([recipe], capsys).startswith(f"{path}: cut off or damaged: ")
    path.unlink()
    message = "the router that the recipe names is missing — copy it there, from beside the first recipe"
    assert refusal([recipe], capsys) == f"{path}: {message}"
    assert plan(recipe, MergeOptions(), [Router.identity([]), router]).routers == (router,)
    assert facts([recipe, "--method", "linear"], capsys)["merge"].get("calibration") is None
    assert list(folder.glob("routers/*")) == []


def test_a_method_that_applies_a_router_is_refused_without_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal([*PAIR, "--method", "routed"], capsys).startswith("recipe: calibration: the method 'routed' needs a calibration — ")


def test_a_source_that_is_gone_is_named(folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = facts(["--sources", loras / "alba.safetensors", loras / "bruno.safetensors", "--weights", "0.5", "0.5"], capsys)
    gone = sha256(loras / "bruno.safetensors")
    (loras / "bruno.safetensors").unlink()
    message = refusal([first["recipe"]], capsys)
    assert message == f"--sources: bruno (SHA-256 {gone}) was not found — name the file, or the directory that it lies in"


def test_a_strangers_header_steers_neither_the_terminal_nor_what_is_read(
    folder: Path, loras: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = facts(["--sources", loras / "alba.safetensors", loras / "bruno.safetensors", "--weights", "0.5", "0.5"], capsys)
    hostile = {"names": ["\x1b[31mred\x1b[0m", "../../up"], "roles": [], "triggers": [], "files": [str(loras)], "dialect": "kohya"}
    save_file(load_file(first["file"]), "hostile.safetensors", header(first["file"]) | {"multilora_setup": json.dumps(hostile)})
    assert "was not found" in refusal(["hostile.safetensors"], capsys)  # the folder that the header names is not searched
    out, _ = told(["hostile.safetensors", "--sources", loras], capsys)
    assert "\x1b" not in out
    assert all(path.parent == folder for path in Path().resolve().rglob("*.safetensors"))
    assert len(list(folder.glob("*.safetensors"))) == 3
