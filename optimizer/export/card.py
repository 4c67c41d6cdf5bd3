"""The model card: a README.md with description, sources, usage and scores of the exported file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from optimizer.export.drawn_with import BASE_ALONE, DrawnWith
from optimizer.text import visible_line

_ASCII_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


@dataclass(frozen=True)
class CardSource:
    """One source of the merge: name, hex SHA-256 digest, weight, role and trigger word (may be empty)."""

    name: str
    sha256: str
    weight: float
    role: str = ""
    trigger: str = ""


@dataclass(frozen=True)
class CardScore:
    """One row of the score table.

    Attributes:
        label: ``this file``, ``stack``, ``naive``, ``hero alone``, ….
        weakest: preservation of the worst-preserved source.
        preservation: source name → preservation of the source; 0 = base, 1 = that source alone; NaN for one that could not be measured.
        artifacts: image damage relative to base and sources, or None if not measured.
        interval: confidence interval of ``weakest``, or None.
    """

    label: str
    weakest: float
    preservation: Mapping[str, float] = field(default_factory=dict)
    artifacts: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def unmeasured(self) -> list[str]:
        """Names of the sources that could not be measured, and do not count."""
        return [name for name, share in self.preservation.items() if math.isnan(share)]


@dataclass(frozen=True)
class ModelCard:
    """The content of a model card; every string may come from an untrusted file.

    Attributes:
        title: heading of the card.
        file_name: name of the exported file, in the folder of the card.
        base_model: name or hub id of the base model; empty if unknown.
        family: human-readable base model family, for a card without a base model.
        method: name of the merge method.
        sources: sources, in the recipe's order.
        scores: score of this file, then those of the baselines.
        recipe: the recipe as YAML-ready data.
        prompt: example prompt that uses all sources.
        license: license of the merge; empty if unknown.
        comfyui_only: whether only ComfyUI reads the key names of the file.
        demo: whether the base model is the demo base of this package, which is not on a hub.
        aims: what the user asked for, one sentence each: priorities, targets, and metrics.
        kind: ``lora`` for a LoRA file, ``folder`` or ``file`` for a full model in a folder or a single file.
        drawn_with: what pictures were drawn with that the merge was judged by, or solved on, besides the base model.
    """

    title: str
    file_name: str
    base_model: str
    method: str
    sources: tuple[CardSource, ...]
    scores: tuple[CardScore, ...] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    prompt: str = ""
    license: str = ""
    comfyui_only: bool = False
    demo: bool = False
    family: str = ""
    kind: Literal["lora", "folder", "file"] = "lora"
    aims: tuple[str, ...] = ()
    drawn_with: DrawnWith = BASE_ALONE


def render_card(card: ModelCard) -> str:
    """Returns the card as Markdown with YAML front matter; all strings are escaped."""
    environment = Environment(
        loader=PackageLoader("optimizer.export", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "text": escape_markdown,
        "code": _code_span,
        "block": _code_block,
        "yaml": _yaml,
        "python": _python,
        "number": _number,
    }
    return environment.get_template("card.md.j2").render(card=card, front=_front_matter(card), lora=Path(card.file_name).stem)


def write_card(card: ModelCard, folder: str | Path, name: str = "README.md") -> Path:
    """Writes the card into an existing folder and returns its path."""
    path = Path(folder) / name
    path.write_text(render_card(card), encoding="utf-8")
    return path


def escape_markdown(text: str) -> str:
    """Returns the text on one line with all Markdown characters escaped: no links, HTML, emphasis or table cells."""
    return _ASCII_PUNCTUATION.sub(r"\\\1", visible_line(text))


def _front_matter(card: ModelCard) -> dict[str, object]:
    triggers = [source.trigger for source in card.sources if source.trigger]
    fields: dict[str, object] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": visible_line(card.base_model),
        "tags": ["text-to-image", "lora", "template:sd-lora"] if card.kind == "lora" else ["text-to-image", "merge"],
        "instance_prompt": visible_line(card.prompt or ", ".join(triggers)),
        "license": visible_line(card.license),
    }
    return {key: value for key, value in fields.items() if value}


def _code_span(text: str) -> str:
    """Returns the text as a code span whose fence is longer than any backticks in it; ``|`` is replaced for tables."""
    line = visible_line(text).replace("|", "¦") or " "
    fence = _fence(line, 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _code_block(text: str, language: str) -> str:
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def _yaml(data: object) -> str:
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    return text


def _python(text: str) -> str:
    return repr(visible_line(text))


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
