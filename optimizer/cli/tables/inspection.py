"""Tables: how ``inspect`` and ``ls`` look in a terminal, 80 columns wide or wider. Every string of a file is plain text here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from optimizer.adapters import distillation
from optimizer.inspection.diagnosis import ALIKE, OPPOSED
from optimizer.inspection.facts import Inspection
from optimizer.inspection.file_metadata import line, particulars
from optimizer.inspection.gather import Found
from optimizer.inspection.listing import Listing, Row
from optimizer.inspection.similarity import Kinship, Overlap
from optimizer.inspection.strength import Anatomy, BlockAnatomy
from optimizer.merging import block_map

_NOTHING = "–"
_WORDS = {"block", "pair", "file", "family", "kind", "trigger", "left out"}
_WIDE = 100
_LISTED = ("file", "family", "kind", "modules", "rank", "size", "trigger")
_ELASTIC = {"file", "kind", "trigger", "left out"}  # these give way where a row is too long, the widest first
_BLOCK = ("block", "modules", "‖ΔW‖", "energy", "mean", "std", "min", "max", "rank", "used", "90 %", "99 %")
_BLOCK_NOTES = (
    ("energy", "share of the file's ‖ΔW‖²"),
    ("mean … max", "of the stored weights, which say nothing of ΔW"),
    ("used", "effective rank, exp of the entropy of σ²; 90 %, 99 %: rank that keeps as much of the energy; medians over modules"),
)
_PAIR = ("pair", "shared", "only", "misfit", "cosine", "conflict", "outputs", "inputs", "strength")
_PAIR_NOTES = (
    ("only", "modules that the first, and the second, has alone; misfit: modules with different shapes; the rest is of shared modules"),
    ("conflict", "share of entries with opposite signs, an estimate from 64 × 64 entries of every module; by chance 50 %"),
    ("outputs", "how far the directions that both write into coincide, from 0 to 1 (by chance); inputs: those that both read"),
    ("strength", "‖ΔW‖ of the first over that of the second"),
)


def print_inspection(found: Inspection, console: Console) -> None:
    """File by file, then the pairs, then what it means."""
    marks = [mark(index) for index in range(len(found.anatomies))]
    for sign, file, body in zip(marks, found.gathered.found, found.anatomies, strict=True):
        console.print(Text(f"{sign}  {body.name}" if len(marks) > 1 else body.name, style="bold"), soft_wrap=True)
        for label, value in _about(file, body):
            _print_line(label, value, console)
        console.print(_blocks(body, console.width))
        console.print()
    _print_notes(_BLOCK_NOTES, console)
    if found.kinships:
        pairs = [f"{a}·{b}" for a, b in combinations(marks, 2)]
        console.print(_pairs(pairs, found.kinships, console.width))
        _print_notes(_PAIR_NOTES, console)
        for table in _cosines(pairs, found.kinships, console.width):
            console.print(table)
            console.print()
    for sentence in found.diagnosis:
        _print_line("•", sentence, console, width=2)


def print_listing(found: Listing, everything: bool, console: Console) -> None:
    """One row a file; with ``everything`` also those that do not fit the reference, and why."""
    rows = found.shown(everything)
    if not rows:
        return
    table = _table([*_LISTED, *(["left out"] if everything else [])], console.width)
    for column in table.columns:
        column.no_wrap = column.header not in _ELASTIC
        column.max_width = 20 if column.header in ("kind", "trigger") else None
    for row in rows:
        cells = [*_listed(row), *([_why(row)] if everything else [])]
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells))
    console.print(table)


def mark(index: int) -> str:
    """A, B, … Z, AA, AB, …: what stands for a file in the tables of pairs."""
    rest, letter = divmod(index, 26)
    return (mark(rest - 1) if rest else "") + chr(ord("A") + letter)


def _about(file: Found, body: Anatomy) -> list[tuple[str, str]]:
    """Label → value, for everything that is one line a file."""
    adapter, said = file.adapter, particulars(file.adapter.metadata, file.trigger, file.path)
    few_steps = distillation(file.path.name, adapter.metadata)
    kinds = " · ".join(
        [f"{line(kind)} {number}" for kind, number in adapter.kinds.items()] + [line(adapter.dialect)] * bool(adapter.dialect)
    )
    lines = [
        ("file", line(str(file.path), 1000)),
        ("family", file.family + (f" ({line(adapter.base_reason)})" if adapter.base_reason else "")),
        ("kind", kinds),
        ("size", f"{decimal(file.path.stat().st_size)} · sha256 {adapter.sha256[:12]}"),
        ("modules", " · ".join(f"{part} {number}" for part, number in body.parts.items())),
        ("rank", f"{_spread(body.ranks)} · alpha {_spread(body.alphas)} · scale α/r {_spread(body.scales)}"),
        ("change", f"‖ΔW‖ {_number(body.total.norm)} · 99 % of the energy at rank {body.sufficient_rank}"),
        ("caution", f"calls itself a distillation LoRA ({few_steps}), which changes how many steps a picture needs" if few_steps else ""),
        ("trigger", said.trigger + (f" (a guess from {said.trigger_origin})" if said.trigger_origin else "")),
        ("title", said.title),
        ("output name", said.output_name),
        ("author", said.author),
        ("licence", said.licence),
        ("tags", ", ".join(said.tags)),
        ("words", ", ".join(said.words)),
    ]
    return [(label, value) for label, value in lines if value]


def _spread(counts: Mapping[int, int] | Mapping[float, int]) -> str:
    """The one value; else the common one and how many modules differ; else the range, where none is common to half of them."""
    values, total = list(counts), sum(counts.values())
    common, number = max(counts.items(), key=lambda item: item[1])
    if len(values) == 1:
        return f"{common:g}"
    span = f"{min(values):g} to {max(values):g}"
    return f"{common:g} ({total - number} of {total} differ: {span})" if 2 * number >= total else f"{span} ({len(values)} values)"


def _blocks(body: Anatomy, width: int) -> Table:
    table = _table(_BLOCK, width)
    for block in body.blocks:
        table.add_row(*_block_cells(block))
    table.add_row(*_block_cells(body.total), style="bold")
    return table


def _block_cells(block: BlockAnatomy) -> list[str]:
    values, directions = block.values, block.directions
    return [
        *(block.name, str(block.modules), _number(block.norm), f"{100 * block.share:.1f} %"),
        *(_minus(f"{values.mean:.0e}"), *(_minus(f"{value:#.2g}") for value in (values.std, values.minimum, values.maximum))),
        *(str(directions.stored), f"{directions.effective:.1f}", str(directions.for_90), str(directions.for_99)),
    ]


def _pairs(pairs: Sequence[str], kinships: Sequence[Kinship], width: int) -> Table:
    table = _table(_PAIR, width)
    for pair, found in zip(pairs, kinships, strict=True):
        total, ratio = found.total, found.ratio
        only, misfit = f"{len(found.only[0])}, {len(found.only[1])}", str(len(found.clashes))
        table.add_row(
            pair,
            str(len(found.shared)),
            only,
            misfit,
            _cosine(total.cosine if found.shared else None),
            *(
                [f"{100 * total.conflict:.0f} %", _overlap(total.columns), _overlap(total.rows), _number(ratio) if ratio else _NOTHING]
                if found.shared
                else [_NOTHING] * 4
            ),
        )
    return table


def _cosines(pairs: Sequence[str], kinships: Sequence[Kinship], width: int) -> list[Table]:
    """Cosines, one row a block and one column a pair; several tables where the pairs do not fit beside each other."""
    names = list(dict.fromkeys(name for found in kinships for name in found.blocks))
    bases = [base for found in kinships for base in found.bases if base != "unknown"]
    order = block_map(bases[0] if bases else "unknown").names
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    each, tables = max(1, (width - 12) // (3 + max(6, *map(len, pairs)))), []
    for start in range(0, len(pairs), each):
        part = slice(start, start + each)
        table = _table(["block", *pairs[part]], width, title="cosine")
        for name in names:
            table.add_row(name, *(_cosine(k.blocks[name].cosine if name in k.blocks else None) for k in kinships[part]))
        table.add_row("all", *(_cosine(k.total.cosine if k.shared else None) for k in kinships[part]), style="bold")
        tables.append(table)
    return tables if names else []


def _cosine(cosine: float | None) -> Text:
    if cosine is None:
        return Text(_NOTHING)
    style = "red" if cosine <= OPPOSED else "yellow" if cosine >= ALIKE else ""
    return Text(_minus(f"{cosine:.3f}".replace("-0.000", "0.000")), style=style)


def _minus(number: str) -> str:
    """A negative number with a true minus sign."""
    return f"−{number[1:]}" if number.startswith("-") else number


def _overlap(found: Overlap) -> str:
    return f"{found.share:.2f} ({found.chance:.2f})"


def _listed(row: Row) -> list[str]:
    name = line(row.path.name)
    if row.facts is None:
        return [name, *[_NOTHING] * 6]
    facts, (least, greatest) = row.facts, row.facts["ranks"]
    kind = " ".join([*map(line, facts["kinds"]), facts["dialect"]]).strip()
    rank = str(greatest) if least == greatest else f"{least}–{greatest}"
    return [name, facts["family"], kind or _NOTHING, str(facts["modules"]), rank, decimal(facts["bytes"]), facts["trigger"] or _NOTHING]


def _why(row: Row) -> str:
    if row.left_out is None:
        return ""
    return row.left_out.reason if row.facts else line(row.left_out.detail.removeprefix(f"{row.path}: "))


def _number(value: float) -> str:
    """Three digits, or all in front of the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _table(columns: Sequence[str], width: int, title: str | None = None) -> Table:
    """Words to the left, numbers to the right, nothing wrapped; the columns stand close together in a narrow terminal."""
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1 if width >= _WIDE else 0), title=title, title_justify="left"
    )
    for name in columns:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True, overflow="ellipsis")
    return table


def _print_notes(notes: Sequence[tuple[str, str]], console: Console) -> None:
    for label, text in notes:
        _print_line(label, text, console, style="dim")
    console.print()


def _print_line(label: str, text: str, console: Console, *, width: int = 12, style: str = "") -> None:
    """A label and its text, wrapped under itself in a terminal, and one line anywhere else."""
    if not console.is_terminal:
        console.print(f"{label:<{width}}{text}", soft_wrap=True, markup=False)
        return
    grid = Table.grid()
    grid.add_column(width=width)
    grid.add_column(overflow="fold")
    grid.add_row(Text(label, style=style), Text(text, style=style))
    console.print(grid)
