"""Aims: what the user wants of a merge, by source. They decide what measurements are worth, and no picture depends on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from objectives import balance
from optimizer.search.config.aims import KEEP, PRIORITY, parse_priorities, parse_targets
from optimizer.search.config.named import by_source
from optimizer.search.config.protocol import Protocol
from studies.records import KEEPS, Evaluation

PRIORITIES, TARGETS = "priorities", "targets"
"""Names of the aims in the key of an evaluation, and among the inputs of a study."""


@dataclass(frozen=True)
class Aims:
    """Priorities and targets of the sources.

    Attributes:
        priorities: source → priority, for all sources in order; empty if all priorities are equal.
        targets: source → smallest share that a merge may keep of it, in (0, 1].
    """

    priorities: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, protocol: Protocol, names: Sequence[str]) -> Aims:
        """Returns the aims of a configuration.

        Args:
            protocol: settings with the texts of ``--priority`` and ``--keep``.
            names: names of the sources, in order.

        Raises:
            UsageError: a text is invalid, or names no source.
        """
        given = by_source(parse_priorities(protocol.priority), names, PRIORITY)
        priorities = {name: given.get(name, 1.0) for name in names}
        equal = len(set(priorities.values())) <= 1
        return cls({} if equal else priorities, by_source(parse_targets(protocol.keep), names, KEEP))

    def weights(self, names: Sequence[str]) -> tuple[float, ...]:
        """Returns the priority of each source, in the form that ``objectives.score`` takes."""
        return tuple(self.priorities[name] for name in names) if self.priorities else ()

    def described(self) -> dict[str, dict[str, float]]:
        """Returns the parts of an evaluation's key that depend on the aims; empty if there are none, so that keys without them last."""
        parts = {PRIORITIES: dict(self.priorities), TARGETS: dict(self.targets)}
        return {name: part for name, part in parts.items() if part}

    def shortfalls(self, kept: Mapping[str, float]) -> dict[str, float]:
        """Returns, by the name of the constraint, the amount by which a merge misses each target; at most 0 if it keeps enough.

        Args:
            kept: source → share that the merge keeps of it.
        """
        return {f"{KEEPS}{name}": share - kept[name] for name, share in self.targets.items()}

    def rejudged(self, evaluation: Evaluation, before: Aims) -> Evaluation:
        """Returns an evaluation as it would be with these aims; its measurements and pictures stay as they are.

        The factors of the score besides the shares are those that the score of the evaluation contains, up to rounding.

        Args:
            evaluation: evaluation of a candidate.
            before: aims that it was evaluated with.
        """
        if before == self:
            return evaluation
        kept = {name: source.preservation for name, source in evaluation.sources.items()}
        counted = [name for name, share in kept.items() if math.isfinite(share)]  # sources that cannot be measured have no share
        shares = torch.tensor([kept[name] for name in counted], dtype=torch.float64)
        was, now = (float(balance(shares, aims.weights(counted))) for aims in (before, self))
        value = evaluation.score if before.priorities == self.priorities or was == 0 else evaluation.score / was * now
        constraints = {name: excess for name, excess in evaluation.constraints.items() if not name.startswith(KEEPS)}
        return evaluation.model_copy(update={"score": value, "constraints": constraints | self.shortfalls(kept)})
