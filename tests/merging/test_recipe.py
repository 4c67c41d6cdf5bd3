"""Recipe: a value that survives every way of writing it down, and refuses what it does not understand."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optimizer.errors import RecipeError
from optimizer.merging import BLOCK_MAPS, METHODS, Recipe, digest, merge
from tests.merging.samples import make_adapter

finite = st.floats(allow_nan=False, allow_infinity=False)
blocks = st.dictionaries(st.sampled_from(BLOCK_MAPS["sdxl"].names), finite, max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "density": st.floats(0, 1, exclude_min=True),
    "epsilon": st.floats(0, 1, exclude_max=True),
    "gamma": st.floats(0, 1, exclude_max=True),
    "mask_scale": st.floats(0, allow_infinity=False),
    "quorum": st.integers(1, 5),
    "isotropy": st.floats(0, 1),
    "side": st.sampled_from(["input", "output"]),
    "strength": st.floats(0, 1),
    "elect_on": st.sampled_from(["raw", "weighted"]),
    "majority": st.sampled_from(["total", "frequency"]),
    "normalise": st.sampled_from(["count", "weight", "none"]),
    "rescale": st.sampled_from(["inverse", "l1", "none"]),
    "scale": st.floats(0, exclude_min=True, allow_infinity=False),
    "train_steps": st.integers(1, 100_000),
    "checkpoint": st.integers(1, 100),
    "truncation": st.sampled_from(["outputs", "delta"]),
    "correction": st.integers(0, 512),
    "neutral_prompts": st.integers(0, 10_000),
    "ridge": st.floats(0, exclude_min=True, allow_infinity=False),
    "balance": st.sampled_from(["equal", "worst"]),
    "rounds": st.integers(1, 20),
}

SIZES = st.just({"rank": "full"}) | st.fixed_dictionaries(
    {},
    optional={
        "rank": st.integers(1, 4096),
        "rank_energy": st.floats(0, 1, exclude_min=True),
        "prune": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "target_mb": st.floats(0, exclude_min=True, allow_infinity=False),
    },
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    method = METHODS[draw(st.sampled_from(list(METHODS)))]
    count = draw(st.integers(1, method.most or 5))
    fields: dict[str, Any] = {p.name: draw(VALUES[p.name]) for p in method.parameters}
    if method.rank != "forbidden":
        fields |= draw(SIZES.filter(lambda sizes: sizes or method.rank == "optional"))
    fields["weights"] = tuple(draw(finite) for _ in range(count))
    if draw(st.booleans()):
        fields["sources"] = tuple(f"{draw(st.integers(0, 2**256 - 1)):064x}" for _ in range(count))
    if draw(st.booleans()):
        fields["blocks"] = tuple(draw(blocks) for _ in range(count))
    fields["dtype"] = draw(st.sampled_from(["fp16", "bf16", "fp32"]))
    fields["seed"] = draw(st.integers(0, 2**63))
    if method.calibrated and (not method.solved or draw(st.booleans())):
        fields["calibration"] = f"{draw(st.integers(0, 2**256 - 1)):064x}"
    return Recipe(method=method.name, **fields)


@given(recipes())
def test_a_recipe_survives_being_written(recipe: Recipe) -> None:
    for copy in (
        Recipe.from_yaml(recipe.to_yaml()),
        Recipe.from_json(json.dumps(recipe.data())),
        Recipe.from_data(json.loads(json.dumps(recipe.model_dump(mode="json")))),
        Recipe.from_data(recipe.data()),
        pickle.loads(pickle.dumps(recipe)),
        recipe.replaced(),
    ):
        assert copy == recipe
        assert hash(copy) == hash(recipe)
        assert copy.hash == recipe.hash


@given(recipes(), recipes())
def test_hashes_differ_exactly_where_recipes_do(a: Recipe, b: Recipe) -> None:
    assert (a.hash == b.hash) == (a == b)


def test_the_hash_of_a_recipe_never_changes() -> None:
    recipe = Recipe(method="ties", weights=(0.7, -0.5), blocks=({"IN": 0.5}, {}), density=0.4, rank=32, seed=1)
    assert recipe.hash == "56d8a1e5d7610e2d8813da2a45359c03fa9575e7380c685b26a6e18c40eca9d0"


def test_a_calibration_is_part_of_the_recipe_only_where_there_is_one() -> None:
    plain = Recipe(method="linear", weights=(1.0, 0.5))
    assert "calibration" not in plain.data()
    assert plain.hash == "398db6d079767503591bc63916458bbcb3366ee4e221cd3ff37445a3c01d00bd"
    routed = Recipe(method="routed", weights=(1.0, 0.5), calibration="ab" * 32)
    assert routed.data()["calibration"] == "ab" * 32
    assert routed.hash != routed.replaced(calibration="cd" * 32).hash


def test_the_text_reads_well_and_names_only_what_the_method_reads() -> None:
    recipe = Recipe(method="svd", weights=(1, 0.5), blocks=({"OUT": 0.5, "MID": 0}, {}), rank=32)
    assert yaml.safe_load(recipe.to_yaml()) == recipe.data()
    assert recipe.to_yaml() == (
        "method: svd\nweights:\n- 1.0\n- 0.5\nsources: []\nblocks:\n- MID: 0.0\n  OUT: 0.5\n- {}\nrank: 32\ndtype: fp16\nseed: 0\n"
    )


def test_different_writings_of_one_merge_are_one_recipe() -> None:
    plain = Recipe(method="linear", weights=(1.0, 0.0))
    assert plain == Recipe(method="linear", weights=(1, -0.0), blocks=({}, {})) == Recipe.from_json('{"method":"linear","weights":[1,0]}')
    one = Recipe(method="linear", weights=(1.0,), blocks=({"IN": 1.0, "OUT": 2.0},))
    two = Recipe(method="linear", weights=(1.0,), blocks=({"OUT": 2.0, "IN": 1.0},))
    assert one == two
    assert one.hash == two.hash


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe(method="linear", weights=(1.0,), blocks=({"IN": 0.5},))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 2
    with pytest.raises(TypeError):
        recipe.blocks[0]["IN"] = 1.0  # type: ignore[index]  # a mapping that cannot be changed is meant


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "tise"}, r"recipe: method: unknown method 'tise' — methods: linear, concat, svd, "),
    ({"densty": 0.5}, r"recipe: densty: unknown field — known fields: method, weights, sources, .*seed"),
    ({"weights": ()}, r"recipe: weights: got \(\) — tuple should have at least 1 item"),
    ({"weights": (1.0, float("nan"))}, r"recipe: weights\.1: got nan — it should be a finite number"),
    ({"weights": (1.0, "much")}, r"recipe: weights\.1: got 'much' — it should be a valid number"),
    ({"density": 0}, r"recipe: density: got 0 — it should be greater than 0"),
    ({"density": 1.5}, r"recipe: density: got 1\.5 — it should be less than or equal to 1"),
    ({"rank": 0}, r"recipe: rank: got 0 — it should be greater than or equal to 1"),
    ({"scale": float("inf")}, r"recipe: scale: got inf — it should be a finite number"),
    ({"elect_on": "both"}, r"recipe: elect_on: got 'both' — it should be 'raw' or 'weighted'"),
    ({"dtype": "int8"}, r"recipe: dtype: got 'int8' — it should be 'fp16', 'bf16' or 'fp32'"),
    ({"sources": ("abc", "def")}, r"recipe: sources\.0: got 'abc' — string should match pattern"),
    ({"sources": ("0" * 64,)}, r"recipe: sources: 1 entries for 2 weights — give one a source, or none at all"),
    ({"blocks": ({"IN": 0.5},)}, r"recipe: blocks: 1 entries for 2 weights"),
    ({"blocks": ({"IN": float("inf")}, {})}, r"recipe: blocks\.0\.IN: got inf — it should be a finite number"),
    (
        {"rescale": "l1"},
        r"recipe: rescale: the method 'ties' does not read rescale \(got 'l1'\) — leave it out; 'ties' reads: density, elect",
    ),
    ({"rank": "half"}, r"recipe: rank: got 'half' — "),
    ({"method": "concat", "rank": 8}, r"recipe: rank: .*takes no rank \(got 8\) — leave the rank out, or use the method 'linear'"),
    ({"method": "concat", "prune": 0.1}, r"recipe: prune: .*takes no prune \(got 0\.1\) — leave the prune out"),
    ({"rank": "full", "target_mb": 5}, r"recipe: target_mb: a full rank leaves nothing to cut by target_mb — leave one of the two out"),
    ({"rank_energy": 1.5}, r"recipe: rank_energy: got 1\.5 — it should be less than or equal to 1"),
    ({"prune": 1}, r"recipe: prune: got 1 — it should be less than 1"),
    ({"target_mb": 0}, r"recipe: target_mb: got 0 — it should be greater than 0"),
    ({"method": "slerp", "weights": (1, 1, 1)}, r"recipe: weights: the method 'slerp' merges at most 2 sources \(got 3\) — leave sources"),
    ({"method": "add_difference", "weights": (1,) * 4}, r"recipe: weights: the method 'add_difference' merges at most 3 sources"),
    ({"method": "svd"}, r"recipe: rank: the method 'svd' needs an output rank — give a rank, or use the method 'linear'"),
    (
        {"calibration": "ab" * 32},
        r"recipe: calibration: .*'ties' does .* calibration \(got '(ab){32}'\) — leave it out, .*distill, ssr, iteris, zip, routed",
    ),
    ({"method": "routed"}, r"recipe: calibration: the method 'routed' needs a calibration — give the SHA-256 of a router"),
    ({"method": "routed", "calibration": "abc"}, r"recipe: calibration: got 'abc' — string should match pattern"),
    ({"method": "linear", "density": 0.5}, r"recipe: density: the method 'linear' does not read density \(got 0\.5\) — leave it out"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_a_bad_recipe_is_refused_with_place_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    data = {"method": "ties", "weights": (1.0, 0.5), **fields}
    with pytest.raises(RecipeError, match=f"^{message}"):
        Recipe(**data)
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}
    with pytest.raises(RecipeError, match=f"^{message.split(': got')[0]}"):
        Recipe.from_yaml(yaml.safe_dump(plain))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RecipeError, match=r"^recipe: weights: the field is missing — give it a value"):
        Recipe.from_yaml("method: linear")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: [", "recipe: not readable as YAML: .* — correct the YAML syntax"),
        ("- linear", "recipe: a recipe is a mapping of fields, not list — start with 'method: …'"),
        ("", "recipe: a recipe is a mapping of fields, not NoneType"),
        ("!!python/object/apply:os.getcwd []", "recipe: not readable as YAML"),
    ],
)
def test_text_that_is_no_recipe_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{message}"):
        Recipe.from_yaml(text)


def test_broken_json_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^recipe: not readable as JSON: Expecting .* — correct the JSON syntax"):
        Recipe.from_json("{")


def test_binding_names_the_sources() -> None:
    adapters = [make_adapter(1), make_adapter(2)]
    bound = Recipe(method="linear", weights=(1.0, 0.5)).bound_to(adapters)
    assert bound.sources == tuple(a.sha256 for a in adapters)
    assert bound.bound_to(adapters) == bound


def test_other_files_than_those_named_are_refused() -> None:
    one, two, other = make_adapter(1), make_adapter(2), make_adapter(3)
    bound = Recipe(method="linear", weights=(1.0, 0.5)).bound_to([one, two])
    message = rf"recipe: sources\.1: 'lora3' has SHA-256 {other.sha256}, the recipe was made for {two.sha256} — give the file"
    with pytest.raises(RecipeError, match=message):
        merge([one, other], bound)
    with pytest.raises(RecipeError, match=r"recipe: sources\.0: 'lora2' has"):
        merge([two, one], bound)


def test_the_number_of_sources_must_fit() -> None:
    with pytest.raises(RecipeError, match="recipe: weights: 2 weights for 1 sources — give one weight a source"):
        merge([make_adapter(1)], Recipe(method="linear", weights=(1.0, 0.5)))


def test_an_adapter_that_was_never_a_file_is_known_by_its_content() -> None:
    one, two = (replace(make_adapter(seed), sha256="") for seed in (1, 2))
    assert digest(make_adapter(1)) == make_adapter(1).sha256
    assert digest(one) == digest(replace(one, name="renamed"))
    path = next(iter(one.modules))
    stronger = replace(one, modules={**one.modules, path: replace(one.modules[path], alpha=9.0)})
    assert len({digest(one), digest(two), digest(stronger), digest(replace(one, modules={}))}) == 4
