"""A new base family is one file and one entry in the table: then it is read, written, inspected, merged, drawn and searched."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPAGPipeline

from optimizer.adapters import load_adapter, weight_shapes
from optimizer.adapters.families import FAMILIES, pipeline_classes
from optimizer.errors import BaseModelError
from optimizer.rendering import Loading, RenderSettings, load_renderer
from studies.demo.world import demo_embedder
from tests.files import kohya_file, random_parts
from tests.tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
WIDTH = 20  # of the text that the imaginary family reads

FILE = f'''
"""Stable Diffusion 1 wide: the module names of Stable Diffusion 1.x, another width of the text, a pipeline class of its own."""

from optimizer.adapters.families.family import Family
from optimizer.adapters.families.pipeline_class import ONE_ENCODER, Drawing, PipelineClass
from optimizer.adapters.families.sgm import sgm_names
from optimizer.adapters.families.text_encoders import clip
from optimizer.adapters.families.unets import UNET, reads_text

SD1_WIDE = Family(
    name="sd1-wide",
    title="Stable Diffusion 1 wide",
    pipeline=PipelineClass(
        name="StableDiffusionPAGPipeline",
        title="SD 1 wide",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        drawing=Drawing(steps=3, guidance=2.5),
        encoding="sd",
        parts=ONE_ENCODER,
        left_out={{"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}},
        clip_layer=1,
    ),
    modules=UNET,
    native=sgm_names(4, plain_upsampling=(0,)),
    text_encoders=(clip("text_encoder", "lora_te_", "clip_wide"),),
    kohya_native=False,
    convolutions=("proj_in", "proj_out"),
    signs=(reads_text({WIDTH}),),
    levels=4,
    versions=("sd_wide",),
    architecture="stable-diffusion-wide",
    architectures=("stable-diffusion-wide",),
    implementation="diffusers",
    resolution="512x512",
)
'''

CHECK = """
import json, sys
from pathlib import Path
import torch
from optimizer import Recipe, load_adapter, merge, save_adapter
from optimizer.merging import block_of
from optimizer.rendering import Loading, RenderSettings, load_renderer
from optimizer.search.proposals.space import space_for

base, folder, files = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
sources = [load_adapter(file) for file in files]
found = {"bases": [source.base for source in sources], "reasons": [source.base_reason for source in sources]}
merged = merge(sources, Recipe(method="linear", weights=(0.5, 0.5), rank=8, dtype="fp32"))
for dialect in ("kohya", "diffusers", "comfyui"):
    written = save_adapter(merged, folder / f"{dialect}.safetensors", dialect=dialect, dtype=torch.float32)
    again = load_adapter(written)
    worst = max(float((again.modules[p].delta() - f.delta()).norm() / f.delta().norm()) for p, f in merged.modules.items())
    found[dialect] = [again.base, again.dialect, again.modules.keys() == merged.modules.keys() and worst < 1e-5]
found["blocks"] = sorted({block_of(path, merged.base) for path in merged.modules})
found["searched"] = space_for(sources, budget=100, methods=["linear"], rank=8, dtype="fp16", seed=0).summary()
renderer = load_renderer(base, RenderSettings(), Loading(device="cpu"), adapters=sources)
found["drawn in"] = [renderer.settings.steps, renderer.settings.guidance]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one file more, and one entry more in the table."""
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "optimizer", house / "optimizer", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("objectives", "studies"):
        (house / name).symlink_to(ROOT / name)
    families = house / "optimizer/adapters/families"
    (families / "stable_diffusion_1_wide.py").write_text(FILE)
    table = (families / "__init__.py").read_text()
    entered = table.replace("        QWEN_IMAGE,\n    )\n", "        QWEN_IMAGE,\n        SD1_WIDE,\n    )\n")
    line = "from optimizer.adapters.families.stable_diffusion_1_wide import SD1_WIDE\n"
    (families / "__init__.py").write_text(re.sub(r"(?m)^from optimizer\.adapters\.families\.stable_diffusion_3 ", line + r"\g<0>", entered))
    assert entered != table
    return house


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base of the imaginary family."""
    folder = tmp_path_factory.mktemp("base") / "wide"
    StableDiffusionPAGPipeline(**tiny_pipeline(cross=WIDTH).components, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs for it, as a trainer writes them."""
    folder, pipeline = tmp_path_factory.mktemp("sources"), tiny_pipeline(cross=WIDTH)
    shapes = weight_shapes({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    chosen = {path: shape for path, shape in shapes.items() if path.endswith(("attn2.to_k", "proj_in", "self_attn.out_proj"))}
    parts = [random_parts(chosen, rank=2 + seed, alpha=20.0, seed=seed) for seed in (0, 1)]
    return [kohya_file(folder / f"{name}.safetensors", own).path for name, own in zip(("anna", "bert"), parts, strict=True)]


def run(house: Path, *words: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{house}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env=environment, cwd=house)


def test_it_is_read_merged_written_and_drawn(house: Path, base: Path, sources: list[Path], tmp_path: Path) -> None:
    made = run(house, "-c", CHECK, base, tmp_path, *sources)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout.splitlines()[-1])
    assert found["bases"] == ["sd1-wide"] * 2
    assert found["reasons"] == [f"its cross-attention reads text of width {WIDTH}"] * 2
    assert {dialect: found[dialect] for dialect in ("kohya", "diffusers", "comfyui")} == {
        "kohya": ["sd1-wide", "kohya", True],
        "diffusers": ["sd1-wide", "diffusers", True],
        "comfyui": ["sd1-wide", "ComfyUI", True],
    }
    assert {"IN01", "MID", "OUT03", "TE"} <= set(found["blocks"])
    assert "(TE, IN, MID, OUT)" in found["searched"]
    assert found["drawn in"] == [3, 2.5]


def test_it_is_named_and_searched(house: Path, base: Path, sources: list[Path], tmp_path: Path) -> None:
    words = tmp_path / "words.yaml"
    words.write_text("subjects: [a ball, a cube]\nsettings: [at sea, in snow]\n")
    few = {"budget": 1, "own": 1, "joint": 1, "confirm": 1, "finalists": 1, "prompts": words, "embedder": demo_embedder(), "device": "cpu"}
    options = [word for name, value in few.items() for word in (f"--{name}", value)]
    roles = ["--roles", "style", "character", "--triggers", "", "zig"]
    out = tmp_path / "study"
    made = run(house, "-m", "optimizer", "--sources", *sources, "--base", base, *options, *roles, "--out", out)
    assert made.returncode in (0, 3), made.stderr
    assert "3 steps, guidance 2.5" in made.stderr
    shipped = list((out / "best").glob("*.safetensors"))
    assert len(shipped) == 1
    told = run(house, "-m", "optimizer", "inspect", *sources, *shipped)
    assert told.stdout.count("sd1-wide") >= 3, told.stderr


def test_it_is_unknown_where_the_table_does_not_name_it(base: Path, sources: list[Path]) -> None:
    assert load_adapter(sources[0]).base == "unknown"
    with pytest.raises(BaseModelError, match="StableDiffusionPAGPipeline is not supported"):
        load_renderer(str(base), RenderSettings(), Loading(device="cpu"))


def test_families_of_one_pipeline_class_share_its_record() -> None:
    known = FAMILIES["sd1"]
    other = replace(known, name="sd1-fast", pipeline=replace(known.pipeline, clip_layer=2))
    with pytest.raises(ValueError, match=r"^sd1-fast: another family describes StableDiffusionPipeline differently; share one"):
        pipeline_classes([known, other])
