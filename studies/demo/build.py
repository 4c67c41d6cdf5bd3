"""Build the demo world from nothing: draw, train, write the assets, print the figures.

``python -m studies.demo.build`` takes four to five hours of one CPU core; every stage saves checkpoints under ``--work`` and is
skipped or resumed when the command is run again. ``--scale 0.1`` trains a tenth as long, to see the whole chain.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from studies.demo.base_model.accuracy import base_figures, render
from studies.demo.base_model.base import train_base
from studies.demo.base_model.tokenizer import build_tokenizer
from studies.demo.base_model.vae import train_vae
from studies.demo.drawing.scenes import random_scene
from studies.demo.embedder.accuracy import embedder_figures
from studies.demo.embedder.training import train_embedder
from studies.demo.probes.accuracy import accuracy, blends, smears
from studies.demo.probes.network import load_probes
from studies.demo.probes.training import train_probes
from studies.demo.sheet import contact_sheet
from studies.demo.sources import SOURCES, SourceSpec, train_source, write_index
from studies.demo.words import write_words
from studies.demo.world import ASSETS

_SHOWN = 10


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.demo.build", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for checkpoints")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder that the built files are written to")
    parser.add_argument("--sheet", type=Path, default=Path("docs/contact-sheet.png"), help="the contact sheet")
    parser.add_argument("--scale", type=float, default=1.0, help="length of the training, 1 = the real one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    build(arguments.work, arguments.assets, arguments.sheet, arguments.scale)


def build(work: Path, assets: Path, sheet: Path, scale: float) -> None:
    """Run every stage; finished ones are only loaded."""
    base = assets / "base"
    _stage("embedder", lambda: _copy(train_embedder(work, scale), assets / "embedder"), assets / "embedder")
    _stage("base", lambda: _build_base(work, scale, base), base)
    for spec in SOURCES.values():
        target = assets / "sources" / f"{spec.name}.safetensors"
        _stage(spec.name, lambda s=spec, t=target: _build_source(s, base, work, scale, t), target)  # type: ignore[misc]
    write_index(list(SOURCES.values()), assets / "sources")
    probes = assets / "probes"
    _stage("probes", lambda: train_probes(work, base, assets / "sources", scale).save(probes / "probes.safetensors"), probes)
    write_words(assets / "words.yaml")
    _figures(assets, work, sheet)


def _stage(name: str, make: Callable[[], object], result: Path) -> None:
    if result.exists():
        print(f"{name}: there already ({result})", flush=True)
        return
    print(f"{name}: training", flush=True)
    make()


def _build_base(work: Path, scale: float, target: Path) -> None:
    tokenizer = build_tokenizer(work / "tokenizer")
    vae_folder = work / "vae"
    if not vae_folder.exists():
        train_vae(work, scale).save_pretrained(vae_folder)
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    pipeline = train_base(work, vae, tokenizer, scale).to(torch.float16)
    pipeline.text_encoder.float()  # transformers loads a model in its file's format, diffusers in fp32: the two must agree
    pipeline.save_pretrained(target)
    for file in target.rglob("*.json"):  # diffusers notes the folder that a part was loaded from
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if "_name_or_path" not in line), encoding="utf-8")


def _build_source(spec: SourceSpec, base: Path, work: Path, scale: float, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(train_source(spec, load_base(base), work, scale), target)


def load_base(folder: Path) -> StableDiffusionPipeline:
    """The built base in fp32."""
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _figures(assets: Path, work: Path, sheet: Path) -> None:
    """Print what the built world can do, and write the contact sheet."""
    probes = load_probes(assets / "probes" / "probes.safetensors")
    pipeline = load_base(assets / "base")
    for title, figures in (
        ("probes on held-out drawings", accuracy(probes)),
        ("probes on two characters blended into one, the larger reading", blends(probes)),
        ("probes on smears of the right colours", smears(probes)),
        ("embedder on held-out styles and characters", embedder_figures(assets / "embedder")),
        ("base on random prompts", base_figures(pipeline, probes)),
    ):
        print(f"\n{title}")
        for name, value in figures.items():
            print(f"  {name:<40} {value:.3f}")
    print(f"\ncontact sheet: {contact_sheet(_rows(pipeline), sheet)}")
    print(f"assets: {sum(f.stat().st_size for f in assets.rglob('*') if f.is_file()) / 2**20:.1f} MiB")
    print("sources and their conflicts: python -m benchmarks.demo_world")


def _rows(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    rng = np.random.default_rng(5)
    singles = [random_scene(rng, pairs=0.0).caption() for _ in range(2 * _SHOWN)]
    pairs = [random_scene(rng, pairs=1.0).caption() for _ in range(_SHOWN)]
    prompts = {"one thing": singles[:_SHOWN], "one thing, again": singles[_SHOWN:], "two things": pairs}
    return {label: render(pipeline, texts, seed=3) for label, texts in prompts.items()}


if __name__ == "__main__":
    main()
