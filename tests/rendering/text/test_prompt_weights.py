"""Weights in prompts, read as A1111 reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.rendering.text.clip_chunks import split_chunks
from optimizer.rendering.text.prompt_weights import parse_prompt

Parts = list[list[tuple[str, float]]]
EXAMPLES: dict[str, Parts] = {
    "": [[]],
    "a fox": [[("a fox", 1.0)]],
    "a (fox)": [[("a ", 1.0), ("fox", 1.1)]],
    "((fox))": [[("fox", 1.21)]],
    "(fox:1.3) b": [[("fox", 1.3), (" b", 1.0)]],
    "[fox]": [[("fox", 1 / 1.1)]],
    "(a [b] c:2)": [[("a ", 2.0), ("b", 2 / 1.1), (" c", 2.0)]],
    "(a:1.0) b": [[("a b", 1.0)]],
    r"fox \(red\) \[x\]": [[("fox (red) [x]", 1.0)]],
    r"(fox \(red\):1.2)": [[("fox (red)", 1.2)]],
    r"a\b": [[(r"a\b", 1.0)]],
    "(unclosed": [[("unclosed", 1.1)]],
    "[a (b": [[("a ", 1 / 1.1), ("b", 1.0)]],
    "never) opened]": [[("never) opened]", 1.0)]],
    "fox:1.3)": [[("fox:1.3)", 1.0)]],
    "(fox:1.2.3)": [[("fox:1.2.3", 1.1)]],
    "a BREAK b": [[("a", 1.0)], [("b", 1.0)]],
    "(a BREAK b:1.5)": [[("a", 1.5)], [("b", 1.5)]],
    "a BREAK": [[("a", 1.0)]],
    "BREAKFAST break": [[("BREAKFAST break", 1.0)]],
}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples(text: str) -> None:
    found = [[(span.text, span.weight) for span in part] for part in parse_prompt(text).parts]
    assert [[words for words, _ in part] for part in found] == [[words for words, _ in part] for part in EXAMPLES[text]]
    assert [weight for part in found for _, weight in part] == pytest.approx([weight for part in EXAMPLES[text] for _, weight in part])


@given(st.text(alphabet="ab,()[]\\:1. BREAK"))
def test_it_never_raises_and_every_character_has_a_weight(text: str) -> None:
    prompt = parse_prompt(text)
    assert len(prompt.weights) == len(prompt.words)


@given(st.text(alphabet="ab,()[]\\:1. "))
def test_escaped_text_is_read_as_it_stands(text: str) -> None:
    escaped = re.sub(r"([\\()\[\]])", r"\\\1", text) if re.search(r"[()\[\]]", text) else text
    assert parse_prompt(escaped).words == text
    assert not parse_prompt(escaped).weighted


@given(st.lists(st.integers(0, 3)), st.integers(1, 9), st.integers(0, 20))
def test_chunks_joined_are_the_text(numbers: list[int], size: int, back: int) -> None:
    tokens = [(number, 1.0) for number in numbers]
    chunks = split_chunks(tokens, size, 0, back)
    assert [token for chunk in chunks for token in chunk] == tokens
    assert all(0 < len(chunk) <= size for chunk in chunks) or chunks == [[]]


@pytest.mark.parametrize(
    ("numbers", "lengths"),
    [([1] * 10, [5, 5]), ([1, 1, 1, 0, 1, 1], [4, 2]), ([1, 0, 1, 1, 1, 1], [5, 1]), ([1, 1, 1, 0, 1, 0], [5, 1]), ([1] * 5, [5])],
)
def test_a_chunk_ends_after_a_comma_that_is_near(numbers: list[int], lengths: list[int]) -> None:
    assert [len(chunk) for chunk in split_chunks([(n, 1.0) for n in numbers], 5, 0, 3)] == lengths
