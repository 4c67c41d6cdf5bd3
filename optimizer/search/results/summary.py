"""Conversion of a run's results to the plain data that its report shows."""

from __future__ import annotations

import math
import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import torch

from objectives import LEVEL
from optimizer.adapters.families import FAMILIES
from optimizer.export import BASE_ALONE, DrawnWith
from optimizer.rendering import PromptSet
from optimizer.search.config import OPTIONS, Config, metric_words, parse_metrics, without_password
from optimizer.search.config.values import option_name
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.comparison import Confirmation, Contender, Drift, Lead
from optimizer.search.images.png import save_images
from optimizer.search.labels import COMPOSITION, NAIVE, STACK, is_alone
from optimizer.search.sources.source import Source
from studies import (
    DEMO_BASE,
    AcceleratorInfo,
    ConfirmedScore,
    FrontMember,
    PictureColumn,
    PromptInfo,
    SourceInfo,
    StudyDirectory,
    StudySummary,
    Verdict,
)
from studies.demo.world import demo_family
from studies.records import TrialRecord
from studies.store import FolderStore

# What a merge shows more of that an objective discounts less; objectives of the user are named.
_GAINED = {
    "separation": "less of sources that a prompt does not ask for",
    "familiarity": "less that neither base nor sources draw",
}
# Difference of two shares that the sentence of the verdict names, which shows whole percents.
_SEEN_MORE = 0.01
_LIBRARIES = ("torch", "diffusers", "peft", "open-clip-torch", "optuna", "torchmetrics", "transformers")


@dataclass(frozen=True)
class SummaryInputs:
    """Inputs of a study summary.

    Attributes:
        config: configuration of the run.
        sources: sources of the run.
        records: all trials so far.
        prompts: prompts of the confirmation.
        confirmation: result of the confirmation; None before it.
        exported: exported file, relative to the study; empty before the export.
        device: device that the run used.
        created: start time of the study.
        finished: end time of the study; None for an interrupted run.
        warnings: warnings for the user.
        imported: number of trials beyond the baselines that were imported from another study.
        front: members of the Pareto front; empty unless the search was for one.
        drawn_with: what the pictures were drawn with, besides the base model.
    """

    config: Config
    sources: Sequence[Source]
    records: Sequence[TrialRecord]
    prompts: PromptSet
    confirmation: Confirmation | None
    exported: str
    device: str
    created: datetime
    finished: datetime | None
    warnings: tuple[str, ...] = ()
    imported: int = 0
    front: tuple[FrontMember, ...] = ()
    drawn_with: DrawnWith = BASE_ALONE


def summarise(inputs: SummaryInputs, directory: StudyDirectory) -> StudySummary:
    """Returns the summary, and saves the confirmation pictures that it refers to."""
    confirmed = inputs.confirmation
    names = [s.name for s in inputs.sources]
    aims = Aims.of(inputs.config.protocol, names)
    complete = [r for r in inputs.records if r.evaluation is not None and not is_alone(r.label)]
    feasible = [r for r in complete if r.evaluation and r.evaluation.feasible]
    ahead = max(feasible or complete, key=lambda r: r.evaluation.score if r.evaluation else 0.0, default=None)
    return StudySummary(
        title=" + ".join(names),
        version=version("multilora-optimizer"),
        created=inputs.created,
        finished=inputs.finished,
        kind=inputs.config.inputs.kind,
        pipeline=_pipeline(inputs.sources[0]),
        base=inputs.config.inputs.base or ("" if inputs.config.inputs.whole else DEMO_BASE),
        eval_base=inputs.config.inputs.eval_base,
        accelerators=tuple(AcceleratorInfo(**one.model_dump()) for one in inputs.drawn_with.accelerators),
        steps=inputs.drawn_with.steps,
        guidance=inputs.drawn_with.guidance,
        sources=tuple(_source(s) for s in inputs.sources),
        prompts=_prompts(inputs.prompts, names) if confirmed else (),
        columns=_columns(confirmed, directory) if confirmed else (),
        trials=tuple(inputs.records),
        baselines=len(inputs.sources) + len((NAIVE,) if inputs.config.inputs.interpolates else (STACK, NAIVE)),
        budget=inputs.config.search.budget + inputs.imported,
        best_number=confirmed.winner.number if confirmed else ahead.number if ahead else None,
        verdict=verdict(confirmed) if confirmed else None,
        file=inputs.exported,
        comfyui_only=inputs.config.output.dialect == "comfyui",
        environment=_environment(inputs.device),
        command=command_line(inputs.config),
        resume_command="" if inputs.finished else resume_command(inputs.config),
        metrics={spec.name: spec.rule for spec in parse_metrics(inputs.config.protocol.metric)},
        priorities=dict(aims.priorities),
        targets=dict(aims.targets),
        front=inputs.front,
        warnings=inputs.warnings,
    )


