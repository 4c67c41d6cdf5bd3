"""The merge methods that a search tries."""

from __future__ import annotations

from collections.abc import Container, Sequence

from optimizer.errors import UsageError
from optimizer.merging import METHODS
from optimizer.merging.methods import AVAILABLE, LIVE, Need, check_needs
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import OPTIONS, Config

# Solving a merge by training takes as long as some twenty to fifty trials, several times as long as a search with a smaller budget.
_SOLVED_FROM = 20


def available_needs(config: Config) -> frozenset[Need]:
    """Returns the inputs of methods that a run has: those of the base model need a base that is drawn with, and not compiled."""
    inputs = config.inputs
    live = not inputs.whole and not is_fake(inputs.drawing_base) and not config.loading.compile
    return LIVE if live else AVAILABLE


def searched_methods(config: Config, budget: int) -> tuple[str, ...]:
    """Returns the methods that a search with this budget tries besides the weighted sum.

    From the default list, methods are left out that are solved on the base model, if the run has none or its budget is small. A list that
    the user gives is tried as it is.
    """
    methods = config.search.methods
    if methods != OPTIONS["methods"].default:
        return methods
    needs = available_needs(config) if budget >= _SOLVED_FROM else AVAILABLE
    return tuple(method for method in methods if METHODS[method].needs in needs)


def check_methods(config: Config) -> None:
    """Checks the methods that a run is to try, before anything is loaded.

    Raises:
        UsageError: see ``known_methods``; a method of the default list that the run cannot use is left out instead.
    """
    known_methods(searched_methods(config, config.search.budget), len(config.inputs.sources), available_needs(config))


def known_methods(methods: Sequence[str], count: int, available: Container[Need] = AVAILABLE) -> Sequence[str]:
    """Returns the methods, if all exist, have the inputs that they need, and can merge this many sources.

    Args:
        methods: names of methods.
        count: number of sources.
        available: inputs that the run has.

    Raises:
        UsageError: a method does not exist, needs a given calibration or another input that is not available, or cannot merge this many
            sources.
    """
    usable = [m for m in METHODS.values() if m.needs in available and (m.solved or not m.calibrated)]
    fitting = [m.name for m in usable if count <= (m.most or count)]
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"there is no merge method {method!r}", where="--methods", remedy=f"choose from {', '.join(fitting)}")
        check_needs(METHODS[method], where="--methods", available=available)
        if METHODS[method].calibrated and not METHODS[method].solved:
            problem = f"the method {method!r} applies a router that was solved before, and a search has none"
            raise UsageError(problem, where="--methods", remedy=f"choose from {', '.join(fitting)}")
        if method not in fitting:
            problem = f"the method {method!r} merges at most {METHODS[method].most} sources (got {count})"
            raise UsageError(problem, where="--methods", remedy=f"choose from {', '.join(fitting)}")
    return methods
