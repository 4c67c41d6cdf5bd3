"""Trigger words: those that a file's metadata state, or, with caution, those that its training captions or its model card give away.

A guess is made only where a trainer is known to leave the word:

- sd-scripts (``train_network.py``; ``set_tag_frequency`` of ``library/train_util.py``) counts in ``ss_tag_frequency`` how many captions of
  each training folder hold each tag, in lower case, and writes the number of pictures of each folder to ``ss_dataset_dirs``. Folders are
  named ``REPEATS_WORDS``, such as ``10_ohwx woman``; the words are the caption of every picture that has none, and are ``class_tokens`` in
  ``ss_datasets``. Folders of regularisation pictures are in ``ss_reg_dataset_dirs``, or ``is_reg`` in ``ss_datasets``.
- ai-toolkit (``update_training_metadata``) writes its trigger word as ``ss_tag_frequency`` = ``{"1_WORD": {"WORD": 1}}``.
- diffusers' DreamBooth scripts write ``instance_prompt`` to the front matter of the README.md beside ``pytorch_lora_weights.safetensors``.

OneTrainer writes no trigger (``ModelSpec.py``, ``DtypeModelSaverMixin.py``), and sd-scripts' ``ss_training_comment`` is free text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optimizer.adapters.files.common_words import COMMON_WORDS
from optimizer.adapters.files.metadata_keys import TRIGGER, metadata_value
from optimizer.text import visible_line

LONGEST = 80
"""Maximum number of characters of a guessed trigger."""

_NEARLY_ALL = 0.95  # share of the captions that hold a trigger
_FEWEST = 4  # pictures of a folder without which a tag in all captions tells nothing
_MOST_WORDS, _MOST = 4, 20  # words of a tag that may be a trigger, and tags of a folder that are compared with those of others
_FOLDER = re.compile(r"\s*\d+_(.+)", re.DOTALL)
_CARD, _CARD_BYTES, _DIFFUSERS_FILE = "README.md", 1 << 16, "pytorch_lora_weights.safetensors"
_PHOTO_OF = re.compile(r"(?:an? |the )?(?:photo|picture|image|photograph|painting|drawing) of ", re.IGNORECASE)


@dataclass(frozen=True)
class Trigger:
    """Trigger of a source.

    Attributes:
        text: trigger words; empty if none are known.
        origin: where a guess comes from, as words for messages; empty for a trigger that the metadata state.
    """

    text: str
    origin: str = ""


def find_trigger(metadata: Mapping[str, str], file: Path | None = None) -> Trigger:
    """Returns the trigger that the metadata state, else a guess from the training captions or the model card, else an empty one.

    A guess is printable text of at most ``LONGEST`` characters, with brackets escaped, which mean emphasis in a prompt.

    Args:
        metadata: metadata strings of the file header (untrusted).
        file: location of the file; None to leave out the model card beside it.
    """
    if stated := metadata_value(metadata, TRIGGER):
        return Trigger(stated)
    if caught := _usable(_from_captions(metadata)):
        return Trigger(caught, "the training captions")
    if file is not None and (carded := _usable(_from_card(file))):
        return Trigger(carded, "the model card")
    return Trigger("")


@dataclass(frozen=True)
class _Folder:
    """One folder of training pictures: its words, its number of pictures, or 0 if it is not known, and its tags with their counts."""

    words: str
    pictures: int
    tags: Mapping[str, int]

    @property
    def candidates(self) -> list[str]:
        """Rare words that nearly all captions of the folder hold, the most reliable first."""
        if not self.tags:
            return [self.words] if _is_rare(self.words) else []
        if [tag.lower() for tag in self.tags] == [self.words.lower()]:  # the folder's words are the only caption
            return [self.words] if _is_rare(self.words) else []
        if not self.pictures:
            return []
        needed = _NEARLY_ALL * self.pictures
        named = [words for words in (self.words, *self.words.split(" ")[:1]) if _is_rare(words) and self._captions_with(words) >= needed]
        short = [tag for tag in self.tags if len(tag.split()) <= _MOST_WORDS] if self.pictures >= _FEWEST else []
        tags = [tag for tag in short if self.tags[tag] >= needed and _is_rare(tag)][:_MOST]
        first = next(iter(self.tags))  # captions begin with the trigger, if they hold one, so that it is not shuffled
        return named or (tags if len(tags) == 1 or tags[:1] == [first] else [])

    def _captions_with(self, words: str) -> int:
        """Returns how many tags hold these words; a caption holds them in one tag."""
        held = re.compile(rf"(?<!\w){re.escape(words.lower())}(?!\w)")
        return sum(count for tag, count in self.tags.items() if held.search(tag))


def _from_captions(metadata: Mapping[str, str]) -> str:
    """Returns the trigger that the captions of every training folder hold; empty if there is none, or if folders differ."""
    folders = list(_folders(metadata))
    if not folders:
        return ""
    first, *others = (folder.candidates for folder in folders)
    return next((word for word in first if all(word.lower() in map(str.lower, each) for each in others)), "")


def _folders(metadata: Mapping[str, str]) -> Iterator[_Folder]:
    """Yields the folders of training pictures, without those of regularisation pictures."""
    tags, pictures = _table(metadata, "ss_tag_frequency"), _table(metadata, "ss_dataset_dirs")
    subsets = [subset for dataset in _list(metadata, "ss_datasets") for subset in _dicts(_dict(dataset).get("subsets"))]
    regular = {*_table(metadata, "ss_reg_dataset_dirs"), *(str(s.get("image_dir")) for s in subsets if s.get("is_reg") is True)}
    tokens = {str(s.get("image_dir")): s["class_tokens"] for s in subsets if isinstance(s.get("class_tokens"), str)}
    for name in dict.fromkeys([*tags, *pictures]):
        if name in regular or (tags and name not in tags):
            continue
        found = _FOLDER.fullmatch(name)
        words: str = tokens.get(name) or (found[1] if found else "")
        counts = {str(tag).strip(): count for tag, count in _dict(tags.get(name)).items() if type(count) is int and str(tag).strip()}
        number = _dict(pictures.get(name)).get("img_count")
        yield _Folder(words.strip(), number if type(number) is int else 0, counts)


def _from_card(file: Path) -> str:
    """Returns the instance prompt of diffusers' model card beside the file, without ``a photo of``; empty if there is none."""
    if file.name != _DIFFUSERS_FILE:
        return ""
    try:
        with (file.parent / _CARD).open("rb") as card:
            text = card.read(_CARD_BYTES).decode("utf-8", errors="replace")
        front = yaml.safe_load(text.split("---", 2)[1]) if text.lstrip().startswith("---") else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError, IndexError):  # PyYAML raises ValueError for an impossible date
        return ""
    prompt = _dict(front).get("instance_prompt")
    if not isinstance(prompt, str) or prompt.strip().lower() == "none":
        return ""
    return _PHOTO_OF.sub("", prompt.strip(), count=1)


def _usable(text: str) -> str:
    """Returns the text as it may stand in prompts and messages; empty if it is too long for a trigger."""
    shown = visible_line(text[: 4 * LONGEST])
    return "" if len(shown) > LONGEST or len(text) > 4 * LONGEST else re.sub(r"([()\[\]])", r"\\\1", shown)


def _is_rare(words: str) -> bool:
    """Returns whether at least one of the words is none that captions in general hold."""
    return any(word not in COMMON_WORDS and not word.isdigit() for word in re.findall(r"\w+", words.lower()))


def _table(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    return _dict(_json(metadata, key))


def _list(metadata: Mapping[str, str], key: str) -> list[Any]:
    found = _json(metadata, key)
    return found if isinstance(found, list) else []


def _json(metadata: Mapping[str, str], key: str) -> Any:
    """Returns a value that is stored as JSON text; None if there is none, or if it is no JSON."""
    try:
        return json.loads(metadata[key]) if metadata.get(key) else None
    except (ValueError, RecursionError):
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
