"""The soup of a study: the mean of its best weighted sums, scored as the study's trials are, and compared on fresh prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import StudyError, UsageError
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import MergePlan, output_path
from optimizer.merging import Recipe, Soup, common_base, greedy_soup, is_weighted_sum
from optimizer.search.config import Config
from optimizer.search.config.values import option_name
from optimizer.search.evaluation.comparison import Confirmation
from optimizer.search.evaluation.confirmation import confirm
from optimizer.search.evaluation.identifiable import left_out_of
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import NAIVE, STACK, is_alone
from optimizer.search.observer import Observer
from optimizer.search.sources.loras import LoraSource
from optimizer.search.study_errors import study_errors
from optimizer.search.trials.open import open_store_of
from studies import StudyDirectory, load_summary
from studies.records import Evaluation, TrialRecord

SOUP = "soup"
"""Name of the method in the command, and of the soup among the merges that it is compared with."""

_MOST = 8  # merges that are tried: each costs the pictures of one trial
_ALLOWED = ("method", "out", "dialect", "device", "force")


@dataclass(frozen=True)
class StudySoup:
    """The soup of a study, before it is written.

    Attributes:
        plan: merge that the soup is, ready for ``written``.
        soup: soup with its scores on the search's prompts.
        trials: names of the merges that were tried, best first; ``soup.chosen`` are indices into them.
        confirmation: soup, best trial, stack and naive merge on prompts that neither search nor soup were chosen on.
    """

    plan: MergePlan
    soup: Soup
    trials: tuple[str, ...]
    confirmation: Confirmation


def study_soup(folder: Path, options: MergeOptions, observer: Observer) -> StudySoup:
    """Averages the best weighted sums of a study greedily, and compares the result with the best trial and the baselines.

    The trials are tried best first; each is kept if the mean with it does not score lower on the search's prompts. Every mean is
    rendered and scored as a trial is, with the study's base, sources and prompts. Nothing in the study is changed.

    Args:
        folder: directory of a study of LoRAs.
        options: where and how to write the soup, and the device; everything else comes from the study.
        observer: receives the progress; may raise ``Stopped``.

    Raises:
        UsageError: an option is one that the study decides, or a source or the base cannot be used.
        StudyError: the directory holds no study of LoRAs with two or more weighted sums.
    """
    config = _config(folder, options)
    records = _records(folder)
    tried = _weighted_sums(records, folder)
    session = prepare(config, observer)
    sources = [source for source in session.sources if isinstance(source, LoraSource)]
    routers = session.routers(open_store_of(config.places, StudyDirectory(folder)), observer)
    evaluator = session.evaluator(search_prompts(config, sources), observer, routers)
    evaluator.left_out = left_out_of(records, [source.name for source in sources])
    observer.stage(SOUP, len(tried) + 1 + len(sources))
    found: dict[str, Evaluation] = {}

    def score(recipe: Recipe) -> float:
        found[recipe.hash] = evaluator.evaluate(recipe).evaluation
        return found[recipe.hash].score

    soup = greedy_soup([_recipe(record) for record in tried], score, common_base([s.adapter for s in sources]))
    made = TrialRecord(number=-1, label=SOUP, evaluation=found[soup.recipe.hash])
    best = max(records, key=lambda record: record.evaluation.score if record.evaluation and not is_alone(record.label) else -1.0)
    compared = [made, best, *(r for r in records if r.label in (STACK, NAIVE) and r is not best)]
    unseen = session.evaluator(confirmation_prompts(config, sources), observer, routers, final=True)
    unseen.left_out = evaluator.left_out
    plan = MergePlan(
        sources=tuple(sources),
        specs=config.inputs.sources,
        recipe=soup.recipe,
        dialect=options.dialect or config.output.dialect,
        path=output_path(options, [s.name for s in sources], soup.recipe),
        warnings=(),
        drawn_with=session.drawn_with,
    )
    confirmation = confirm(compared, unseen, count=2, seed=config.search.seed, observer=observer)
    return StudySoup(plan, soup, tuple(record.label or f"trial {record.number}" for record in tried), confirmation)


def _config(folder: Path, options: MergeOptions) -> Config:
    for name, field in MergeOptions.model_fields.items():
        if name not in _ALLOWED and getattr(options, name) != field.default:
            raise UsageError("the study decides it", where=option_name(name), remedy=f"leave it out, with --method {SOUP}")
    study = StudyDirectory(folder)
    if not study.is_study:
        raise StudyError("this is not a study, it holds no study.yaml", where=folder, remedy="name the directory of a finished study")
    config = Config.from_yaml(study.settings)
    if config.protocol.metric:
        problem = "the study measures with metrics of its own, which a soup is not measured with"
        raise StudyError(problem, where=folder, remedy="name a study without --metric")
    if config.protocol.keep:
        problem = "the study has targets, which a soup is not held to"
        raise StudyError(problem, where=folder, remedy="name a study without --keep")
    if config.inputs.whole:
        raise StudyError("a soup is made of merges of LoRAs, the study is of full models", where=folder, remedy="name a study of LoRAs")
    return config.replaced(out=folder, **({} if options.device == "auto" else {"device": options.device}))


def _records(folder: Path) -> Sequence[TrialRecord]:
    with study_errors():
        return load_summary(folder).trials


def _weighted_sums(records: Sequence[TrialRecord], folder: Path) -> list[TrialRecord]:
    """Returns the best distinct weighted sums, by descending score, without those of one source alone."""
    merges = [r for r in records if r.evaluation and r.evaluation.score > 0 and not is_alone(r.label) and is_weighted_sum(_recipe(r))]
    distinct = {r.evaluation.recipe_hash: r for r in reversed(merges) if r.evaluation}
    ranked = sorted(distinct.values(), key=lambda r: (-r.evaluation.score if r.evaluation else 0.0, r.number))[:_MOST]
    if len(ranked) < 2:
        problem = f"a soup needs two or more trials that are weighted sums with a score above 0; the study has {len(ranked)}"
        raise StudyError(problem, where=folder, remedy="resume the study with a larger --budget")
    return ranked


def _recipe(record: TrialRecord) -> Recipe:
    assert record.evaluation is not None
    return Recipe.from_data(record.evaluation.recipe)
