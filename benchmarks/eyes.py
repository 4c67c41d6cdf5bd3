"""Whether the probes see what people see: ``python -m benchmarks.eyes [DIR…]``.

A panel is 28 pictures that merges of two demo sources drew for joint prompts, in random order, with a label for each trait and picture:
how much of the trait an observer saw, from 0 (nothing) to 1 (as the source alone draws it), in steps of 0.05, good to about ± 0.15. Printed
are, for each trait of each panel, Spearman's rank correlation of the probe with the labels over recipes (means over a recipe's pictures)
and over single pictures, the means of both, and the largest differences. ``limit`` is what a perfect reader would get over recipes on
average, and in all but a tenth of the cases, since the labels themselves are off by about as much as told.

The panels of ``benchmarks/eyes/choose`` are those on which the probes' training was chosen; those of ``benchmarks/eyes/report`` were
labelled by another observer and chose nothing. No picture of either is trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from studies.demo.probes.network import Probes, load_probes

PANELS = Path(__file__).parent / "eyes"
_LABEL_ERROR, _DRAWS = 0.15, 1000


@dataclass(frozen=True)
class Panel:
    """Labelled pictures of one pair of sources.

    Attributes:
        name: names of the sources, joined by a hyphen.
        images: uint8 (n, 3, 64, 64).
        recipes: for each picture the name of the merge that drew it.
        labels: trait → amount seen in each picture, (n,) in [0, 1].
    """

    name: str
    images: Tensor
    recipes: list[str]
    labels: dict[str, np.ndarray]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eyes", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[PANELS / "choose", PANELS / "report"], help="folders of panels")
    parser.add_argument("--worst", type=int, default=0, help="print so many pictures in which probe and label differ most")
    arguments = parser.parse_args()
    probes = load_probes()
    for folder in arguments.folders:
        frame = pd.concat([compare(panel, probes) for panel in load_panels(folder)])
        print(f"\n{folder.name}\n{'panel':<16} {'trait':<8} {'recipes':>8} {'pictures':>9} {'label':>7} {'probe':>7} {'off by':>7}   limit")
        for (panel, trait), rows in frame.groupby(["panel", "trait"], sort=False):
            limit = "   {:.2f} ({:.2f})".format(*label_limit(rows))
            print(f"{panel:<16} {trait:<8} " + "{:>8.2f} {:>9.2f} {:>7.2f} {:>7.2f} {:>+7.2f}".format(*agreement(rows)) + limit)
        worst = frame.assign(off=(frame.probe - frame.label).abs()).nlargest(arguments.worst, "off")
        if len(worst):
            print(worst[["panel", "picture", "recipe", "trait", "label", "probe"]].to_string(index=False, float_format="%.2f"))


def load_panels(folder: Path) -> Iterator[Panel]:
    """Every panel of a folder, by name."""
    for path in sorted(folder.glob("*.safetensors")):
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        labels = {trait: np.array(values) for trait, values in said["labels"].items()}
        yield Panel(path.stem, load_file(path)["images"], [recipe.split(" #")[0] for recipe in said["recipes"]], labels)


def compare(panel: Panel, probes: Probes) -> pd.DataFrame:
    """One row a trait and picture: what was seen and what the probe reads. ``picture`` counts from 1."""
    traits = probes.read(panel.images).traits
    columns = {"panel": panel.name, "picture": range(1, len(panel.images) + 1), "recipe": panel.recipes}
    return pd.concat([pd.DataFrame({**columns, "trait": t, "label": seen, "probe": traits[t].numpy()}) for t, seen in panel.labels.items()])


def agreement(rows: pd.DataFrame) -> tuple[float, float, float, float, float]:
    """Rank correlation over recipes and over pictures, mean label, mean reading, and their difference."""
    means = rows.groupby("recipe")[["label", "probe"]].mean()
    label, probe = float(rows.label.mean()), float(rows.probe.mean())
    return _spearman(means), _spearman(rows), label, probe, probe - label


def label_limit(rows: pd.DataFrame) -> tuple[float, float]:
    """Mean and tenth percentile, over random errors of the labels, of the rank correlation over recipes that a perfect reader would get."""
    draw = np.random.default_rng(0)
    means = rows.groupby("recipe").label.agg(["mean", "size"])
    errors = draw.normal(0, _LABEL_ERROR, (_DRAWS, len(means))) / np.sqrt(means["size"].to_numpy())
    found = [_spearman(pd.DataFrame({"label": means["mean"], "probe": means["mean"] + error})) for error in errors]
    return float(np.mean(found)), float(np.quantile(found, 0.1))


def _spearman(rows: pd.DataFrame) -> float:
    return float(rows[["label", "probe"]].corr(method="spearman").iloc[0, 1])


if __name__ == "__main__":
    main()