def verdict(found: Confirmation) -> Verdict:
    """Returns the finding as one sentence, with the confirmed values."""
    rows = {
        c.label: ConfirmedScore(
            weakest=c.weakest.value,
            ci_low=c.weakest.low,
            ci_high=c.weakest.high,
            sources=c.each,
            artifacts=None if math.isnan(c.artifacts) else c.artifacts,
            metrics=c.metrics,
            missed=c.all_missed,
            drift=found.drift.each.get(c.label) if found.drift else None,
        )
        for c in found.contenders
    }
    by_label = {c.label: c for c in found.contenders}
    return Verdict(
        sentence=_sentence(found, by_label.get(NAIVE), by_label.get(STACK)),
        winner=found.winner.label,
        rows=rows,
        confidence=LEVEL,
        pictures=len(found.winner.images),
        remarks=tuple(_remarks(found)),
    )


def command_line(config: Config) -> str:
    """Returns the command that repeats a run, with every option that differs from its default."""
    words = ["optimize", "--sources", *config.inputs.sources]
    shown = config.options() | {"storage": without_password(config.places.storage)}
    for name, value in shown.items():
        if name == "sources" or value == OPTIONS[name].default:
            continue
        option = option_name(name)
        words += [option] if value is True else [option, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)


def resume_command(config: Config) -> str:
    """Returns the command that resumes a run; it names the metrics, whose code is imported only if the user names it."""
    return f"optimize resume {shlex.quote(str(config.places.out))} {metric_words(config.protocol.metric)}".rstrip()


def _sentence(found: Confirmation, naive: Contender | None, stack: Contender | None) -> str:
    shipped = found.winner
    others = [(c, name) for c, name in ((naive, "naive merge"), (stack, "stack")) if c and c is not shipped]
    unmeasured = [name for name, share in shipped.each.items() if math.isnan(share)]
    apart = f" {' and '.join(unmeasured)} cannot be measured on these prompts and {'do' if len(unmeasured) > 1 else 'does'} not count."
    told = apart if unmeasured else ""
    kept = f"The merge keeps {shipped.weakest.value:.0%} of its weakest source ({shipped.weakest.low:.0%} to {shipped.weakest.high:.0%})"
    against = ", against " + " and ".join(f"{c.weakest.value:.0%} for the {name}" for c, name in others) if others else ""
    barred = "".join(f"; the {name} {', and '.join(c.misses(amounts=False))}" for c, name in others if not c.feasible)
    if shipped is not found.leader:
        return (
            f"{kept}{against}; {found.leader.label} was ahead, but within noise, so the simpler {shipped.label} is shipped{barred}.{told}"
        )
    better = [(c, name) for c, name in others if c.weakest.value > shipped.weakest.value and c.feasible]
    reasons = [(name, listed) for c, name in better if (listed := _advantages(shipped, c))]
    why = "".join(f"; it shows {_enumerated(listed)} than the {name}" for name, listed in reasons)
    return f"{kept}{against}{why}, on prompts and seeds that the search never saw{barred}.{told}"


def _remarks(found: Confirmation) -> Iterator[str]:
    """Yields what the search promised of the exported merge, how sure the lead of the best merge is, and what it does unasked."""
    shipped, pictures = found.winner, len(found.winner.images)
    if shipped.searched is not None:
        name = shipped.label[:1].upper() + shipped.label[1:]
        yield f"{name} scored {shipped.searched:.2f} in the search and {shipped.score:.2f} on {pictures} new picture{'s' * (pictures > 1)}."
    if found.lead:
        yield _lead_remark(found.lead, pictures)
    if found.drift and shipped.label in found.drift.each:
        yield _drift_remark(found.drift, shipped)


