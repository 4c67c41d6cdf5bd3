"""Drift of the finalists: how far they change pictures that ask for no source."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from objectives import EMBEDDINGS, JOINT, Effects, drift
from optimizer.errors import TrialError
from optimizer.rendering import Prompt, always_asked
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.evaluation.comparison import Contender, Drift
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.observer import Observer


def has_drift(evaluator: Evaluator) -> bool:
    """Returns whether drift can be measured: not without a base, nor with several sources without a trigger, for want of a reference."""
    return evaluator.ensemble.based and len(_always(evaluator)) <= 1


def measured_drift(merges: Sequence[Contender], evaluator: Evaluator, prompts: Sequence[Prompt], observer: Observer) -> Drift | None:
    """Draws prompts without a trigger with some merges, and compares them with the base, or with the source that has no trigger.

    Args:
        merges: merges that were drawn on the confirmation prompts.
        evaluator: evaluator whose baselines are drawn, and for which ``has_drift``.
        prompts: prompts without a trigger.
        observer: receives the progress; may raise ``Stopped``.

    Returns:
        Drift; None if no own prompt shows what a source changes, or if a picture cannot be drawn, after a note.
    """
    always = _always(evaluator)
    extract, effects = evaluator.extractors[EMBEDDINGS], _effects(evaluator)

    def drawn(candidate: Candidate | None) -> torch.Tensor:
        return extract(evaluator.renderer.render(prompts, candidate, tick=lambda done: observer.pictures(done, len(prompts))))

    try:
        reference = drawn(evaluator.alone(always[0]) if always else None)
        found = {merge.label: drift(drawn(merge.candidate), reference, effects) for merge in merges}
    except TrialError as error:
        observer.note(f"pictures of prompts without a trigger: {error}")
        return None
    each = {label: value for label, value in found.items() if value is not None}
    return Drift(each, evaluator.sources[always[0]].name if always else "", len(prompts)) if each else None


def _always(evaluator: Evaluator) -> list[int]:
    return sorted(always_asked([source.subject for source in evaluator.sources]))


def _effects(evaluator: Evaluator) -> Effects:
    """Returns the embeddings of the baselines' pictures that ask for one source."""
    found, extract = evaluator.render_baselines(), evaluator.extractors[EMBEDDINGS]
    assert found.base is not None
    own = evaluator.asked != JOINT
    alone = torch.stack([extract(images[own]) for images in found.alone])
    return Effects(extract(found.base[own]), alone, evaluator.asked[own], left_out=found.left_out)
