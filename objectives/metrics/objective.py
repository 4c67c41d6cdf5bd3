"""A metric that the user brings, as an objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from objectives.errors import MetricError
from objectives.metrics.references import References
from objectives.metrics.rule import Constraint, Rule, Term
from objectives.metrics.scale import Scale, quality
from objectives.objective import Baselines, Objective, Outcome, Pictures, weighted_mean

_Found = TypeVar("_Found")


class MetricCall(Protocol):
    """Computes a metric of pictures."""

    def prepare(self, references: References) -> object:
        """Returns what can be computed of the references once, for all candidates."""

    def __call__(self, images: Tensor, prompts: Sequence[str], references: References, prepared: object) -> Tensor:
        """Returns one value for each picture, float64, (n,), or one for all, ().

        Args:
            images: pictures of a candidate, uint8, (n, 3, height, width), on the CPU.
            prompts: text of each prompt.
            references: pictures of base and sources, for the same prompts and noise.
            prepared: what ``prepare`` has returned for these references.
        """


@dataclass(frozen=True)
class MetricIdentity:
    """What identifies a metric in the key of an evaluation.

    Attributes:
        target: where it is, ``MODULE:NAME``.
        version: version of the package, or SHA-256 of the file.
    """

    target: str
    version: str


@dataclass(frozen=True)
class MetricReference:
    """What candidates are compared with.

    Attributes:
        prompts: text of each prompt.
        references: pictures of base and sources.
        prepared: what the metric has computed of the references.
        sources: mean of the metric over the sources alone; 0 if it is not needed.
    """

    prompts: tuple[str, ...]
    references: References
    prepared: object
    sources: float


class MetricObjective(Objective[MetricReference, Tensor]):
    """A metric with a rule: a column, a term of the score or a constraint. The outcome has the value ``value``.

    Args:
        name: name of the metric in records.
        call: computes the metric.
        rule: what its value does in the search.
        scale: direction and bounds.
        identity: what identifies it in the key of an evaluation.

    Raises:
        MetricError: it is to be a term, and whether higher is better is not known.

    Example:
        >>> from objectives.metrics.function import FunctionCall
        >>> def brightness(pictures, prompts, references):  # in [0, 1], one value a picture
        ...     return pictures.double().mean(dim=(1, 2, 3)) / 255
        >>> here = MetricIdentity("my_metrics:brightness", "")
        >>> metric = MetricObjective("light", FunctionCall(brightness), Term(2.0), Scale(True), here)
        >>> dim, bright = (Pictures(torch.full((2, 3, 8, 8), value, dtype=torch.uint8)) for value in (51, 102))
        >>> reference = metric.reference(Baselines(dim, (bright, bright), torch.tensor([0, 1]), torch.tensor([0, 1])))
        >>> outcome = metric.compare(metric.measure(dim, reference), reference)
        >>> round(float(outcome.values["value"]), 3), round(float(outcome.factor), 3)  # (0.2 / 0.4)²
        (0.2, 0.25)
    """

    name: str  # type: ignore[misc]  # one class serves many metrics
    version = 1

    def __init__(self, name: str, call: MetricCall, rule: Rule, scale: Scale, identity: MetricIdentity) -> None:
        self.name, self.call, self.rule, self.scale, self.identity = name, call, rule, scale, identity
        if isinstance(rule, Term) and scale.higher_is_better is None:
            remedy = "make it a constraint (:>=X or :<=X), or set the attribute higher_is_better on it"
            raise MetricError(f"{name}: whether more of it is better is not known, so that it cannot be a term of the score", remedy)

    def described(self) -> dict[str, str | int]:
        """Returns what the values and their effect on the search depend on, JSON-serializable."""
        return {"target": self.identity.target, "version": self.identity.version, "rule": repr(self.rule or ""), "calls": self.version}

    def reference(self, baselines: Baselines) -> MetricReference:
        """Returns the pictures of base and sources, and, for a term without bounds, the mean of the metric over the sources alone."""
        references = References.of(baselines)
        prepared = self._checked(lambda: self.call.prepare(references))
        found = MetricReference(baselines.prompts or ("",) * len(baselines.asked), references, prepared, 0.0)
        if not isinstance(self.rule, Term) or self.scale.bounded:
            return found
        each = [float(self.measure(pictures, found).mean()) for pictures in baselines.alone]
        return MetricReference(found.prompts, references, prepared, sum(each) / len(each))

    def measure(self, pictures: Pictures, reference: MetricReference) -> Tensor:
        """Returns the value of each picture, float64, (n,), or of all together, ().

        Raises:
            MetricError: the metric fails, or a value is not finite.
        """
        images = pictures.images.cpu()
        values = self._checked(lambda: self.call(images, reference.prompts, reference.references, reference.prepared))
        if not bool(values.isfinite().all()):
            bad = values.flatten()[~values.flatten().isfinite()]
            raise MetricError(
                f"the metric {self.name} is {float(bad[0])} for {len(bad)} of {values.numel()} values", "look at the pictures"
            )
        return values

    def compare(self, measurement: Tensor, reference: MetricReference, counts: Tensor | None = None) -> Outcome:
        """Returns the value, and what follows from it by the rule, float64, each (...)."""
        value = weighted_mean(measurement, counts) if measurement.ndim else measurement
        factor = quality(value, self.scale, reference.sources) ** self.rule.weight if isinstance(self.rule, Term) else None
        excess = self.rule.excess(value) if isinstance(self.rule, Constraint) else None
        return Outcome(factor=factor, excess=excess, values={"value": value})

    def _checked(self, compute: Callable[[], _Found]) -> _Found:
        """Calls a function without showing its warnings, and names the metric in the error if it fails."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return compute()
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except MetricError as error:
            raise MetricError(f"the metric {self.name} {error.problem}", error.remedy) from error
        except Exception as error:  # whatever the code of a user raises
            raise MetricError(f"the metric {self.name} fails: {type(error).__name__}: {error}".rstrip(": ")) from error
