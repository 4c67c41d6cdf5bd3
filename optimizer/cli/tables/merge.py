"""What ``optimize merge`` prints for people and for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from optimizer.jobs.merge_plan import MergePlan
from optimizer.jobs.merge_write import Written
from optimizer.jobs.solved_merge import SolvedMerge
from optimizer.jobs.study_soup import SOUP, StudySoup
from optimizer.merging import Fidelity, block_map

_NOTES = (
    "error: ‖written − what the method computes‖ over ‖the latter‖; energy: the share of its square that is kept",
    "cosine: of the merge and a source, or the plain sum at the same weights; 1 is the same direction, 0 unrelated",
)


def merge_facts(job: MergePlan, found: Written) -> dict[str, Any]:
    """Everything about a merge, as JSON-ready data."""
    ranks = [factors.rank for factors in found.merged.modules.values()]
    return {
        "file": str(found.check.path),
        "recipe": str(found.recipe),
        "card": str(found.card),
        "sha256": found.check.sha256,
        "bytes": found.check.path.stat().st_size,
        "dialect": job.dialect,
        "merge": job.recipe.data(),
        "sources": [source.name for source in job.sources],
        "modules": len(ranks),
        "ranks": [min(ranks), max(ranks)],
        "rounding": found.check.total,
        "total": asdict(found.report.total),
        "by_module": {path: asdict(fidelity) for path, fidelity in found.report.modules.items()},
        "prune_curve": [asdict(point) for point in found.curve],
    } | ({"router": str(found.router)} if found.router else {})


def idle_blocks(job: MergePlan, found: Written) -> list[str]:
    """Warnings about block weights that have no effect, one line each."""
    idle = zip(job.sources, found.report.idle_blocks, strict=True)
    return [f"{source.name}: no module is in {', '.join(names)}" for source, names in idle if names]


def print_merge(job: MergePlan, found: Written, console: Console) -> None:
    """Where the file is, what it kept, and of which source."""
    ranks = [factors.rank for factors in found.merged.modules.values()]
    rank = f"rank {min(ranks)}" if min(ranks) == max(ranks) else f"ranks {min(ranks)} to {max(ranks)}"
    size = f"{decimal(found.check.path.stat().st_size)}, {len(ranks)} modules, {rank}, {job.recipe.dtype}"
    console.print(_sources(job, found))
    console.print(_blocks(job, found))
    for note in _NOTES:
        console.print(note, style="dim")
    console.print()
    if found.curve:
        console.print(_curve(job, found))
    total = found.report.total
    console.print(
        f"method  {job.recipe.method}: error {_percent(total.error)}, energy kept {_percent(total.energy)}, "
        f"cosine to the plain sum {total.cosine_sum:.2f}",
        soft_wrap=True,
    )
    for name, path in (
        ("LoRA", found.check.path),
        ("recipe", found.recipe),
        *([("router", found.router)] if found.router else []),
        ("card", found.card),
    ):
        console.print(Text(f"{name:<7} {path}" + (f"  ({size})" if name == "LoRA" else "")), soft_wrap=True)


def solving_facts(made: SolvedMerge) -> dict[str, Any]:
    """How a merge was solved, as JSON-ready data."""
    facts = {"solved": made.plan.recipe.method, "prompts": made.prompts, "seconds_solving": round(made.seconds, 1), "stopped": made.stopped}
    return facts | ({} if made.loss is None else {"loss": made.loss})


def print_solving(made: SolvedMerge, console: Console) -> None:
    """How a merge was solved, in one line."""
    loss = "" if made.loss is None else f", loss {made.loss:.4g}"
    early = f", stopped after {made.plan.recipe.checkpoint} % of {made.plan.recipe.train_steps} steps" if made.stopped else ""
    beside = f", with {made.plan.drawn_with.text}, which the file does not hold: load it beside" if made.plan.accelerators else ""
    told = f"solved by {made.plan.recipe.method} on {made.prompts} prompts in {made.seconds:.0f} s{loss}{early}{beside}"
    console.print(told, soft_wrap=True, markup=False)


def soup_facts(made: StudySoup) -> dict[str, Any]:
    """What a soup is made of and how it compares, as JSON-ready data."""
    return {
        "soup": {
            "tried": list(made.trials),
            "chosen": [made.trials[i] for i in made.soup.chosen],
            "score": made.soup.score,
            "score_of_best": made.soup.first,
            "confirmed": {c.label: c.score for c in made.confirmation.contenders},
            "preferred": made.confirmation.winner.label,
        }
    }


def print_soup(made: StudySoup, console: Console) -> None:
    """What a soup is made of, and how it compares on prompts that neither the search nor the soup were chosen on."""
    chosen = ", ".join(made.trials[i] for i in made.soup.chosen)
    gain = f"score {made.soup.score:.3f}; {made.trials[0]}, the best of them, {made.soup.first:.3f}"
    console.print(f"soup of {chosen} (of {len(made.trials)} tried): {gain}", soft_wrap=True, markup=False)
    table = _table("on fresh prompts", "score", "weakest source", "from", "to", text=1)
    for contender in made.confirmation.contenders:
        weakest = contender.weakest
        values = (contender.score, weakest.value, weakest.low, weakest.high)
        table.add_row(Text(contender.label), *(f"{value:.3f}" for value in values))
    console.print(table)
    if (better := made.confirmation.winner.label) != SOUP:
        told = f"the soup is not better than {better} on fresh prompts, or within noise of it: {better} is the safer choice"
        console.print(told, soft_wrap=True, markup=False)


def _sources(job: MergePlan, found: Written) -> Table:
    table = _table("source", "weight", "‖ΔW‖", "cosine", text=1)
    total = found.report.total
    for source, weight, norm, cosine in zip(job.sources, job.recipe.weights, total.source_norms, total.cosine_sources, strict=True):
        table.add_row(Text(source.name), f"{weight:g}", f"{norm:.3g}", f"{cosine:.2f}")
    return table


def _blocks(job: MergePlan, found: Written) -> Table:
    """One line a block, over its modules; the greatest error of one among them."""
    table = _table("block", "modules", "rank", "‖merge‖", "worst error", "plain sum", text=1)
    blocks = block_map(found.merged.base)
    for name in blocks.names:
        paths = [path for path in found.merged.modules if blocks.block_of(path) == name]
        if not paths:
            continue
        lines = [found.report.modules[path] for path in paths]
        ranks = sorted(found.merged.modules[path].rank for path in paths)
        spread = f"{ranks[0]}" if ranks[0] == ranks[-1] else f"{ranks[0]}–{ranks[-1]}"
        norm = sum(line.norm**2 for line in lines) ** 0.5
        table.add_row(name, str(len(paths)), spread, f"{norm:.3g}", _percent(max(line.error for line in lines)), f"{_cosine(lines):.2f}")
    return table


def _cosine(lines: list[Fidelity]) -> float:
    """The mean over modules of the cosine to the plain sum, weighted with the merge's energy."""
    energy = sum(line.norm**2 for line in lines)
    return sum(line.cosine_sum * line.norm**2 for line in lines) / energy if energy else 0.0


def _curve(job: MergePlan, found: Written) -> Table:
    table = _table("energy given up", "error", "tensors", "saved")
    whole = found.curve[0].numbers
    for point in found.curve:
        mark = " ◂" if point.share == job.recipe.prune else ""
        saved = _percent(1 - point.numbers / whole)
        table.add_row(f"{_percent(point.share)}{mark}", _percent(point.error), decimal(point.numbers * job.recipe.itemsize), saved)
    return table


def _table(*columns: str, text: int = 0) -> Table:
    """A table without frames; after the first ``text`` columns numbers, on the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < text else "right", no_wrap=True)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"