def _drift_remark(found: Drift, shipped: Contender) -> str:
    """Returns how far the exported merge changes pictures that ask for no source, beside the stack."""
    reference, stack = f"{found.beside} alone" if found.beside else "the base", found.each.get(STACK)
    beside = f", the stack by {stack:.0%}" if stack is not None and shipped.label != STACK else ""
    where = f"On {found.pictures} prompt{'s' * (found.pictures > 1)} without a trigger"
    moved = f"{found.each[shipped.label]:.0%} of what a source changes on its own prompts"
    return f"{where}, it differs from {reference} by {moved}{beside} (squared distances)."


def _lead_remark(lead: Lead, pictures: int) -> str:
    """Returns by how much the best merge that is not simple leads, with the interval, and which lead is within noise."""
    found, where = lead.difference, f"{lead.over.label}, the best of the simple merges"
    ahead = f"{abs(found.value):.2f} {'ahead of' if found.value >= 0 else 'behind'}"
    told = f"In score, {lead.best.label} is {ahead} {where} ({LEVEL:.0%} interval of the difference {found.low:+.2f} to {found.high:+.2f})"
    if math.isinf(lead.needed):
        return f"{told}; with one prompt of a kind, every lead is within noise (--confirm)."
    return f"{told}; on {pictures} pictures, leads up to {lead.needed:.2f} are within noise."


def _advantages(shipped: Contender, other: Contender) -> list[str]:
    """Returns what the exported merge shows more or less of than another one that keeps more of its weakest source."""
    sources = [name for name, share in shipped.each.items() if share - other.each.get(name, math.nan) >= _SEEN_MORE]
    factors = {name: value for name, value in shipped.metrics.items() if name.endswith(":factor")}
    gained = [name.partition(":")[0] for name, value in factors.items() if value > other.metrics.get(name, 1.0)]
    found = [f"more of {_enumerated(sources)}"] if sources else []
    found += ["less damage"] if shipped.artifacts < other.artifacts else []
    return found + [_GAINED.get(name, f"more {name}") for name in gained]


def _enumerated(parts: Sequence[str]) -> str:
    """Returns the parts as ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _source(source: Source) -> SourceInfo:
    """Returns what the report shows of a source; the base of a demo source is the demo world's own, which belongs to no family."""
    low, high = source.ranks
    return SourceInfo(
        name=source.name,
        role=source.subject.role,
        trigger=source.subject.trigger,
        file=source.file.name,
        sha256=source.sha256,
        rank_min=low,
        rank_max=high,
        base=demo_family(source.file) or source.family,
    )


def _pipeline(source: Source) -> str:
    """Returns the name of the pipeline class that draws with models of a source's family; empty for a family that is not known."""
    return FAMILIES[source.family].pipeline.name if source.family in FAMILIES else ""


def _prompts(prompts: PromptSet, names: Sequence[str]) -> tuple[PromptInfo, ...]:
    return tuple(
        PromptInfo(
            text=p.text, seed=p.seed, kind="joint" if p.source is None else "own", source="" if p.source is None else names[p.source]
        )
        for p in prompts.prompts
    )


def _columns(found: Confirmation, directory: StudyDirectory) -> tuple[PictureColumn, ...]:
    """Returns the picture columns.

    They are: base, if any, sources alone, composition, if any, stack, naive merge, the leader if it is another, exported merge.
    """
    alone = [(c, "source") for c in found.contenders if is_alone(c.label)]
    fixed = [(c, "composition") for c in found.contenders if c.label == COMPOSITION]
    fixed += [(c, c.label) for label in (STACK, NAIVE) for c in found.contenders if c.label == label and c is not found.winner]
    tail = [(found.leader, "leader")] if found.leader is not found.winner and found.leader.label not in (STACK, NAIVE) else []
    store = FolderStore(directory.path)
    columns = []
    if found.base is not None:
        columns.append(PictureColumn(label="base", kind="base", files=save_images(store, "confirmation/base", found.base)))
    for index, (contender, kind) in enumerate([*alone, *fixed, *tail, (found.winner, "best")]):
        label = f"best ({contender.label})" if kind == "best" else contender.label
        columns.append(PictureColumn(label=label, kind=kind, files=save_images(store, f"confirmation/{index:02d}", contender.images)))
    return tuple(columns)


def _environment(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    return {"Python": platform.python_version(), "system": platform.system(), "device": f"{device} ({name})"} | {
        n: version(n) for n in _LIBRARIES
    }
