"""Recipe: the complete, reproducible description of one merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, create_model, model_validator

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.files.dtypes import DTYPES
from optimizer.errors import RecipeError
from optimizer.merging.blocks.maps import check_block_names
from optimizer.merging.digest import digest
from optimizer.merging.methods import METHODS, PARAMETERS, Method
from optimizer.text import one_line

_ALTERNATIVES = ("constrained-int", "literal['full']")  # pydantic's union branches of ``rank``, left out of error messages
_SIZES = ("rank_energy", "prune", "target_mb")
# Parameters that recipes of older versions lack; left out at 0, so that these are written as they were.
_LATER = ("correction", "neutral_prompts")

# Recipe files list these parameters in this order; those of later methods follow, in the order of the table.
_LISTED_FIRST = (
    *("density", "epsilon", "gamma", "elect_on", "majority", "normalise", "rescale"),
    *("mask_scale", "quorum", "isotropy", "side", "strength", "scale"),
)


class BlockWeights(Mapping[str, float]):
    """Immutable, hashable block weights; the order of the entries does not matter."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = {name: weights[name] + 0.0 for name in sorted(weights)}

    def __getitem__(self, block: str) -> float:
        return self._weights[block]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(tuple(self._weights.items()))

    def __repr__(self) -> str:
        return repr(self._weights)


Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(lambda x: x + 0.0)]  # -0.0 + 0.0 is 0.0
Blocks = Annotated[Mapping[str, Finite], AfterValidator(BlockWeights), PlainSerializer(dict)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Rank = Annotated[int, Field(ge=1)] | Literal["full"]


class _Weighted(BaseModel):
    """Fields that come before the parameters of the methods."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    weights: tuple[Finite, ...] = Field(min_length=1)
    sources: tuple[Sha256, ...] = ()
    blocks: tuple[Blocks, ...] = ()


def _parameter_fields() -> dict[str, Any]:
    """Returns the type and the field of every parameter, in the order in which recipe files list them."""
    ordered = [PARAMETERS[name] for name in dict.fromkeys((*_LISTED_FIRST, *PARAMETERS))]
    return {p.name: (p.value_type, Field(default=p.default, description=p.description, **p.constraints)) for p in ordered}


if TYPE_CHECKING:

    class _Parametrised(_Weighted):
        def __getattr__(self, parameter: str) -> Any: ...

else:
    _Parametrised = create_model("_Parametrised", __base__=_Weighted, **_parameter_fields())


class Recipe(_Parametrised):
    """Description of one merge, as a hashable value.

    A field that the method does not read must keep its default, so that equal merges have equal hashes. ``METHODS`` lists the fields
    that each method reads.

    Attributes:
        method: a name in ``METHODS``.
        weights: one signed, finite number per source; 1 is the source at its reference strength. A source of weight 0 takes no part.
        sources: SHA-256 of each source, in the order of the weights; empty until ``bound_to`` fills it.
        blocks: one mapping per source, from a block (``IN04``) or a family of blocks (``IN``) to a factor on the source's weight there;
            an exact name takes precedence over its family, blocks that are not named keep factor 1. Empty: no block weights.
        density, epsilon, …: parameters of the methods, in one field each (``PARAMETERS``).
        rank: maximum rank of the merged factors; ``full`` for lossless dense matrices, stored as ``.diff`` (in diffusers files as a
            LoRA of maximal rank). None keeps the method's exact result: the sum of the ranks of the sources, and of a correction, for
            methods that work on factors, dense matrices for methods that work on the entries of ΔW. ``concat`` is exact by definition and
            takes no rank; ``svd`` requires one.
        rank_energy: share of each module's Σσ² to keep, in (0, 1]; the smallest rank that keeps it is used.
        prune: share of the Σσ² over all modules that may be removed, in [0, 1); components with the least energy per stored number are
            removed first.
        target_mb: maximum file size in megabytes of 10⁶ bytes, in any file format; the components with the most energy per stored
            number are kept. (``diffusers`` files of SD 3 and FLUX.1 are smaller: they need no zeros for fused projections.)
        dtype: dtype of the written file; the merge itself computes in fp32.
        seed: seed of the random masks, ≥ 0.
        calibration: SHA-256 of the router that a merge solved on the live model applies. ``routed`` needs one; a recipe of a solved method,
            such as ``distill``, has none until it is solved.

    Raises:
        RecipeError: a field is invalid; raised on construction, names field, value and remedy.

    Example:
        >>> recipe = Recipe(method="ties", weights=(0.7, 0.5), density=0.4, rank=32, blocks=({"IN": 0.5}, {}))
        >>> Recipe.from_yaml(recipe.to_yaml()) == recipe
        True
    """

    rank: Rank | None = None
    rank_energy: float | None = Field(default=None, gt=0, le=1)
    prune: float = Field(default=0.0, ge=0, lt=1)
    target_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    dtype: Literal["fp16", "bf16", "fp32"] = "fp16"
    seed: int = Field(default=0, ge=0)
    calibration: Sha256 | None = None

    if TYPE_CHECKING:

        def __init__(self, *, method: str, weights: Sequence[float], **fields: Any) -> None: ...

    else:

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise _explained(error) from None

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_blocks(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Normalises block weights that are empty for every source to ``()``."""
        blocks = fields.get("blocks")
        return {**fields, "blocks": ()} if isinstance(blocks, list | tuple) and not any(blocks) else fields

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        method = self.method_record
        for field in ("sources", "blocks"):
            if (given := len(getattr(self, field))) not in (0, len(self.weights)):
                raise RecipeError(
                    f"{given} entries for {len(self.weights)} weights", where=f"recipe: {field}", remedy="give one a source, or none at all"
                )
        for i, blocks in enumerate(self.blocks):
            check_block_names(blocks, where=f"recipe: blocks.{i}")
        _check_unread(self, method)
        _check_calibration(self, method)
        _check_size(self, method)
        _check_count(self, method)
        return self

    @property
    def method_record(self) -> Method:
        """Record of the method in ``METHODS``."""
        if self.method not in METHODS:
            raise RecipeError(f"unknown method {self.method!r}", where="recipe: method", remedy=f"methods: {', '.join(METHODS)}")
        return METHODS[self.method]

    @property
    def sized(self) -> bool:
        """Whether ranks are chosen per module, by energy or by file size."""
        return self.rank_energy is not None or self.target_mb is not None or self.prune > 0

    @property
    def itemsize(self) -> int:
        """Bytes per number in the file."""
        return DTYPES[self.dtype].itemsize

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's canonical JSON, 64 hex digits.

        A parameter at its default is left out. Defaults never change, so hashes stay valid when a method starts to read another
        parameter.
        """
        told = {name: value for name, value in self.data().items() if name not in PARAMETERS or value != PARAMETERS[name].default}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def data(self) -> dict[str, Any]:
        """Returns the recipe as JSON-serialisable data, without the fields that its method does not read."""
        unread = {name for name in PARAMETERS if not self.method_record.reads(name)}
        unread |= {name for name in (*_SIZES, *_LATER) if not getattr(self, name)}
        if self.method_record.rank == "forbidden":
            unread.add("rank")
        if self.calibration is None:
            unread.add("calibration")
        return self.model_dump(mode="json", exclude=unread)

    def replaced(self, **changes: Any) -> Recipe:
        """Returns a copy of the recipe with some fields changed and validated again."""
        return Recipe(**{**dict(self), **changes})

    def bound_to(self, adapters: Sequence[Adapter]) -> Recipe:
        """Returns the recipe with ``sources`` set to the digests of the given adapters.

        Raises:
            RecipeError: the number of sources differs, or the recipe already names other files.
        """
        if len(adapters) != len(self.weights):
            raise RecipeError(
                f"{len(self.weights)} weights for {len(adapters)} sources", where="recipe: weights", remedy="give one weight a source"
            )
        found = tuple(digest(adapter) for adapter in adapters)
        for i, (named, given) in enumerate(zip(self.sources, found, strict=False)):
            if named != given:
                raise RecipeError(
                    f"{adapters[i].name!r} has SHA-256 {given}, the recipe was made for {named}",
                    where=f"recipe: sources.{i}",
                    remedy="give the file that the recipe was made for, in the same order, or clear the recipe's sources",
                )
        return self.replaced(sources=found)

    def to_yaml(self) -> str:
        """Returns the recipe as YAML text; ``from_yaml`` reads it back exactly."""
        return str(yaml.safe_dump(self.data(), sort_keys=False, allow_unicode=True, width=120))

    @classmethod
    def from_data(cls, data: object) -> Recipe:
        """Returns the recipe built from the result of ``data``, or from parsed file content.

        The entry ``setup``, where a recipe file stores the name of the merge and the paths of its sources, is ignored.

        Raises:
            RecipeError: the data is not a valid recipe.
        """
        if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
            raise RecipeError(
                f"a recipe is a mapping of fields, not {type(data).__name__}",
                where="recipe",
                remedy="start with 'method: …' and 'weights: …'",
            )
        return cls(**{name: value for name, value in data.items() if name != "setup"})

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """Reads a recipe from YAML text; raises RecipeError if the text is not a valid recipe."""
        try:
            return cls.from_data(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise _unreadable("YAML", error) from None

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Reads a recipe from JSON text; raises RecipeError if the text is not a valid recipe."""
        try:
            return cls.from_data(json.loads(text))
        except json.JSONDecodeError as error:
            raise _unreadable("JSON", error) from None


def _unreadable(syntax: str, error: Exception) -> RecipeError:
    return RecipeError(f"not readable as {syntax}: {one_line(error)}", where="recipe", remedy=f"correct the {syntax} syntax")


def _check_unread(recipe: Recipe, method: Method) -> None:
    for name, parameter in PARAMETERS.items():
        value = getattr(recipe, name)
        if value != parameter.default and not method.reads(name):
            read = ", ".join(p.name for p in method.parameters) or "none of these"
            raise RecipeError(
                f"the method {method.name!r} does not read {name} (got {value!r})",
                where=f"recipe: {name}",
                remedy=f"leave it out; {method.name!r} reads: {read}",
            )


def _check_calibration(recipe: Recipe, method: Method) -> None:
    if recipe.calibration and not method.calibrated:
        raise RecipeError(
            f"the method {method.name!r} does not read calibration (got {recipe.calibration!r})",
            where="recipe: calibration",
            remedy="leave it out, or use a method that applies a router: " + ", ".join(m.name for m in METHODS.values() if m.calibrated),
        )
    if method.calibrated and not method.solved and not recipe.calibration:
        raise RecipeError(
            f"the method {method.name!r} needs a calibration",
            where="recipe: calibration",
            remedy="give the SHA-256 of a router, the name of its file, or use the method 'linear', whose router is the identity",
        )


def _check_size(recipe: Recipe, method: Method) -> None:
    given = {name: getattr(recipe, name) for name in ("rank", *_SIZES) if getattr(recipe, name)}
    if method.rank == "forbidden" and given:
        name, value = next(iter(given.items()))
        raise RecipeError(
            f"the method {method.name!r} is exact at the sum of the sources' ranks and takes no {name} (got {value})",
            where=f"recipe: {name}",
            remedy=f"leave the {name} out, or use the method 'linear', the same sum",
        )
    if method.rank == "required" and not given:
        raise RecipeError(
            f"the method {method.name!r} needs an output rank",
            where="recipe: rank",
            remedy="give a rank, or use the method 'linear', exact at the sum of the sources' ranks",
        )
    if recipe.rank == "full" and recipe.sized:
        name = next(name for name in given if name != "rank")
        raise RecipeError(f"a full rank leaves nothing to cut by {name}", where=f"recipe: {name}", remedy="leave one of the two out")


def _check_count(recipe: Recipe, method: Method) -> None:
    most = method.most or len(recipe.weights)
    if len(recipe.weights) > most:
        raise RecipeError(
            f"the method {method.name!r} merges at most {most} sources (got {len(recipe.weights)})",
            where="recipe: weights",
            remedy="leave sources out, or use another method",
        )


def _explained(error: ValidationError) -> RecipeError:
    """Returns pydantic's first validation error as a RecipeError."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"] if part not in _ALTERNATIVES)
    if first["type"] == "extra_forbidden":
        return RecipeError("unknown field", where=f"recipe: {place}", remedy=f"known fields: {', '.join(Recipe.model_fields)}")
    if first["type"] == "missing":
        return RecipeError("the field is missing", where=f"recipe: {place}", remedy="give it a value")
    what = first["msg"][0].lower() + first["msg"][1:]
    return RecipeError(f"got {first['input']!r}", where=f"recipe: {place}", remedy=what.replace("input should", "it should"))
