"""Image retention: which trials' pictures are kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from optimizer.merging import Recipe
from optimizer.search.config import KeepImages
from optimizer.search.images.contact_sheets import keep_sheet, sheet_name
from optimizer.search.images.png import save_images
from optimizer.search.labels import is_baseline
from studies.records import Evaluation, TrialRecord
from studies.store import Store


@dataclass(frozen=True)
class ImageRetention:
    """Retention policy for the pictures of trials. Contact sheets, which are small, are kept for all trials.

    The pictures of one recipe are stored in one folder, shared by all of its trials.

    Attributes:
        keep: policy: ``best``, ``all`` or ``none``.
        best: number of best recipes, besides the baselines, whose pictures are kept.
    """

    keep: KeepImages
    best: int

    def save(self, store: Store, recipe: Recipe, images: Tensor, *, keep_pictures: bool = True) -> tuple[str, ...]:
        """Writes the contact sheet of a trial, unless none are kept, and the pictures themselves, if ``keep_pictures``.

        Args:
            store: destination store.
            recipe: recipe of the trial.
            images: pictures, uint8, (n, 3, height, width).
            keep_pictures: whether to write the pictures, as ``keeps`` decides. Encoding takes longer than all other steps but rendering.

        Returns:
            Names of the pictures.
        """
        if self.keep == "none":
            return ()
        keep_sheet(store, recipe.hash, images)
        return save_images(store, f"trials/{recipe.hash[:16]}", images) if keep_pictures else ()

    def keeps(self, records: Mapping[int, TrialRecord], label: str, evaluation: Evaluation) -> bool:
        """Returns whether the pictures of a new trial would be kept, given all trials that have ended so far.

        Args:
            records: ended trials, by number.
            label: label of the new trial.
            evaluation: evaluation of the new trial.
        """
        new = TrialRecord(number=max(records, default=-1) + 1, label=label, evaluation=evaluation)
        return self.keep == "all" or evaluation.recipe_hash in self._kept({**records, new.number: new})

    def displaced(self, records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
        """Returns the ended trials whose stored pictures are no longer to be kept."""
        if self.keep == "all":
            return []
        kept = self._kept(records)
        return [r for r in records.values() if r.evaluation and r.evaluation.images and r.evaluation.recipe_hash not in kept]

    def copy(self, evaluation: Evaluation, origin: Store, store: Store) -> Evaluation:
        """Copies a trial's contact sheet and, if they are kept and complete, its pictures to another study's store.

        Returns:
            The evaluation with the pictures that the store has.
        """
        if self.keep == "none":
            return evaluation.model_copy(update={"images": ()})
        sheet = sheet_name(evaluation.recipe_hash)
        if data := origin.read(sheet):
            store.write(sheet, data)
        pictures = [data for file in evaluation.images if (data := origin.read(file))]
        if len(pictures) < len(evaluation.images):
            return evaluation.model_copy(update={"images": ()})
        for file, data in zip(evaluation.images, pictures, strict=True):
            store.write(file, data)
        return evaluation

    def _kept(self, records: Mapping[int, TrialRecord]) -> set[str]:
        if self.keep == "none":
            return set()
        baselines, scores = set(), dict[str, tuple[bool, float]]()
        for record in records.values():
            if record.evaluation and is_baseline(record.label):
                baselines.add(record.evaluation.recipe_hash)
            elif record.evaluation:
                scores[record.evaluation.recipe_hash] = (not record.evaluation.feasible, -record.evaluation.score)
        ranked = sorted(scores.keys() - baselines, key=lambda recipe: (scores[recipe], recipe))
        return baselines | set(ranked[: self.best])
