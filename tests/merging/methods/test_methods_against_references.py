"""Every method, under settings drawn from all that it reads, equals its reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.merging import METHODS, Method, merge
from tests.merging.methods.references import REFERENCES, case
from tests.merging.samples import PATHS, UNCALIBRATED, make_adapter, recipe, relative_error

signed = st.sampled_from([-1.3, -0.7, -0.2, 0.3, 0.5, 1.0, 1.7])
VALUES: dict[str, list[float | str]] = {
    "density": [0.07, 0.3, 0.5, 0.8, 1.0],
    "epsilon": [0.0, 0.1, 0.25, 0.9],
    "gamma": [0.0, 0.001, 0.05, 0.3, 0.9],
    "mask_scale": [0.0, 0.2, 0.6, 1.5],
    "quorum": [1, 2, 3],
    "isotropy": [0.0, 0.3, 1.0],
    "strength": [0.0, 0.4, 1.0],
    "scale": [0.5, 1.0, 1.7],
    "majority": ["total", "frequency"],
}


def test_every_method_has_a_reference() -> None:
    assert list(REFERENCES) == list(UNCALIBRATED)


def drawn(method: Method) -> st.SearchStrategy[dict[str, object]]:
    """Settings of everything that a method reads."""
    values = {p.name: st.sampled_from(VALUES.get(p.name) or list(p.choices)) for p in method.parameters}
    if method.seeded:
        values["seed"] = st.integers(0, 100)
    if method.rank == "required":
        values["rank"] = st.integers(1, 12)
    return st.fixed_dictionaries(values)


@pytest.mark.parametrize("name", UNCALIBRATED)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_method_is_its_formula(name: str, data: st.DataObject) -> None:
    method = METHODS[name]
    weights = data.draw(st.lists(signed, min_size=1, max_size=method.most or 4), label="weights")
    seed = data.draw(st.integers(0, 1000), label="seed")
    ranks = [data.draw(st.integers(1, 4), label="rank") for _ in weights]
    sources = [make_adapter(seed + i, rank, alpha=2.0**i) for i, rank in enumerate(ranks)]
    r = recipe({"method": name}, *weights, **data.draw(drawn(method), label="settings"))
    merged = merge(sources, r)
    for path in PATHS:
        found = merged.modules[path].delta().flatten(1)
        wanted = REFERENCES[name](case(sources, path, r), r)
        if abs(wanted).max() > 1e-9:
            assert relative_error(found, torch.from_numpy(wanted)) <= 3e-5, path
        else:
            assert float(found.abs().max()) <= 1e-5, path
