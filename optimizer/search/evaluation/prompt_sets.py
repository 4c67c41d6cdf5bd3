"""The prompt sets of a run and the vocabulary that they are composed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optimizer.rendering import GENERAL, Prompt, PromptSet, Subject, Vocabulary, compose, without_triggers
from optimizer.search.config import Config
from optimizer.search.evaluation.given_prompts import given_joint_prompts, prompt_warnings
from optimizer.search.evaluation.prompt_file import read_prompt_file, read_words
from optimizer.search.sources.source import Source
from studies.demo.world import demo_words

_CONFIRMATION, _WITHOUT_TRIGGERS = 1_000_003, 3_000_017


def vocabulary(path: str, subjects: Sequence[Subject], *, demo: bool) -> Vocabulary:
    """Returns the words and the joint prompts of a prompt file; words that it lacks are the demo world's or the general ones.

    Args:
        path: location of the prompt file; empty if there is none.
        subjects: subjects of the sources, whose triggers take the place of placeholders.
        demo: whether the base is the demo world's.

    Raises:
        UsageError: the file cannot be used.
    """
    usual = read_words(demo_words()) if demo else GENERAL
    if not path:
        return usual
    file = read_prompt_file(Path(path))
    return replace(file.words or usual, joint=given_joint_prompts(file, subjects, Path(path)))


def words_of(config: Config, sources: Sequence[Source]) -> Vocabulary:
    """Returns the vocabulary of a run. Raises the exceptions of ``vocabulary``."""
    return vocabulary(config.protocol.prompts, [s.subject for s in sources], demo=config.inputs.demo)


def search_prompts(config: Config, sources: Sequence[Source]) -> PromptSet:
    """Returns the prompts that every candidate is rendered on during the search."""
    own, joint, seed = config.protocol.own, config.joint_prompts, config.search.seed
    return compose([s.subject for s in sources], words_of(config, sources), own=own, joint=joint, seed=seed)


def confirmation_prompts(config: Config, sources: Sequence[Source]) -> PromptSet:
    """Returns the confirmation prompts, with seeds and, as far as the vocabulary allows, texts that the search does not use.

    Joint prompts are included only if the search has some.
    """
    subjects, joint = [s.subject for s in sources], config.protocol.confirm if config.joint_prompts else 0
    return compose(
        subjects,
        words_of(config, sources),
        own=config.protocol.confirm,
        joint=joint,
        seed=config.search.seed + _CONFIRMATION,
        seen=search_prompts(config, sources),
    )


def drift_prompts(config: Config, sources: Sequence[Source]) -> tuple[Prompt, ...]:
    """Returns prompts without a trigger, as many as the confirmation has of each kind, with seeds that nothing else uses."""
    return without_triggers(words_of(config, sources), config.protocol.confirm, config.search.seed + _WITHOUT_TRIGGERS)


def warnings_about_prompts(path: str, sources: Sequence[Source]) -> list[str]:
    """Returns a warning for every prompt of a prompt file that lacks a trigger, one line each.

    Args:
        path: location of the prompt file; empty if there is none.
        sources: sources, with what the file says about them.
    """
    if not path:
        return []
    subjects = [s.subject for s in sources]
    return list(prompt_warnings(given_joint_prompts(read_prompt_file(Path(path)), subjects, Path(path)), subjects, Path(path)))


def notes_on_prompts(config: Config, sources: Sequence[Source]) -> list[str]:
    """Returns notes for the user about the prompts of a run: words that the prompt file lacks, and texts that recur."""
    notes = []
    if config.protocol.prompts and (composed := _composed(config, sources)):
        path = Path(config.protocol.prompts)
        if read_prompt_file(path).words is None:
            notes.append(f"{path} has no words: {' and '.join(composed)} are composed of the usual ones")
    if recurring := _recurring(search_prompts(config, sources), confirmation_prompts(config, sources), [s.name for s in sources]):
        notes.append(
            f"there are fewer texts than pictures for {', '.join(recurring)}: texts recur with other noise, in the confirmation too; "
            "--prompts can give more"
        )
    return notes


def _composed(config: Config, sources: Sequence[Source]) -> list[str]:
    """Returns the kinds of prompts that are composed of words."""
    found = [f"the prompts of {s.name}" for s in sources if not s.subject.prompts]
    return found + ["joint prompts"] * bool(config.joint_prompts and not words_of(config, sources).joint)


def _recurring(seen: PromptSet, unseen: PromptSet, names: Sequence[str]) -> list[str]:
    """Returns the kinds of prompts whose texts recur within or between the two sets, with the numbers of texts and of prompts."""
    found = []
    for source in (*range(len(names)), None):
        texts = [prompts.prompts[i].text for prompts in (seen, unseen) for i in prompts.indices(source)]
        if len(set(texts)) < len(texts):
            kind = "joint prompts" if source is None else f"prompts of {names[source]}"
            found.append(f"{kind} ({len(set(texts))} for {len(texts)})")
    return found
