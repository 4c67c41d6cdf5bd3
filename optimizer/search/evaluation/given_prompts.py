"""Given prompts: what a prompt file says, applied to the sources of a run, and checked against them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from optimizer.errors import UsageError
from optimizer.rendering.prompts import Subject
from optimizer.search.evaluation.prompt_file import PromptFile
from optimizer.search.sources.source import Source

AnySource = TypeVar("AnySource", bound=Source)

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_TRIGGER = "trigger"
"""Placeholder for the trigger of the source that a prompt asks for."""


def with_given_prompts(
    sources: Sequence[AnySource], file: PromptFile, path: Path, *, roles: bool = True, triggers: bool = True
) -> list[AnySource]:
    """Returns the sources with the roles, triggers and prompts of a prompt file, with placeholders filled in.

    Args:
        sources: sources of the run.
        file: content of the prompt file.
        path: location of the prompt file, for messages.
        roles: whether its roles count; False if the command line gives some, which win.
        triggers: whether its triggers count; False if the command line gives some, which win.

    Raises:
        UsageError: the file names a source that is none of the run's, or a placeholder cannot be filled in.
    """
    names = [source.name for source in sources]
    for name in file.sources or ():
        if name not in names:
            raise UsageError(f"sources.{name}: there is no such source", where=path, remedy=f"name one of {', '.join(names)}")
    subjects = [_named(source.subject, file, roles=roles, triggers=triggers) for source in sources]
    known = {subject.name: subject.trigger for subject in subjects}
    filled = []
    for source, subject in zip(sources, subjects, strict=True):
        given = file.of(subject.name).prompts or ()
        own = known | {_TRIGGER: subject.trigger}
        prompts = tuple(_filled(text, own, f"sources.{subject.name}.prompts[{i}]", path) for i, text in enumerate(given))
        stated = source.role_stated or (roles and file.of(subject.name).role is not None)
        filled.append(replace(source, subject=replace(subject, prompts=prompts), role_stated=stated))
    return filled


def given_joint_prompts(file: PromptFile, subjects: Sequence[Subject], path: Path) -> tuple[str, ...]:
    """Returns the joint prompts of a prompt file with placeholders filled in; empty if it has none.

    Raises:
        UsageError: a placeholder cannot be filled in.
    """
    known = {subject.name: subject.trigger for subject in subjects}
    return tuple(_filled(text, known, f"joint[{i}]", path) for i, text in enumerate(file.joint or ()))


def prompt_warnings(joint: Sequence[str], subjects: Sequence[Subject], path: Path) -> Iterator[str]:
    """Yields a warning for every given prompt that lacks a trigger, one line each.

    Args:
        joint: joint prompts that the file gives, with placeholders filled in.
        subjects: subjects of the sources, with the prompts that the file gives.
        path: location of the prompt file.
    """
    for subject in subjects:
        for i, text in enumerate(subject.prompts):
            if lacking := _lacking(text, [subject]):
                place = f"{path}: sources.{subject.name}.prompts[{i}]"
                yield f"{place} lacks {lacking}, so it does not ask for the source: write {{{_TRIGGER}}}"
    for i, text in enumerate(joint):
        if lacking := _lacking(text, subjects):
            missing = " ".join(f"{{{s.name}}}" for s in subjects if _lacking(text, [s]))
            yield f"{path}: joint[{i}] lacks {lacking}, so it does not ask for all sources: write {missing}"


def _named(subject: Subject, file: PromptFile, *, roles: bool, triggers: bool) -> Subject:
    said = file.of(subject.name)
    role = said.role if roles and said.role is not None else subject.role
    trigger = said.trigger if triggers and said.trigger is not None else subject.trigger
    return replace(subject, role=role, trigger=trigger)


def _filled(text: str, triggers: dict[str, str], place: str, path: Path) -> str:
    """Returns the prompt with the trigger in place of each placeholder."""

    def trigger(found: re.Match[str]) -> str:
        name = found[1]
        if name not in triggers:
            known = ", ".join(f"{{{each}}}" for each in triggers)
            raise UsageError(f"{place}: there is nothing to put in place of {found[0]}", where=path, remedy=f"use one of {known}")
        if not triggers[name]:
            remedy = f"leave {found[0]} out, or give a trigger, in the file (trigger:) or with --triggers"
            raise UsageError(f"{place}: {found[0]} stands for a trigger, and the source has none", where=path, remedy=remedy)
        return triggers[name]

    return _PLACEHOLDER.sub(trigger, text)


def _lacking(text: str, subjects: Sequence[Subject]) -> str:
    """Returns which triggers a prompt lacks, as words; empty if it has all of them. Upper and lower case are alike, as for CLIP."""
    shown = text.casefold()
    lacking = [s for s in subjects if any(part.strip().casefold() not in shown for part in s.trigger.split(","))]
    return " and ".join(f"the trigger {s.trigger!r} of {s.name}" for s in lacking)
