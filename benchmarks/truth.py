"""Probe truth: what a merge really shows, read off by the demo world's probes on prompts that no search has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from optimizer.adapters import Adapter
from optimizer.rendering import Prompt, PromptSet, Renderer, RenderSettings, compose, load_pipeline
from optimizer.search.config import Inputs
from optimizer.search.evaluation.prompt_file import read_words
from optimizer.search.sources.loras import LoraSource, load_loras
from studies.atomic import replacing
from studies.demo.probes.network import Probes, load_probes
from studies.demo.world import GUIDANCE, PREFIX, STEPS, demo_base, demo_words

# Far from every seed that a study composes its own prompts with.
UNSEEN = 777_000_001


@dataclass(frozen=True)
class Truth:
    """How much of every source's trait a merge shows, in [0, 1], and the least of them."""

    each: dict[str, float]

    @property
    def weakest(self) -> float:
        """Minimum over the sources."""
        return min(self.each.values())


@dataclass(frozen=True)
class Judge:
    """Renders with the demo base and reads with the probes.

    Attributes:
        renderer: the base.
        probes: what reads the pictures.
        kept: folder where pictures are kept, so that other probes can read them without drawing them again.
    """

    renderer: Renderer
    probes: Probes
    kept: Path

    def truth(self, sources: Sequence[LoraSource], adapter: Adapter | None, prompts: PromptSet) -> Truth:
        """Probe truth of an adapter, as ``truth_of`` says."""
        return truth_of(sources, self.probes.read(self.pictures(adapter, prompts.prompts)).traits, prompts)

    def pictures(self, adapter: Adapter | None, prompts: Sequence[Prompt]) -> Tensor:
        """What the base draws with an adapter, uint8 (n, 3, 64, 64)."""
        path = self.kept / f"{_key(self.renderer, adapter, prompts)}.safetensors"
        if not path.exists():
            self.kept.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file({"images": self.renderer.render(prompts, adapter)}, temporary)
        return load_file(path)["images"]


def load_judge(batch: int = 20, kept: Path = Path("build/pictures")) -> Judge:
    """The judge of the demo world, on the CPU."""
    pipeline = load_pipeline(demo_base(), device="cpu", dtype=torch.float32)
    return Judge(Renderer(pipeline, RenderSettings(STEPS, GUIDANCE, batch=batch)), load_probes(), kept)


def _key(renderer: Renderer, adapter: Adapter | None, prompts: Sequence[Prompt]) -> str:
    """Hex digest of everything that decides what is drawn."""
    digest = hashlib.sha256(f"{_base_digest()} {renderer.settings} {[(p.text, p.seed) for p in prompts]}".encode())
    for path, factors in sorted(adapter.modules.items() if adapter else ()):
        digest.update(f"{path} {factors.alpha} {tuple(factors.shape)}".encode())
        for tensor in (factors.up, factors.down):
            digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@cache
def _base_digest() -> str:
    files = sorted(demo_base().rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def demo_sources_of(names: Sequence[str], judge: Judge) -> list[LoraSource]:
    """Demo sources by name, in the shapes of the base."""
    loaded = load_loras(Inputs(sources=tuple(PREFIX + name for name in names)))
    return [replace(s, adapter=judge.renderer.fit_adapter(s.adapter)) for s in loaded]


def unseen_prompts(sources: Sequence[LoraSource], *, each: int, seed: int = UNSEEN) -> PromptSet:
    """``each`` own prompts a source and as many joint ones; one source alone has own prompts only."""
    return compose([s.subject for s in sources], read_words(demo_words()), own=each, joint=each if len(sources) > 1 else 0, seed=seed)


def truth_of(sources: Sequence[LoraSource], traits: Mapping[str, Tensor], prompts: PromptSet) -> Truth:
    """Probe truth of readings: per source the mean of its own prompts' mean and the joint prompts' mean.

    A source without a trigger is asked for everywhere, so all prompts that are not joint count as its own.
    """
    return Truth({s.name: _mean(traits[s.name], own_prompts(prompts, k, s), prompts.indices(None)) for k, s in enumerate(sources)})


def own_prompts(prompts: PromptSet, index: int, source: LoraSource) -> list[int]:
    """Returns the positions of the prompts that ask for a source, and are not joint."""
    if source.subject.trigger:
        return prompts.indices(index)
    return [i for i, p in enumerate(prompts.prompts) if p.source is not None]


def _mean(trait: Tensor, own: list[int], joint: list[int]) -> float:
    halves = [float(trait[part].mean()) for part in (own, joint) if part]
    return sum(halves) / len(halves)
