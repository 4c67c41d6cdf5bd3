"""Checks of a configuration that concern several options, before anything is loaded."""

from __future__ import annotations

from optimizer.errors import UsageError
from optimizer.search.config.accelerators import parse_accelerators
from optimizer.search.config.aims import parse_priorities, parse_targets
from optimizer.search.config.config import OPTIONS, Config
from optimizer.search.config.inputs import check_count, check_eval_base, check_files, check_lists
from optimizer.search.config.metric import parse_metrics
from optimizer.search.config.option import option_of
from optimizer.search.config.places import check_shared
from optimizer.search.config.search import check_blocks, check_grid
from optimizer.search.config.values import DEMO, FAKE, option_name
from optimizer.search.config.weights import parse_frozen, parse_ranges


def checked(config: Config) -> Config:
    """Returns the configuration after checking its values for consistency.

    Raises:
        UsageError: a value is invalid; the message names the option, its value and the remedy.
    """
    inputs, budget = config.inputs, config.search.budget
    if budget <= 0:
        raise UsageError(f"the budget is {budget}", where="--budget", remedy="give the number of recipes to try, 1 or more")
    check_count(len(inputs.sources), force=inputs.force)
    check_shared(config.places)
    check_lists(inputs)
    parse_metrics(config.protocol.metric)
    parse_priorities(config.protocol.priority)
    parse_targets(config.protocol.keep)
    parse_accelerators(inputs.with_)
    check_eval_base(inputs.base, inputs.eval_base)
    parse_ranges(config.search.weights)
    parse_frozen(config.search.freeze)
    check_blocks(config.search.blocks)
    check_grid(config.search.grid)
    if inputs.base.startswith(FAKE):
        from optimizer.rendering.fake_spec import FakeSpec  # imported here because it imports numpy, which the help text does not need

        for base in filter(None, (inputs.base, inputs.eval_base)):
            FakeSpec.of(base)
    if inputs.whole:
        _check_for_models(config)
    else:
        check_files(inputs)
    return config


def _check_for_models(config: Config) -> None:
    """Refuses options that full models cannot be given."""
    inputs, given = config.inputs, config.options()
    for source in (*inputs.sources, inputs.base):
        if source.startswith((DEMO, FAKE)):
            raise UsageError("is no full model", where=source, remedy="give diffusers folders or .safetensors checkpoints")
    for name, declared in OPTIONS.items():
        reason = option_of(declared).not_for_models
        if reason and given[name] != declared.default:
            raise UsageError(reason, where=option_name(name), remedy="leave it out, or leave --kind model out")
    if config.loading.apply == "branch":
        raise UsageError("other weights altogether cannot go into a branch", where="--apply branch", remedy="leave it out")
    if inputs.interpolates and config.search.methods != OPTIONS["methods"].default:
        remedy = "name the model that the sources were trained from with --base, or leave --methods out"
        raise UsageError("they merge the changes of a base", where="--methods", remedy=remedy)
