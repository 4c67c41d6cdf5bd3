"""Whole runs with accelerators and with another model that draws: what is drawn, exported, recorded and bound to the study."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from objectives import load_embedder
from optimizer import load_adapter, optimize
from optimizer.cli.main import execute
from optimizer.cli.tables.verdict import print_verdict
from optimizer.errors import BaseModelError, StudyError, UsageError
from optimizer.merging import METHODS, Recipe, merge
from optimizer.rendering import Prompt, RenderSettings, load_renderer
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake import FakeRenderer
from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from studies.demo.world import demo_base, demo_sources
from studies.store import FolderStore
from tests.files import LINEAR, kohya_file, random_parts
from tests.jobs.test_solved_merge import few
from tests.search.runs import After, trials, watch_evaluations
from tests.search.test_fake_base import MODELS
from tests.search.test_solved_trials import Noting
from tests.studio import Studio
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

SMALL: dict[str, Any] = {"budget": 1, "own": 1, "joint": 1, "confirm": 1, "finalists": 1, "steps": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sources and an accelerator."""
    folder = tmp_path_factory.mktemp("sources")
    parts = {name: random_parts(LINEAR, rank=2, seed=seed) for seed, name in enumerate(("a", "b", "lcm"))}
    return [str(kohya_file(folder / f"{name}.safetensors", own).path) for name, own in parts.items()]


def faked(files: list[str], out: Path, **changes: Any) -> dict[str, Any]:
    asked = {"sources": files[:2], "base": "fake:size=8", "with_": (f"{files[2]}:0.5",), "out": out, "budget": 4, "own": 2, "joint": 2}
    return asked | {"confirm": 2, "finalists": 1} | changes


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted((folder / "images").rglob("*.png"))}


