"""Patience: a search ends when its last trials have brought no gain beyond noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from objectives import JOINT
from optimizer.errors import UsageError
from optimizer.rendering import PromptSet
from optimizer.search.config import Config
from optimizer.search.evaluation.pruning import best_of, first_half, lags
from studies.records import TrialRecord


def check_patience(config: Config, prompts: PromptSet) -> None:
    """Checks that a search can tell a gain from noise, if it is to end without one.

    Raises:
        UsageError: it is for a front, does not measure the first half of the prompts, or has too few prompts.
    """
    search = config.search
    if search.patience is None:
        return
    where = f"--patience {search.patience}"
    if search.pareto:
        raise UsageError("a front has no single score that stops rising", where=where, remedy="leave out --patience or --pareto")
    if search.no_pruning:
        problem = "gains are told from noise by the scores on the first half of the prompts, which --no-pruning does without"
        raise UsageError(problem, where=where, remedy="leave out one of both")
    if first_half(_asked(prompts)) is None:
        problem = "with fewer than three prompts of a kind no gain can be told from noise"
        raise UsageError(problem, where=where, remedy="raise --own and --joint to 3 or more, or leave out --patience")


def exhausted(records: Sequence[TrialRecord], patience: int, since: int, prompts: PromptSet) -> bool:
    """Returns whether the last proposals have not raised the best score by more than chance gives with a probability of 5 %.

    Args:
        records: ended trials, by number.
        patience: number of proposals that have to bring a gain, 1 or more.
        since: number of the first trial that counts; a study that was extended after it had ended so is given as many proposals again.
        prompts: prompts of the search.
    """
    proposals = [record.number for record in records if not record.label and record.number >= since]
    if len(proposals) < patience:
        return False
    first = proposals[-patience]
    before, now = best_of(r for r in records if r.number < first), best_of(records)
    if before is None or now is None:
        return False
    half = first_half(_asked(prompts))
    assert half is not None
    assert before.first_half is not None
    assert now.first_half is not None
    return not lags(before.first_half, now.first_half, _asked(prompts)[half])


def _asked(prompts: PromptSet) -> torch.Tensor:
    return torch.tensor([JOINT if prompt.source is None else prompt.source for prompt in prompts.prompts])
