"""Evaluations and pictures of a study's trials, in its store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from optimizer.merging import Recipe
from optimizer.search.evaluation.aims import PRIORITIES, TARGETS, Aims
from optimizer.search.evaluation.evaluator import Measured
from optimizer.search.images.png import save_images
from optimizer.search.images.retention import ImageRetention
from studies import EvaluationCache, evaluation_key
from studies.records import Evaluation, TrialRecord
from studies.store import Store


@dataclass(frozen=True)
class StudyEvaluations:
    """Stores evaluations and pictures such that a stored evaluation names only pictures that exist.

    Attributes:
        store: store of evaluations and pictures.
        context: all inputs besides the recipe that an evaluation depends on.
        retention: retention policy for the pictures.
    """

    store: Store
    context: Mapping[str, object]
    retention: ImageRetention

    def key(self, recipe: Recipe, aims: Aims | None = None, *, pruned: bool = False) -> str:
        """Returns the cache key of the recipe's evaluation in this study, or in one with these aims and the same pictures.

        An evaluation that was pruned has a key of its own, because the recipe may have to be drawn on all prompts in another study.
        """
        context = {name: part for name, part in self.context.items() if aims is None or name not in (PRIORITIES, TARGETS)}
        part = {"pruned": True} if pruned else {}
        return evaluation_key(recipe=recipe.data(), **context, **(aims.described() if aims else {}), **part)

    def get(self, key: str) -> Evaluation | None:
        """Returns the evaluation with this key, by any worker or an earlier run; None if it is missing or damaged."""
        return self._cache.get(key)

    def add(self, recipe: Recipe, measured: Measured, label: str, known: Mapping[int, TrialRecord]) -> Evaluation:
        """Writes the pictures, unless better trials have displaced them, then the evaluation that names them; both are durable then.

        Args:
            recipe: evaluated recipe.
            measured: evaluation and pictures.
            label: label of the trial.
            known: records of the ended trials, by number.

        Returns:
            The stored evaluation, which is another worker's if that one was first.
        """
        keep = self.retention.keeps(known, label, measured.evaluation)
        files = self.retention.save(self.store, recipe, measured.images, keep_pictures=keep)
        key = self.key(recipe, pruned=measured.evaluation.pruned)
        stored = self._cache.add(key, measured.evaluation.model_copy(update={"images": files}))
        for file in set(files) - set(stored.images):  # removed by another worker meanwhile
            self.store.remove(file)
        return stored

    def copy(self, key: str, evaluation: Evaluation, origin: Store) -> Evaluation:
        """Copies pictures and evaluation of a trial from another study's store; returns the evaluation with the pictures that are kept."""
        copied = self.retention.copy(evaluation, origin, self.store)
        self._cache.put(key, copied)
        return copied

    def remove_pictures(self, key: str, record: TrialRecord) -> TrialRecord:
        """Removes a trial's pictures after its evaluation has ceased to name them; safe if other workers do so concurrently."""
        assert record.evaluation is not None
        bare = record.evaluation.model_copy(update={"images": ()})
        self._cache.put(key, bare)
        for file in record.evaluation.images:
            self.store.remove(file)
        return record.model_copy(update={"evaluation": bare})

    def save_baseline(self, name: str, images: Tensor) -> None:
        """Writes the pictures, uint8 (n, 3, height, width), of the base or of a source alone."""
        save_images(self.store, f"baselines/{name}", images)

    @property
    def _cache(self) -> EvaluationCache:
        return EvaluationCache(self.store)
