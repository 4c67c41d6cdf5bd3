"""Every merge method for people: ``python -m tests.methods`` prints docs/methods.md from the table of methods."""

from __future__ import annotations

from collections.abc import Iterable

from optimizer.merging import METHODS, PARAMETERS, Method, Parameter

COSTS = {
    "factors": "the factors alone: O((m + n)·R), or one product of them",
    "core": "QR decompositions of the factors and matrices of size R: O((m + n)·R²)",
    "entries": "every entry of every ΔW: O(m·n·R), the slowest; most results have full rank and need an SVD to become a LoRA",
}
DIFFERENCES = (
    ("elect_on", "raw", "PEFT", "signs of the trimmed entries, weights aside"),
    ("elect_on", "weighted", "mergekit", "signs of the trimmed entries times their weights, so a heavy source outvotes a light one"),
    ("majority", "total", "the TIES paper; PEFT's and mergekit's default", "the sum of the entries"),
    ("majority", "frequency", 'PEFT `majority_sign_method="frequency"`; mergekit\'s `count`', "one vote a source"),
    ("normalise", "count", "the TIES paper, PEFT", "divided by the number of agreeing sources"),
    ("normalise", "weight", "mergekit `normalize: true`, at positive weights", "divided by the sum of their weights' magnitudes"),
    ("normalise", "none", "mergekit `normalize: false`", "the plain sum"),
    ("rescale", "inverse", "the DARE paper, PEFT", "divided by the probability of survival: the expectation stays"),
    ("rescale", "l1", "mergekit `rescale: true`", "times what restores the L1 norm of ΔW"),
    ("rescale", "none", "mergekit `rescale: false`", "left as they are"),
    ("epsilon", "half the window", "mergekit; it refuses a window that leaves (0, 1), here it shrinks", "density ± ε"),
    (
        "gamma",
        "0",
        "nobody: mergekit's mask is empty there, and the merge changes nothing",
        "none of the largest dropped: `magnitude_prune`",
    ),
    ("rank", "r", "PEFT's `…_svd` with `svd_rank` and no clamp", "the best approximation of rank r"),
    ("rank", "none", "PEFT `cat`, for sums", "the exact result, whatever its rank"),
    (
        "rank",
        "`full`",
        "merging into a checkpoint",
        "whole matrices, without loss, stored as `.diff` (`diffusers`: as a LoRA of the greatest rank)",
    ),
)
"""Option, value, whose it is, what it does."""

MISTAKES = (
    (
        "PEFT `linear` and its other types without `_svd`",
        "adds the factors, so the `up` of one source meets the `down` of another: for two independent sources the result is off by about "
        "75 % of its norm. Needs equal ranks. Its `ties`, `dare_…`, `magnitude_prune` work on entries of the factors, which mean nothing",
        "`linear`, exact at any ranks; every method works on ΔW",
    ),
    (
        "kohya `merge_lora`",
        "multiplies both factors by the ratio, which squares the strength, and has the same cross terms",
        "`linear`: a weight is the strength, negative ones too",
    ),
    (
        "kohya `--concat`",
        "keeps the first source's alpha while the rank grows to the sum: two equal LoRAs come out at half strength",
        "`concat`: each module's alpha is its rank",
    ),
    (
        "kohya `svd_merge_lora`",
        "cuts off entries of the new factors at their 0.99 quantile: about 10 % lost even where the rank would hold everything",
        "`svd`: the best approximation of its rank; the report says what the rank costs",
    ),
    (
        "kohya `--lbws` between LoRAs, LoRA Block Weight (LBW)",
        "a block weight multiplies both factors, so 0.5 acts as 0.25 and −1 as 1",
        "block weights multiply ΔW, in every method",
    ),
    (
        "mergekit `breadcrumbs` with γ = 0",
        "an empty slice drops every entry; so does a γ too small to drop one entry",
        "`breadcrumbs`: γ = 0 drops none of the largest",
    ),
    (
        "DARE in some LoRA mergers",
        "divide by the drop rate instead of the keep rate, or set alpha to 1",
        "`dare_linear`: kept with probability density, divided by it",
    ),
)
"""Whose, what goes wrong, what happens here."""


