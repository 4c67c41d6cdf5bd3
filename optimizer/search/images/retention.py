"""The gallery: which trials' pictures stay on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from optimizer.merging import Recipe
from optimizer.search.config import KeepImages
from optimizer.search.images.contact_sheets import keep_sheet
from optimizer.search.images.png import save_images
from optimizer.search.labels import is_baseline
from studies.records import Evaluation, TrialRecord
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

    def hang(self, store: Store, recipe: Recipe, images: Tensor, *, stay: bool = True) -> tuple[str, ...]:
        """Write the sheet of a trial's pictures, unless none are kept, and the pictures themselves, if they stay.

        Args:
            store: where they go.
            recipe: whose they are.
            images: uint8, (n, 3, height, width).
            stay: whether there is room for them, see ``has_room``: packing them takes longer than all else beside drawing.

        Returns:
            The names of the pictures.
        """
        if self.keep == "none":
            return ()
        keep_sheet(store, recipe.hash, images)
        return save_images(store, f"trials/{recipe.hash[:16]}", images) if stay else ()

    def has_room(self, records: Mapping[int, TrialRecord], label: str, evaluation: Evaluation) -> bool:
        """Whether the pictures of one more trial would be kept, beside those of all that have ended so far.

        Args:
            records: of these, by number.
            label: of the new one.
            evaluation: of the new one.
        """
        coming = TrialRecord(number=max(records, default=-1) + 1, label=label, evaluation=evaluation)
        return self.keep == "all" or evaluation.recipe_hash in self._kept({**records, coming.number: coming})

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
