"""Sample studies: two or four sources, small or large pictures, finished or interrupted, plain or hostile names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from studies import (
    ConfirmedScore,
    Evaluation,
    PictureColumn,
    PromptInfo,
    SourceInfo,
    SourceScore,
    StudySummary,
    TrialRecord,
    Verdict,
)

SOURCES = ("neon", "robot", "party_hat", "octopus")
ROLES = ("style", "character", "concept", "character")
BLOCKS = ("IN01", "IN02", "IN04", "IN05", "MID", "OUT03", "OUT04", "OUT05", "OUT08")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;"
LONG = "Überlange_Quelle " + "مرحبا 漢字 " + "n" * 275
"""More than 300 characters: accents, right-to-left, full-width, and one word that cannot be broken."""


def evaluation(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...], method: str = "svd") -> Evaluation:
    """A plausible evaluation: what a source keeps grows with its weight and suffers from the others'."""
    weight = np.array(weights)
    kept = np.tanh(1.6 * weight) - 0.35 * (weight.sum() - weight) * rng.uniform(0.6, 1.2, len(names)) + rng.normal(0, 0.05, len(names))
    scores = {
        name: SourceScore(preservation=float(k), own=float(k) + 0.08, joint=float(k) - 0.08, leakage=float(abs(rng.normal(0, 0.1))))
        for name, k in zip(names, kept, strict=True)
    }
    blocks = [{b: round(float(rng.uniform(0.3, 1.5)), 3) for b in BLOCKS} for _ in names]
    recipe = {"method": method, "weights": [float(w) for w in weights], "blocks": blocks, "rank": 32, "dtype": "fp16", "seed": 0}
    return Evaluation(
        recipe=recipe | ({"density": 0.4} if method == "ties" else {}),
        recipe_hash=f"{rng.integers(2**62):064x}",
        score=float(kept.min()),
        sources=scores,
        artifacts=float(abs(rng.normal(0.05, 0.03))),
        metrics={"seconds render": 4.5},
        seconds=float(rng.uniform(20, 300)),
    )


def trials(names: tuple[str, ...], count: int = 30, failures: tuple[int, ...] = (9, 17)) -> tuple[TrialRecord, ...]:
    """Each source alone, the stack, the naive merge, a default recipe, then proposals; some fail."""
    rng = np.random.default_rng(5)
    one = [tuple(float(i == j) for j in range(len(names))) for i in range(len(names))]
    starts = [(f"{name} alone", w) for name, w in zip(names, one, strict=True)]
    starts += [("stack", (1.0,) * len(names)), ("naive", (1 / len(names),) * len(names)), ("ties default", (0.8,) * len(names))]
    records = []
    for number in range(count):
        label, weights = starts[number] if number < len(starts) else ("", tuple(rng.uniform(0.3, 1.1, len(names))))
        if number in failures:
            records.append(TrialRecord(number=number, label=label, state="FAIL", error="CUDA out of memory: tried to allocate 2.50 GiB"))
        else:
            method = "ties" if number % 4 == 2 else "svd"
            records.append(TrialRecord(number=number, label=label, evaluation=evaluation(rng, names, weights, method)))
    return tuple(records)


def best_of(records: tuple[TrialRecord, ...]) -> int:
    """The number of the trial with the highest score."""
    return max((r for r in records if r.evaluation), key=lambda r: r.evaluation.score if r.evaluation else 0.0).number


