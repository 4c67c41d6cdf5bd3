"""What a search costs beside drawing, at the size of real models: ``python -m benchmarks.bases --family sdxl [--trials 10]``.

A pipeline of SDXL's or FLUX.1's shapes with random weights in bfloat16 is saved and loaded as a user's would be, with two random LoRA files
of rank 32 and an open_clip model, and a real study runs on it: proposals, merges, pictures, scores, files. Pictures are noise, and so are
scores; times and memory are not. Before and after it the same pipeline draws as many pictures by itself, from the same text states: what
the study's pictures per second are compared with. ``--small`` takes tiny models, to try the command out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import open_clip
import psutil
import torch
from safetensors.torch import save_file

from benchmarks.pipelines import full_shapes, saved, sources
from optimizer import optimize
from optimizer.adapters import load_adapter, weight_shapes
from optimizer.rendering import Loading, Prompt, RenderSettings, load_pipeline, load_renderer
from optimizer.rendering.pipeline_class import models_of
from optimizer.rendering.renderer import _stack
from optimizer.search.observer import Silent
from studies.records import TrialRecord

OWN, PICTURES = 4, 16


@dataclass
class Clock(Silent):
    """Notes when trials end, and what is said."""

    ended: list[float] = field(default_factory=list)

    def trial(self, record: TrialRecord) -> None:
        """A trial has ended."""
        self.ended.append(perf_counter())

    def note(self, line: str) -> None:
        """What the run says."""
        print(f"  {line}")


def main() -> None:
    """Measure one family, and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bases", description=__doc__)
    parser.add_argument("--family", choices=("sdxl", "flux1"), default="sdxl")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of a picture, where fewer than usual save time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--apply", choices=("auto", "weights", "branch"), default="auto")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        measure(asked, Path(folder))


def measure(asked: argparse.Namespace, folder: Path) -> None:
    """Set up, draw alone, run the study, draw alone again."""
    base = saved(asked.family, folder, device=asked.device, small=asked.small)
    shapes = small_shapes(base) if asked.small else full_shapes(asked.family)
    files = sources(asked.family, folder, shapes, 2, 4 if asked.small else 32)
    loading = Loading(device=asked.device, precision="fp32" if asked.small else "bf16", compile=asked.compile, apply=asked.apply)
    settings = RenderSettings(batch=asked.batch, resolution=32 if asked.small else 1024, steps=2 if asked.small else asked.steps)
    print(f"{asked.family}, {asked.device}, batches of {asked.batch}, {PICTURES} pictures a trial")
    before = alone(base, settings, loading, files[0])
    clock = Clock()
    run = {name: getattr(loading, name) for name in ("device", "precision", "compile", "apply")}
    run |= {
        "batch": settings.batch,
        "resolution": settings.resolution,
        "steps": settings.steps,
        "own": OWN,
        "joint": PICTURES - 2 * OWN,
        "confirm": 1,
        "prompts": words(folder),
    }
    study = optimize(
        files, base, embedder=eye(folder), out=folder / "study", budget=asked.trials, roles=("style", "character"), observer=clock, **run
    )
    peak = torch.cuda.max_memory_allocated() if asked.device.startswith("cuda") else psutil.Process().memory_info().rss
    tell(study.trials, clock.ended, (before, alone(base, settings, loading, files[0])), peak)


@dataclass(frozen=True)
class Alone:
    """A pipeline by itself: seconds a picture, and seconds to put a candidate in and take it out."""

    picture: float
    swap: float


def alone(base: Path, settings: RenderSettings, loading: Loading, source: Path) -> Alone:
    """Draw as many pictures as a trial with the pipeline itself, from text states, after a batch to warm up."""
    renderer: Any = load_renderer(str(base), settings, loading)
    prompts = [Prompt("a red fox in snow", seed) for seed in range(PICTURES)]
    renderer.render(prompts[: settings.batch])
    states, blanks = renderer._text_states(prompts, None)
    begun = now(renderer.device)
    with torch.inference_mode():
        for start in range(0, PICTURES, settings.batch):
            part = slice(start, start + settings.batch)
            renderer._draw(prompts[part], _stack(states[part]), _stack(blanks[part]))
    picture = (now(renderer.device) - begun) / PICTURES
    adapter, took = renderer.fit_adapter(load_adapter(source)), []
    for _ in range(4):
        begun = now(renderer.device)
        with renderer._way.applied(adapter):
            pass
        took.append(now(renderer.device) - begun)
    return Alone(picture, fmean(took[1:]))


def tell(trials: Sequence[TrialRecord], ended: Sequence[float], bare: Sequence[Alone], peak: int) -> None:
    """Print what the trials took, leaving out the first, which draws the baselines, too."""
    steady = [t.evaluation.metrics for t in trials[1:] if t.evaluation]
    wall = (ended[-1] - ended[0]) / (len(ended) - 1)
    drawing = fmean(one.picture for one in bare) * PICTURES
    parts = {name: fmean(m[f"seconds_{name}"] for m in steady) for name in ("merge", "render", "score")}
    print(f"one trial                      {wall:9.2f} s   {PICTURES / wall:8.2f} pictures/s")
    print(
        f"the pipeline by itself         {drawing:9.2f} s   {PICTURES / drawing:8.2f} pictures/s   (before and after: "
        f"{bare[0].picture * PICTURES:.2f} s, {bare[1].picture * PICTURES:.2f} s)"
    )
    print(f"pictures/s against it          {100 * drawing / wall:9.1f} %   outside of drawing {100 * (1 - drawing / wall):.1f} %")
    print(f"merging a candidate            {1e3 * parts['merge']:9.1f} ms")
    print(f"putting it in and taking it out{1e3 * fmean(one.swap for one in bare):9.1f} ms")
    print(f"drawing it                     {1e3 * (parts['render']):9.1f} ms")
    print(f"scoring its pictures           {1e3 * parts['score']:9.1f} ms")
    print(f"proposals, files, the rest     {1e3 * (wall - sum(parts.values())):9.1f} ms")
    print(f"peak memory                    {peak / 1e9:9.2f} GB")


def words(folder: Path) -> Path:
    """Words of prompts that CLIP reads at once, also where its tokens are letters."""
    place = folder / "words.yaml"
    place.write_text("subjects: [a fox, an owl]\nsettings: [in snow, at sea]\n")
    return place


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def small_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the attention modules in the tiny pipeline's denoiser."""
    pipeline = load_pipeline(base, device="cpu", dtype=torch.float32)
    return {path: shape for path, shape in weight_shapes(models_of(pipeline)).items() if ".attn" in path}


def eye(folder: Path) -> Path:
    """An open_clip model of the default's size with random weights, in a folder."""
    place, name = folder / "eye", "ViT-B-32"
    place.mkdir()
    save_file(open_clip.create_model(name, pretrained=None).state_dict(), place / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (place / "open_clip_config.json").write_text(json.dumps(config))
    return place


if __name__ == "__main__":
    main()