def test_every_picture_has_it_and_the_export_has_not(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake base is linear: drawing with an accelerator is drawing every candidate with its change added."""
    render, accelerator = FakeRenderer.render, load_adapter(files[2])
    seen: list[bool] = []

    def compared(renderer: FakeRenderer, prompts: Sequence[Prompt], candidate: Candidate | None = None, **more: Any) -> Tensor:
        drawn = render(renderer, prompts, candidate, **more)
        plain = FakeRenderer(renderer.spec, renderer.settings)
        plain._sources = renderer._sources
        assert candidate is None or hasattr(candidate, "modules")
        parts = [accelerator] if candidate is None else [accelerator, candidate]
        whole = merge(parts, Recipe(method="concat", weights=[0.5, 1.0][: len(parts)]))  # type: ignore[arg-type]
        assert (drawn.int() - render(plain, prompts, whole).int()).abs().max() <= 1
        seen.append(bool((drawn.int() - render(plain, prompts, candidate).int()).abs().max() > 3))
        return drawn

    monkeypatch.setattr(FakeRenderer, "render", compared)
    study = optimize(**faked(files, tmp_path))
    assert len(seen) > 8
    assert all(seen)
    assert study.best is not None
    recipe = yaml.safe_load((study.best.parent / "recipe.yaml").read_text())
    setup = recipe.pop("setup")
    written, merged = load_adapter(study.best), merge([load_adapter(file) for file in files[:2]], Recipe(**recipe))
    for path, factors in merged.modules.items():
        torch.testing.assert_close(written.modules[path].delta(), factors.delta(), atol=2e-4, rtol=2e-3)
    assert setup["names"] == ["a", "b"]
    assert setup["drawn_with"] == {
        "accelerators": [{"name": "lcm", "file": "lcm.safetensors", "sha256": accelerator.sha256, "weight": 0.5}],
        "steps": 20,
        "guidance": 7.0,
    }


def test_it_is_recorded_where_the_study_and_its_merge_are_described(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = Noting()
    study = optimize(**faked(files, tmp_path), observer=observer)
    assert [note for note in observer.notes if "accelerators want" in note] == [
        "lcm: accelerators want few steps and a guidance near 1, such as --steps 8 --guidance 1; "
        "without --steps, pictures are drawn in 20 steps, with guidance 7"
    ]
    assert yaml.safe_load((tmp_path / "study.yaml").read_text())["with"] == [f"{files[2]}:0.5"]
    summary = study.summary
    assert [(one.name, one.file, one.weight) for one in summary.accelerators] == [("lcm", "lcm.safetensors", 0.5)]
    assert (summary.steps, summary.guidance, summary.beside) == (20, 7.0, "lcm at 0.5")
    assert summary.command.endswith(f" --with {files[2]}:0.5")
    assert study.best is not None
    card = (study.best.parent / "README.md").read_text()
    assert "Load it at strength 1.0, with lcm at 0\\.5 beside it, which is not part of the file" in card
    assert f"| `lcm` | 0.500 | `lcm.safetensors` | `{summary.accelerators[0].sha256}` |" in card
    report = (tmp_path / "report.html").read_text()
    assert "lcm at 0.5, not in the file: load beside it" in report
    assert "pipe.set_adapters([&#39;merge&#39;, &#39;accelerator_1&#39;], [1.0, 0.5])" in report
    from rich.console import Console

    print_verdict(summary, tmp_path, study.best, Console())
    assert "judged with lcm at 0.5 beside every model; the exported file does not hold it: load it beside" in capsys.readouterr().out
    again = ["merge", str(study.best.parent / "recipe.yaml"), "--sources", *files[:2]]
    assert execute([*again, "--out", str(tmp_path / "again.safetensors")]) == 0
    assert "with lcm at 0\\.5 beside it" in (tmp_path / "again.md").read_text()
    assert execute([*again, "--weights", "1", "0.123", "--out", str(tmp_path / "other.safetensors")]) == 0
    assert "lcm" not in (tmp_path / "other.md").read_text()  # nobody has judged these weights


def test_a_study_without_one_says_nothing_of_it(files: list[str], tmp_path: Path) -> None:
    study = optimize(**faked(files, tmp_path, with_=()))
    assert study.best is not None
    assert "setup" not in yaml.safe_load((study.best.parent / "recipe.yaml").read_text())
    assert "drawn with" not in (study.best.parent / "README.md").read_text()
    assert (study.summary.accelerators, study.summary.eval_base) == ((), "")


def test_it_belongs_to_the_identity_of_a_study(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = optimize(**faked(files, tmp_path / "study"))
    other = str(kohya_file(tmp_path / "turbo.safetensors", random_parts(LINEAR, rank=2, seed=9)).path)
    evaluated = watch_evaluations(monkeypatch)
    for changed in ((), (files[2],), (f"{files[2]}:0.5", other)):
        with pytest.raises(StudyError, match=r"made with other settings \(with: \['"):
            optimize(**faked(files, tmp_path / "study", with_=changed))
    assert evaluated == []
    assert trials(optimize(**faked(files, tmp_path / "study")).trials) == trials(first.trials)
    assert evaluated == []
    observer = Noting()
    forked = optimize(**faked(files, tmp_path / "study", with_=(files[2],), fork="forked"), observer=observer)
    told = r"no trial of study is valid any more \(accelerators: \w{8} → \w{8}\): all are evaluated anew"
    assert any(re.fullmatch(told, note) for note in observer.notes)
    assert len(evaluated) >= len(forked.trials)


def test_the_key_of_an_evaluation_knows_file_and_weight_and_the_model_that_draws(files: list[str], tmp_path: Path) -> None:
    def drawn(**changes: Any) -> dict[str, object]:
        session = prepare(Config.of(**faked(files, tmp_path, **changes)), Silent())
        return session.drawing_context(search_prompts(session.config, session.sources))

    sha256 = load_adapter(files[2]).sha256
    plain, half, whole = drawn(with_=()), drawn(), drawn(with_=(files[2],))
    assert half == plain | {"accelerators": [[sha256, 0.5]]}
    assert whole == plain | {"accelerators": [[sha256, 1.0]]}
    assert drawn(eval_base="fake:size=4", with_=()) == plain | {"eval_base": "fake:fail=0.0&oom=0.0&size=4"}


def test_an_accelerator_that_a_study_in_a_database_did_not_have_is_noticed() -> None:
    """There the options of the command are not compared, only what the study rests on."""
    from optimizer.search.evaluation.fingerprint import check_same_inputs

    with pytest.raises(StudyError, match=r"\(accelerators: none → aaaaaaaa; eval_base: none → bbbbbbbb\)"):
        check_same_inputs({"base": "c"}, {"base": "c", "accelerators": "a" * 64, "eval_base": "b" * 64}, "here")
    with pytest.raises(StudyError, match=r"\(accelerators: aaaaaaaa → none\)"):
        check_same_inputs({"base": "c", "accelerators": "a" * 64}, {"base": "c"}, "here")


@pytest.mark.parametrize(("ended", "rendering"), [(2, True), (5, False)])
def test_a_run_that_was_broken_off_goes_on_with_it(files: list[str], tmp_path: Path, ended: int, rendering: bool) -> None:
    whole = optimize(**faked(files, tmp_path / "whole"))
    broken = optimize(**faked(files, tmp_path / "broken"), observer=After(ended, rendering=rendering))
    assert broken.best is None
    assert execute(["resume", str(tmp_path / "broken")]) == 0
    resumed = optimize(**faked(files, tmp_path / "broken"))
    assert trials(resumed.trials) == trials(whole.trials)
    assert resumed.best is not None
    assert whole.best is not None
    assert resumed.best.read_bytes() == whole.best.read_bytes()
    assert pictures(tmp_path / "broken") == pictures(tmp_path / "whole")
    assert pictures(tmp_path / "whole") != pictures(optimize(**faked(files, tmp_path / "plain", with_=())).directory)


def test_a_fake_base_imports_no_library_of_models(files: list[str], tmp_path: Path) -> None:
    words = ["--sources", *files[:2], "--base", "fake:size=4", "--with", files[2], "--budget", "2", "--out", str(tmp_path)]
    words += ["--eval-base", "fake:size=8"]
    program = f"""
import sys
from optimizer.cli.main import execute
print(execute({words!r}), [name for name in {MODELS!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 []"
    with Image.open(next((tmp_path / "images/confirmation/base").glob("*.png"))) as picture:
        assert picture.size == (8, 8)


def test_on_the_demo_world_the_base_shows_it_and_diffusers_loads_it_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neon stands in for an accelerator: the card's script draws what a renderer draws of the exported file and neon together."""
    study = optimize(["demo:robot", "demo:octopus"], out=tmp_path / "study", **(SMALL | {"with": ["demo:neon"]}))
    neon = demo_sources()["neon"].path
    settings = RenderSettings(4, 1.5)
    plain = load_renderer(str(demo_base()), settings, adapters=())
    assert study.best is not None
    (base,) = [column for column in study.summary.columns if column.kind == "base"]
    (best,) = [column for column in study.summary.columns if column.kind == "best"]
    assert study.summary.kind == "lora"
    prompts = [Prompt(p.text, p.seed) for p in study.summary.prompts]
    for column, adapters in ((base, [load_adapter(neon)]), (best, [load_adapter(study.best), load_adapter(neon)])):
        whole = merge(adapters, Recipe(method="concat", weights=[1.0] * len(adapters)))
        for prompt, file in zip(prompts, column.files, strict=True):
            with Image.open(study.directory / file) as picture:
                found = torch.tensor(list(picture.tobytes())).reshape(64, 64, 3).permute(2, 0, 1)
            assert (found - plain.render([prompt], whole)[0].int()).abs().max() <= 3
    card = re.search("```python\n(.*?)```", (study.best.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert card
    monkeypatch.chdir(study.best.parent)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of a second adapter
        exec(card[1].replace("path/to", str(neon.parent)), names)
    pipeline: StableDiffusionPipeline = names["pipeline"]
    theirs = load_renderer(str(demo_base()), settings)
    theirs.pipeline.unet, theirs.pipeline.text_encoder = pipeline.unet, pipeline.text_encoder  # type: ignore[attr-defined]
    whole = merge([load_adapter(study.best), load_adapter(neon)], Recipe(method="concat", weights=[1.0, 1.0]))
    assert (theirs.render(prompts).int() - plain.render(prompts, whole).int()).abs().max() <= 3


def test_solved_merges_are_solved_with_it_and_found_again_only_with_it(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.search.evaluation.study_routers.prompts_to_solve_on", few)
    store, found = FolderStore(tmp_path), []
    for beside in ((), (str(studio.sources[2]),), ()):
        session = prepare(Config.of(**studio.options(methods=("ssr",), with_=beside)), Silent())
        routers = session.routers(store, Silent())
        assert routers is not None
        found.append(routers.calibrated(Recipe(method="ssr", weights=(1.0, 1.0), **METHODS["ssr"].starting_values())))
    assert found[0].recipe.calibration != found[1].recipe.calibration
    assert found[0].recipe.calibration == found[2].recipe.calibration
    assert [bool(one.seconds) for one in found] == [True, True, False]


def test_another_model_draws_and_the_base_is_recorded(studio: Studio, tmp_path: Path) -> None:
    tiny_pipeline(seed=5).save_pretrained(tmp_path / "turbo")
    study = optimize(**studio.options(out=tmp_path / "study", budget=1, eval_base=tmp_path / "turbo"))
    same = optimize(**studio.options(out=tmp_path / "same", budget=1, base=tmp_path / "turbo"))
    assert pictures(study.directory) == pictures(same.directory)
    assert trials(study.trials) == trials(same.trials)
    assert (study.summary.base, study.summary.eval_base) == (str(studio.base), str(tmp_path / "turbo"))
    assert study.best is not None
    card = (study.best.parent / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "base"
    assert "from_pretrained('turbo')" in card
    assert "were drawn by `turbo`, not by the model that the sources were trained on, in 2 steps with guidance 2.0." in card
    assert yaml.safe_load((study.best.parent / "recipe.yaml").read_text())["setup"]["drawn_with"]["base"] == "turbo"
    with pytest.raises(StudyError, match=r"made with other settings \(eval_base: "):
        optimize(**studio.options(out=tmp_path / "study", budget=1))
    tiny_pipeline(seed=6).save_pretrained(tmp_path / "turbo")
    with pytest.raises(StudyError, match=r"has changed since it began \(eval_base: \w{8} → \w{8}\)"):
        optimize(**studio.options(out=tmp_path / "study", budget=2, eval_base=tmp_path / "turbo"))


def test_a_model_of_another_family_or_size_does_not_draw(studio: Studio, tmp_path: Path) -> None:
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    tiny_pipeline(widths=(32, 32, 24, 24)).save_pretrained(tmp_path / "wide")
    for name, message in {
        "xl": r"xl: is of SDXL, the base model is of SD 1\.x and 2\.x — name a model of the base model's family",
        "wide": r"wide: the source alba does not fit the base model: .* — name a model of the base model's family and size",
    }.items():
        with pytest.raises(BaseModelError, match=rf"^--eval-base .*/{message}$"):
            optimize(**studio.options(out=tmp_path / "study", eval_base=tmp_path / name))
    with pytest.raises(UsageError, match=r"^--with .*alba\.safetensors: is the same file as the source alba"):
        optimize(**studio.options(out=tmp_path / "study", with_=(str(studio.sources[0]),)))
    assert not (tmp_path / "study").exists()


def test_demo_sources_on_another_model_keep_their_words(tmp_path: Path) -> None:
    """The base of the sources is the demo world's, whoever draws."""
    pipeline = StableDiffusionPipeline.from_pretrained(demo_base(), safety_checker=None, requires_safety_checker=False)
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 0.05
    pipeline.save_pretrained(tmp_path / "tuned")
    config = Config.of(sources=("demo:robot", "demo:octopus"), eval_base=tmp_path / "tuned", **SMALL, out=tmp_path / "study")
    session, plain = prepare(config, Silent()), prepare(config.replaced(eval_base=""), Silent())
    prompts = search_prompts(session.config, session.sources)
    assert prompts == search_prompts(plain.config, plain.sources)
    assert session.embedder.name == plain.embedder.name == load_embedder(session.embedder.name, device="cpu").name
    assert not torch.equal(session.renderer.render(prompts.prompts), plain.renderer.render(prompts.prompts))
