"""The model card: what it says, and that hostile strings stay strings."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from optimizer.export import AcceleratorRecord, CardScore, CardSource, DrawnWith, ModelCard, render_card, write_card
from optimizer.export.card import escape_markdown
from optimizer.text import visible_line

CARD = ModelCard(
    title="Hero in neon",
    file_name="hero-neon_ties_0.7-1_v1.safetensors",
    base_model="runwayml/stable-diffusion-v1-5",
    method="ties",
    sources=(CardSource("hero", "ab" * 32, 0.7, "character", "rivet"), CardSource("neon", "cd" * 32, 1.0, "style")),
    scores=(
        CardScore("this file", 0.81, {"hero": 0.81, "neon": 0.86}, 0.02, (0.77, 0.84)),
        CardScore("stack", 0.66, {"hero": 0.66, "neon": 0.9}, 0.11),
        CardScore("hero alone", 0.0, {"hero": 1.0}),
    ),
    recipe={"method": "ties", "weights": [0.7, 1.0]},
    prompt="a rivet at night",
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def split(text: str) -> tuple[dict[str, object], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter() -> None:
    front, _ = split(render_card(CARD))
    assert front == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "runwayml/stable-diffusion-v1-5",
        "tags": ["text-to-image", "lora", "template:sd-lora"],
        "instance_prompt": "a rivet at night",
    }
    assert split(render_card(replace(CARD, prompt="", license="mit")))[0]["instance_prompt"] == "rivet"
    assert split(render_card(replace(CARD, license="mit")))[0]["license"] == "mit"


def cells(text: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", MARKDOWN.render(text), re.DOTALL)
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_tables_of_sources_and_scores() -> None:
    assert cells(split(render_card(CARD))[1]) == [
        ["source", "role", "weight", "trigger", "SHA-256"],
        ["hero", "character", "0.700", "rivet", "ab" * 32],
        ["neon", "style", "1.000", "", "cd" * 32],
        ["merge", "weakest source", "interval", "hero", "neon", "artifacts"],
        ["this file", "0.810", "0.770 … 0.840", "0.810", "0.860", "0.020"],
        ["stack", "0.660", "–", "0.660", "0.900", "0.110"],
        ["hero alone", "0.000", "–", "1.000", "–", "–"],
    ]


def blocks(text: str) -> dict[str, str]:
    return {token.info: token.content for token in MARKDOWN.parse(text) if token.type == "fence"}


def test_the_loading_script_compiles_and_names_the_file() -> None:
    script = blocks(split(render_card(CARD))[1])["python"]
    compile(script, "card", "exec")
    assert "weight_name='hero-neon_ties_0.7-1_v1.safetensors'" in script
    assert "`<lora:hero-neon_ties_0.7-1_v1:1>`" in render_card(CARD)


def test_the_recipe_can_be_read_back() -> None:
    assert yaml.safe_load(blocks(split(render_card(CARD))[1])["yaml"]) == CARD.recipe


def test_what_was_asked_for_is_a_list() -> None:
    aims = ("Priorities of the sources in the score: hero 2, neon 1.", "At least 0.9 of <b>hero</b>: it keeps 0.912.")
    text = MARKDOWN.render(split(render_card(replace(CARD, aims=aims)))[1])
    section = text[text.index("<h2>What was asked for</h2>") : text.index("<h2>Scores</h2>")]
    assert [html.unescape(item) for item in re.findall(r"<li>(.*?)</li>", section)] == list(aims)
    assert "<b>" not in section
    assert "What was asked for" not in render_card(CARD)


FAST = DrawnWith(
    accelerators=(AcceleratorRecord(name="lcm", file="lcm 1.safetensors", sha256="ef" * 32, weight=0.5),), steps=4, guidance=1.0
)


def test_an_accelerator_is_to_be_loaded_beside() -> None:
    body = split(render_card(replace(CARD, drawn_with=FAST)))[1]
    assert "Load it at strength 1.0, with lcm at 0\\.5 beside it, which is not part of the file; the weights of the sources are." in body
    section = body[body.index("## What it was drawn with") : body.index("## Scores")]
    assert section.splitlines()[2] == (
        "The pictures behind this merge were drawn in 4 steps with guidance 1.0, and with these LoRAs, which are not part of the file: "
        "load them beside it."
    )
    assert cells(section) == [["accelerator", "weight", "file", "SHA-256"], ["lcm", "0.500", "lcm 1.safetensors", "ef" * 32]]
    script = blocks(body)["python"]
    compile(script, "card", "exec")
    assert script.splitlines()[3:] == [
        'pipeline.load_lora_weights(".", weight_name=\'hero-neon_ties_0.7-1_v1.safetensors\', adapter_name="merge")',
        'pipeline.load_lora_weights("path/to", weight_name=\'lcm 1.safetensors\', adapter_name="accelerator_1")',
        'pipeline.set_adapters(["merge", "accelerator_1"], [1.0, 0.5])',
        "image = pipeline('a rivet at night', num_inference_steps=4, guidance_scale=1.0).images[0]",
    ]


def test_the_model_that_drew_is_loaded_and_the_base_stays_what_it_is() -> None:
    front, body = split(render_card(replace(CARD, drawn_with=DrawnWith(base="org/turbo", steps=4, guidance=0.0))))
    assert front["base_model"] == "runwayml/stable-diffusion-v1-5"
    assert "for the base model `runwayml/stable-diffusion-v1-5`" in body
    assert "drawn by `org/turbo`, not by the model that the sources were trained on, in 4 steps with guidance 0.0.\n" in body
    assert "pipeline = DiffusionPipeline.from_pretrained('org/turbo')" in blocks(body)["python"]


def test_sections_without_content_are_left_out() -> None:
    bare = render_card(replace(CARD, scores=(), recipe={}, prompt=""))
    assert [line for line in bare.splitlines() if line.startswith("#")] == ["# Hero in neon", "## Sources", "## How to load it"]


HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://example.com/x.png)",
    "a | b | c",
    "``` \n# heading\n```",
    "`code` *bold* _it_ ~~no~~",
    "---\nlibrary_name: evil\n---",
    "&lt;b&gt; &amp;",
    "x\u202ey\u0000z\u2028w",
    "'; import os #",
    '"""',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_stay_text(text: str) -> None:
    source = CardSource(text, text, 1.0, text, text)
    card = ModelCard(text, text, text, text, (source,), (CardScore(text, 0.5, {text: 0.5}),), {"note": text, "list": [text]}, text)
    front, body = split(render_card(card))
    assert front["library_name"] == "diffusers"
    rendered = MARKDOWN.render(body)
    assert not re.search(r"<(script|img|a |b>|s>|em>(?!Load LoRA))", rendered)
    assert len(re.findall(r"<h1", rendered)) == 1
    assert len(cells(body)) == 4
    assert {len(row) for row in cells(body)} == {5}
    assert cells(body)[1][3] == visible_line(text)
    compile(blocks(body)["python"], "card", "exec")
    assert yaml.safe_load(blocks(body)["yaml"]) == card.recipe
    beside = AcceleratorRecord(name=text, file=text, sha256=text)
    fast = split(render_card(replace(card, drawn_with=DrawnWith(accelerators=(beside,), base=text, steps=4, guidance=1.0))))[1]
    assert not re.search(r"<(script|img|a |b>|s>|em>(?!Load LoRA))", MARKDOWN.render(fast))
    assert {len(row) for row in cells(fast)} == {4, 5}
    compile(blocks(fast)["python"], "card", "exec")


@given(st.text(max_size=80))
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    shown = MARKDOWN.renderInline(escape_markdown(text))
    assert html.unescape(shown) == visible_line(text)
    assert not re.search(r"<[a-z]", shown)


def test_the_card_is_a_readme(tmp_path: Path) -> None:
    path = write_card(CARD, tmp_path)
    assert path == tmp_path / "README.md"
    assert path.read_text("utf-8") == render_card(CARD)


def test_a_file_for_comfyui_is_not_said_to_load_elsewhere() -> None:
    plain, only = render_card(CARD), render_card(replace(CARD, comfyui_only=True))
    for text in ("load_lora_weights", "**A1111, Forge**"):
        assert text in plain
        assert text not in only
    assert "Its names are ComfyUI's own, which no other loader reads." in only
    assert "no other loader" not in plain
    assert "**ComfyUI**: put `hero-neon_ties_0.7-1_v1.safetensors` into `models/loras`" in only
