"""The main job: from a configuration to a study directory with a winner in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from objectives import EmbedderError, load_embedder
from optimizer.errors import NoFeasibleMerge, StudyError, UsageError
from optimizer.rendering import PromptSet, Renderer, RenderSettings, load_pipeline
from optimizer.search.config import Config
from optimizer.search.confirm import Confirmation, confirm
from optimizer.search.context import check_same_run, evaluation_context
from optimizer.search.evaluate import Evaluator
from optimizer.search.ledger import Ledger, open_ledger
from optimizer.search.loop import Limits, search
from optimizer.search.progress import Observer, Silent, Stopped
from optimizer.search.prompting import confirmation_prompts, search_prompts
from optimizer.search.sampler import quiet
from optimizer.search.ship import ship
from optimizer.search.sources import Source, load_sources
from optimizer.search.space import SearchSpace, space_for
from optimizer.search.summarise import Story, summarise
from studies import StudyDirectory, StudyDirectoryError, StudySummary, save_summary, write_report, write_tables
from studies.atomic import write_text
from studies.demo.world import GUIDANCE, STEPS, demo_base, demo_embedder
from studies.records import TrialRecord

EMBEDDER = "ViT-B-32/laion2b_s34b_b79k"
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Study:
    """A run's outcome.

    Attributes:
        directory: the study directory.
        summary: everything that the report shows.
        best: the exported LoRA, or None for a run that was interrupted before its export.
        complete: whether the whole budget was spent.
    """

    directory: Path
    summary: StudySummary
    best: Path | None
    complete: bool

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, failed ones included."""
        return self.summary.trials


@dataclass(frozen=True)
class Bench:
    """What every evaluation of a run shares, loaded once."""

    config: Config
    sources: Sequence[Source]
    renderer: Renderer
    embedder: Any
    base: Path

    def evaluator(self, prompts: PromptSet, observer: Observer) -> Evaluator:
        """An evaluator on these prompts, which reports pictures to the observer."""
        return Evaluator(self.sources, self.renderer, self.embedder, prompts, lambda done: observer.pictures(done, len(prompts)))


def optimize(sources: Sequence[str | Path], base: str | Path = "", *, observer: Observer | None = None, **options: Any) -> Study:
    """Find the merge that keeps most of the weakest source, and export it.

    Args:
        sources: two to five LoRA files, or ``demo:NAME``.
        base: diffusers pipeline directory; may be left out for demo sources only.
        observer: is told of every trial; default: nobody.
        options: the fields of ``Config``: ``budget``, ``out``, ``seed``, ``roles``, ``triggers`` …

    Returns:
        The study.

    Raises:
        UsageError: the request makes no sense (and its kinds: AdapterError, BaseModelError, StudyError).
        NoFeasibleMerge: not one candidate could be evaluated.
    """
    config = Config.of(sources=tuple(map(str, sources)), base=str(base), **options)
    return run(config, observer or Silent())


def run(config: Config, observer: Observer) -> Study:
    """Run or continue the study of a configuration; running it again resumes. Raises as ``optimize``."""
    quiet()
    config.checked()
    bench = prepare(config)
    directory = _opened(config)
    space = space_for(
        [s.adapter for s in bench.sources],
        budget=config.budget,
        methods=config.methods,
        rank=config.rank,
        dtype=config.dtype,
        seed=config.seed,
    )
    prompts = search_prompts(config, bench.sources)
    ledger = open_ledger(directory, _context(bench, prompts))
    deadline = time.monotonic() + config.timeout if config.timeout else None
    confirmation, complete = None, False
    try:
        complete = _search(ledger, space, bench.evaluator(prompts, observer), Limits(config.budget, deadline), config.seed, observer)
        unseen = bench.evaluator(confirmation_prompts(config, bench.sources), observer)
        confirmation = confirm(ledger.records(), unseen, count=config.finalists, seed=config.seed, observer=observer)
    except Stopped:
        observer.note("stopped; everything finished is on disk")
    return _closed(bench, ledger, confirmation, complete)


def prepare(config: Config) -> Bench:
    """Load and check everything that a run needs, before anything is written.

    Raises:
        UsageError: a source, the base or the embedder cannot be used, or they do not fit each other.
    """
    sources = load_sources(config)
    base = Path(config.base) if config.base else demo_base()
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    precision = config.precision if config.precision != "auto" else "fp16" if device.startswith("cuda") else "fp32"
    pipeline = load_pipeline(base, device=device, dtype=_PRECISIONS[precision])
    renderer = Renderer(pipeline, _settings(config))
    sources = [replace(s, adapter=renderer.fitted(s.adapter)) for s in sources]
    spec = config.embedder or (EMBEDDER if config.base else str(demo_embedder()))
    try:
        embedder = load_embedder(spec, device=device)
    except EmbedderError as error:
        raise UsageError(str(error), where="--embedder") from error
    return Bench(config, sources, renderer, embedder, base)


def _settings(config: Config) -> RenderSettings:
    steps, guidance = (20, 7.0) if config.base else (STEPS, GUIDANCE)
    return RenderSettings(
        steps=config.steps or steps,
        guidance=guidance if config.guidance is None else config.guidance,
        negative=config.negative,
        batch=config.batch,
        resolution=config.resolution,
    )


def _opened(config: Config) -> StudyDirectory:
    directory = StudyDirectory(config.out)
    try:
        if directory.is_study:
            check_same_run(Config.from_yaml(directory.settings), config, config.out)
        directory.create()
        write_text(directory.settings, config.to_yaml())
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where=error.where, remedy=error.remedy) from error
    return directory


def _context(bench: Bench, prompts: PromptSet) -> dict[str, object]:
    precision = f"{bench.renderer.device.type} {bench.renderer.pipeline.dtype}"
    return evaluation_context(bench.base, prompts, bench.renderer.settings, bench.embedder.name, precision)


def _search(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, limits: Limits, seed: int, observer: Observer) -> bool:
    complete = search(ledger, space, evaluator, limits, seed=seed, observer=observer)
    failed = [r for r in ledger.records() if r.evaluation is None]
    if len(failed) == len(ledger.records()):
        reason = failed[-1].error if failed else "no trial was run"
        raise NoFeasibleMerge(f"none of {len(failed)} candidates could be evaluated; the last one: {reason}", where=ledger.directory.path)
    return complete


def _closed(bench: Bench, ledger: Ledger, confirmation: Confirmation | None, complete: bool) -> Study:
    """Export the winner, and write tables, summary and report."""
    directory, records = ledger.directory, ledger.records()
    story = Story(
        config=bench.config,
        sources=bench.sources,
        records=records,
        prompts=confirmation_prompts(bench.config, bench.sources),
        confirmation=confirmation,
        exported="",
        device=str(bench.renderer.device),
        created=_created(ledger),
        finished=datetime.now(UTC) if confirmation and complete else None,
        warnings=tuple(f"trial {r.number} failed: {r.error}" for r in records if r.evaluation is None),
    )
    best = ship(story, directory) if confirmation else None
    summary = summarise(story, directory).model_copy(update={"file": best.relative_to(directory.path).as_posix() if best else ""})
    write_tables(records, directory, [s.name for s in bench.sources])
    save_summary(summary, directory)
    write_report(summary, directory)
    return Study(directory.path, summary, best, complete)


def _created(ledger: Ledger) -> datetime:
    started = [t.datetime_start for t in ledger.study.get_trials(deepcopy=False) if t.datetime_start]
    return (min(started) if started else datetime.now()).astimezone(UTC)
