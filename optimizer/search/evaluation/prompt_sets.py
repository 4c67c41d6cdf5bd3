"""The prompt sets of a run and the vocabulary that they are composed from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optimizer.errors import UsageError
from optimizer.rendering import GENERAL, PromptSet, Vocabulary, compose
from optimizer.search.config import Config
from optimizer.search.sources.source import Source
from optimizer.text import one_line
from studies.demo.world import demo_words

_CONFIRMATION = 1_000_003


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid")

    subjects: tuple[str, ...] = Field(min_length=1)
    settings: tuple[str, ...] = Field(min_length=1)
    wide_settings: tuple[str, ...] = ()


def vocabulary(config: Config) -> Vocabulary:
    """Returns the user's vocabulary, the demo's, or the general one. Raises the exceptions of ``read_words``."""
    if config.protocol.prompts:
        return read_words(Path(config.protocol.prompts))
    return GENERAL if config.inputs.drawn_with else read_words(demo_words())


def read_words(path: Path) -> Vocabulary:
    """Returns the vocabulary in a YAML file.

    Raises:
        UsageError: the file cannot be read or lacks a list.
    """
    try:
        words = _Words.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        remedy = "give a YAML file with the lists subjects and settings, and wide_settings if you like"
        raise UsageError(f"the words cannot be read: {one_line(error)}", where=path, remedy=remedy) from error
    return Vocabulary(words.subjects, words.settings, words.wide_settings)


def search_prompts(config: Config, sources: Sequence[Source]) -> PromptSet:
    """Returns the prompts that every candidate is rendered on during the search."""
    own, joint, seed = config.protocol.own, config.joint_prompts, config.search.seed
    return compose([s.subject for s in sources], vocabulary(config), own=own, joint=joint, seed=seed)


def confirmation_prompts(config: Config, sources: Sequence[Source]) -> PromptSet:
    """Returns the confirmation prompts, with seeds and, as far as the vocabulary allows, texts that the search does not use.

    Joint prompts are included only if the search has some.
    """
    subjects, joint = [s.subject for s in sources], config.protocol.confirm if config.joint_prompts else 0
    return compose(
        subjects,
        vocabulary(config),
        own=config.protocol.confirm,
        joint=joint,
        seed=config.search.seed + _CONFIRMATION,
        seen=search_prompts(config, sources),
    )
