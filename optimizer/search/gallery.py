"""The gallery: which trials' pictures stay on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from optimizer.merging import Recipe
from optimizer.search.config import KeepImages
from optimizer.search.labels import is_baseline
from optimizer.search.pictures import save_images
from optimizer.search.sheets import keep_sheet
from studies.records import TrialRecord
from studies.store import Store


@dataclass(frozen=True)
class Gallery:
    """Keeps the pictures of some trials, and the contact sheets of all, which are small. Those of one recipe lie in one folder, whatever
    trials it is of.

    Attributes:
        keep: ``best``, ``all`` or ``none``.
        best: how many recipes beside the baselines have the best pictures.
    """

    keep: KeepImages
    best: int

    def hang(self, store: Store, recipe: Recipe, images: Tensor) -> tuple[str, ...]:
        """Write the pictures of a trial, uint8 (n, 3, height, width), and their sheet, unless none are kept; returns their names."""
        if self.keep == "none":
            return ()
        keep_sheet(store, recipe.hash, images)
        return save_images(store, f"trials/{recipe.hash[:16]}", images)

    def fallen(self, records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
        """The trials, of all that have ended so far, with pictures that are not kept any longer."""
        if self.keep == "all":
            return []
        kept = self._kept(records)
        return [r for r in records.values() if r.evaluation and r.evaluation.images and r.evaluation.recipe_hash not in kept]

    def _kept(self, records: Mapping[int, TrialRecord]) -> set[str]:
        if self.keep == "none":
            return set()
        baselines, scores = set(), dict[str, float]()
        for record in records.values():
            if record.evaluation and is_baseline(record.label):
                baselines.add(record.evaluation.recipe_hash)
            elif record.evaluation:
                scores[record.evaluation.recipe_hash] = record.evaluation.score
        ranked = sorted(scores.keys() - baselines, key=lambda recipe: (-scores[recipe], recipe))
        return baselines | set(ranked[: self.best])