def page() -> str:
    """docs/methods.md."""
    return "\n".join(
        [
            "# Merge methods",
            "",
            "What each method computes, with which settings, and which other tool computes the same. ΔWᵢ is what source i changes at",
            "strength 1, wᵢ its weight times its block weight. A weight may be negative; a source of weight 0 takes no part, nor does one",
            "in a module that it holds but does not change. Each method works on ΔW, never on the two factors apart, and each is tested",
            "against a second implementation, straight from the formula (`tests/merging/methods/references.py`). `python -m tests.methods`",
            "makes this page from the table in the code.",
            "",
            "The search tries methods, weights and the parameters marked below; a recipe sets them by hand:",
            "",
            "    method: ties",
            "    weights: [0.7, 0.5]",
            "    density: 0.4",
            "    rank: 32",
            "",
            *_table(["method", "what it computes", "parameters", "sources", "cost", "rank of the result"], [_row(m) for m in _methods()]),
            "",
            "Block weights go with every method. **Cost**, for a weight of shape m × n and R = the sum of the sources' ranks:",
            "",
            *(f"- *{cost}*: {what}." for cost, what in COSTS.items()),
            "",
            "**Rank**: *Σ rᵢ* is exact as it stands; a lower `rank` cuts it. *full* is a whole matrix, and `rank` makes a LoRA of it.",
            "`rank_energy`, `prune` and `target_mb` choose ranks by what they keep or by the size of the file.",
            "",
            "**Routers.** In every module, a merge that is linear in the ΔWᵢ is ΔW = up · R · down. Here up and down hold the factors",
            "of all sources beside each other, and the router R is a small matrix between them: the identity for the stack, a diagonal",
            "for a weighted sum. `routed` applies the router that the recipe names, `calibration: HASH`, from the file",
            "`routers/HASH.safetensors` beside the recipe. A weight scales what the source's part of up writes, not what its part of",
            "down reads: with a full router, the others may still read from a source of weight 0. No other method has a calibration,",
            "and no search tries `routed`.",
            "",
            "**Solved merges.** `distill`, `zip`, `ssr` and `iteris` find the router on the live base model, in a search or by",
            "`optimize merge --method distill --base DIR --sources A B`. They draw 144 prompts a source and 144 joint ones (`ssr` and",
            "`iteris` 24 each), in at most five steps, with a *composition*: at every step each source that a prompt asks for changes the",
            "model's output by itself, and the changes are added up, so that the sources share no weight. Few steps leave time for many",
            "texts, and of few texts a router learns the words. Where one source acts strongly, the others stand back: with sₖ the",
            "square of what source k adds near a place, relative to its mean over the picture, source k counts by",
            "aₖ = min(1, n·sₖ² / Σ sⱼ²) there, and a style by 1/3 + 2/3·aₖ, since it belongs on what the others draw, too. No file can",
            "hold that; `distill` trains the routers of all modules until one merged model gives the same outputs there. `zip` trains only",
            "a factor on each rank. `ssr` and `iteris` are least squares in every module, shrunk towards the stack. NP-LoRA is",
            "`orthogonalize`.",
            "Once it is solved, the recipe names its router as its calibration, and replays without the base and without a GPU;",
            "`--resolve` solves it again. Weights and block weights scale what the router writes, so a search goes on from it. A",
            "lower `rank` keeps what the modules return on these prompts (`truncation: outputs`), or the largest part of ΔW",
            "(`truncation: delta`). A search solves each method once, and takes the router after 60, 80 and 100 % of the training, as",
            "three candidates; the time belongs to the trial that needed it first (`seconds_solve` in `trials.csv`).",
            "",
            "**Correction.** A source that changes the denoiser alone can be switched by its trigger only where the denoiser reads",
            "text, and there only by the few directions of text that its own factors read. So `distill` gives the router further",
            "factors, of no source and of rank `correction`, in modules that read text: the keys and values of the attention to the text,",
            "and text encoders, where a source changes them, and all linear modules of CLIP text encoders, also where none does (not",
            "beside T5, as in SD 3 and FLUX.1). They are",
            "random signs, which path and shape of a module determine on every machine, so no file has to hold them, and the training",
            "starts with none of them in use. The merged file has so much more rank in these modules, and changes the text encoder even if",
            "no source does: load it with its text encoder part, as loaders do by default. Weights and block weights do not scale what the",
            "router writes with them, so only without a correction do the merges of two sets of weights add up. A recipe that does not",
            "give `correction` has none.",
            "",
            "**Prompts without a trigger.** The sources act, more or less, where nothing asks for them, and so does what is solved from",
            "them. `neutral_prompts: 144` adds so many prompts without a trigger, on which the merge is to draw what the base draws",
            "(or the source that has no trigger). The merge then changes less there, and shows less of the sources elsewhere.",
            "",
            "## How they behave",
            "",
            "*Linear*: the merges of two sets of weights add up, before a cut to a rank. *Homogeneous*: half of all weights is half the",
            "change. *Commutes*: the order of the sources does not matter. *Seeded*: draws random numbers, from seed, source and module",
            "alone, so the same recipe gives the same file.",
            "",
            *_table(["method", "linear", "homogeneous", "commutes", "seeded"], [_traits(m) for m in _methods()]),
            "",
            "With `normalise: weight`, no method that votes is homogeneous: only the ratios of the weights count.",
            "",
            "## Parameters",
            "",
            "What a method does not read, a recipe must not set. *Start* is where a search begins.",
            "",
            *_table(
                ["parameter", "what it does", "allowed", "default", "searched", "start", "read by"],
                [_parameter(p) for p in PARAMETERS.values()],
            ),
            "",
            "## Sources, and other tools",
            "",
            "Where a tool is named, the settings given yield the same ΔW; formulas of tools that draw random numbers agree but for those.",
            "",
            *_table(["method", "source", "other tools"], [[f"`{m.name}`", m.citation, _reproduced(m)] for m in _methods()]),
            "",
            "## Where tools differ",
            "",
            "Tools give one name to different formulas. Each is an option here:",
            "",
            *_table(["option", "value", "as in", "what it does"], [[f"`{o}`", v, tool, what] for o, v, tool, what in DIFFERENCES]),
            "",
            "DARE and DELLA drop entries at random, and a cut to the sources' own rank undoes most of that: the merge report gives the",
            "cosine to the plain sum. `core` works between bases of both sides and `knots` in a basis of one side: they are not `ties`",
            "done faster, but other merges. `iso` takes the mean over the singular values that the sum has, the paper over all of a",
            "full matrix.",
            "",
            "## What other tools get wrong",
            "",
            *_table(["tool", "what happens", "here"], [list(row) for row in MISTAKES]),
            "",
        ]
    )


