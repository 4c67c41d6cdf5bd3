"""Text encodings by name: those of the table, and one of another module, for a family that needs its own."""

from __future__ import annotations

import pytest

from optimizer.adapters.families import PIPELINE_CLASSES
from optimizer.rendering.text.encodings import ENCODINGS, Encoding, encoding_named

OWN = Encoding(plain=ENCODINGS["sd"].plain, weighted=ENCODINGS["sdxl"].weighted, inputs=ENCODINGS["sd"].inputs)


@pytest.mark.parametrize("name", PIPELINE_CLASSES)
def test_every_pipeline_class_names_an_encoding_of_the_table(name: str) -> None:
    assert encoding_named(PIPELINE_CLASSES[name].encoding) is ENCODINGS[PIPELINE_CLASSES[name].encoding]


def test_an_encoding_of_another_module() -> None:
    assert encoding_named(f"{__name__}:OWN") is OWN