def pictures(folder: Path, columns: list[str], prompts: int, size: int) -> list[tuple[str, ...]]:
    """Write a picture per column and prompt: blobs that depend on both, so that columns can be told apart."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:size, 0:size] / size
    written: list[list[str]] = [[] for _ in columns]
    for p in range(prompts):
        rng = np.random.default_rng(p)
        centre, radius, sky = rng.uniform(0.3, 0.7, 2), rng.uniform(0.15, 0.3), rng.uniform(0.4, 0.9, 3)
        inside = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)[..., None]
        behind = sky * (1 - 0.5 * y[..., None]) + rng.normal(0, 0.02, (size, size, 1))
        for c, files in enumerate(written):
            shade = np.where(inside, np.random.default_rng(100 + c).uniform(0.1, 0.9, 3), behind)
            files.append(f"images/column{c}-prompt{p}.png")
            Image.fromarray((np.clip(shade, 0, 1) * 255).astype(np.uint8)).save(folder / files[-1], compress_level=1)
    return [tuple(files) for files in written]


def sample(
    folder: Path,
    *,
    names: tuple[str, ...] = SOURCES[:2],
    size: int = 64,
    finished: bool = True,
    hostile: str = "",
    count: int = 30,
) -> StudySummary:
    """A study with its pictures written to ``folder``.

    Args:
        folder: the study directory.
        names: names of the sources.
        size: side of the pictures in pixels.
        finished: False for an interrupted study: no verdict, no file, the last pictures missing.
        hostile: put into every free text of the summary.
        count: number of trials.
    """
    records = trials(names, count)
    best = best_of(records)
    sources = tuple(
        SourceInfo(
            name=n,
            role=r,
            trigger="" if r == "style" else f"<{n}> {hostile}",
            file=f"{n}{hostile}.safetensors",
            sha256="ab" * 32,
            rank_min=4,
            rank_max=16,
            base="sd1",
        )
        for n, r in zip(names, ROLES, strict=False)
    )
    prompts = [
        PromptInfo(text=f"{n} on a red ball, {place}{hostile}", seed=seed, kind="own", source=n)
        for n in names
        for seed, place in enumerate(("beach", "meadow at night"))
    ]
    prompts += [PromptInfo(text=f"{' and '.join(names)}, snow, scene {s}{hostile}", seed=40 + s, kind="joint") for s in range(3)]
    heads = [("base", "base"), *((f"{n} alone", "source") for n in names), ("stack", "stack"), ("naive", "naive"), ("best", "best")]
    files = pictures(folder, [h for h, _ in heads], len(prompts), size)
    if not finished:
        files[-1] = (*files[-1][:-2], "", "images/lost.png")
    begun = datetime(2025, 3, 14, 21, 4, tzinfo=UTC)
    return StudySummary(
        title=f"{' + '.join(names)}{hostile}",
        version="0.1.0",
        created=begun,
        finished=begun + timedelta(hours=7, minutes=5) if finished else None,
        base=f"./sd15{hostile}",
        sources=sources,
        prompts=tuple(prompts),
        columns=tuple(PictureColumn(label=h, kind=k, files=f) for (h, k), f in zip(heads, files, strict=True)),
        trials=records,
        baselines=len(names) + 2,
        budget=count - len(names) - 2 if finished else 50,
        best_number=best,
        verdict=_verdict(names, hostile) if finished else None,
        file="best/merged.safetensors" if finished else "",
        environment={"Python": "3.12.4", "torch": "2.14.1", "diffusers": "0.42.1", "device": f"NVIDIA RTX 4090{hostile}", "seed": "0"},
        command=f"optimize --sources {' '.join(f'{n}.safetensors' for n in names)} --base ./sd15 --budget {count}{hostile}",
        resume_command="" if finished else "optimize resume runs/first",
        warnings=(f"robot.safetensors: 2 tensors were not understood and are left out{hostile}",) if finished else (),
    )


def _verdict(names: tuple[str, ...], hostile: str) -> Verdict:
    def row(score: float, half: float) -> ConfirmedScore:
        kept = {n: score + 0.07 * i for i, n in enumerate(names)}
        return ConfirmedScore(weakest=score, ci_low=score - half, ci_high=score + half, sources=kept)

    rows = {"best": row(0.62, 0.05), "naive": row(0.43, 0.06), "stack": row(0.38, 0.08)}
    rows |= {f"{n} alone": row(0.02 - 0.03 * i, 0.03) for i, n in enumerate(names)}
    sentence = (
        "The best merge keeps 62 % of the source that fares worst, 19 points more than the naive merge; the intervals do not overlap."
    )
    return Verdict(sentence=sentence + hostile, winner="best", rows=rows, pictures=48)