def _methods() -> Iterable[Method]:
    return METHODS.values()


def _row(method: Method) -> list[str]:
    names = ", ".join(f"`{p.name}`" for p in method.parameters) or "–"
    count = f"up to {method.most}" if method.most else "any"
    return [f"`{method.name}`", _cell(method.formula), names, count, method.cost, _rank(method)]


def _rank(method: Method) -> str:
    if method.rank == "required":
        return "`rank`, which it needs"
    return "full" if method.cost == "entries" else _sum_of_ranks(method)


def _sum_of_ranks(method: Method) -> str:
    return "Σ rᵢ" + (", always" if method.rank == "forbidden" else " + `correction`" if method.reads("correction") else "")


def _traits(method: Method) -> list[str]:
    values = (method.linear, method.homogeneous, method.commutes, method.seeded)
    return [f"`{method.name}`", *("yes" if value else "no" for value in values)]


def _parameter(parameter: Parameter) -> list[str]:
    readers = ", ".join(f"`{m.name}`" for m in _methods() if parameter in m.parameters)
    words = ", ".join(map(str, parameter.choices))
    searched = (words or f"{parameter.low:g} to {parameter.high:g}") if parameter.searched else "no"
    return [
        f"`{parameter.name}`",
        _cell(parameter.description),
        allowed(parameter),
        _value(parameter.default),
        searched,
        _value(parameter.start),
        readers,
    ]


def allowed(parameter: Parameter) -> str:
    """The values that a recipe accepts: an interval, a bound, or words."""
    if isinstance(parameter.default, str):
        return ", ".join(map(str, parameter.choices))
    low, high = (parameter.gt, parameter.ge), (parameter.lt, parameter.le)
    if high == (None, None):
        return f"> {low[0]:g}" if low[0] is not None else f"≥ {low[1]:g}" if low[1] is not None else "any number"
    below = f"({low[0]:g}" if low[0] is not None else f"[{low[1]:g}" if low[1] is not None else "(−∞"
    return below + (f", {high[0]:g})" if high[0] is not None else f", {high[1]}]")


def _value(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reproduced(method: Method) -> str:
    return "<br>".join(_cell(line) for line in method.reproduces) or "–"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    print(page(), end="")
