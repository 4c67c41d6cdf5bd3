"""Methods whose router is solved on the live base model: ``optimizer.calibration`` solves it, the merge applies it.

A recipe of such a method names its router as its calibration once it has been solved. With the router, it is replayed without the base.
"""

from __future__ import annotations

from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.weighted_sum import weighted_sum

TRAIN_STEPS = Parameter(
    name="train_steps",
    description="Number of training steps.",
    default=150,
    start=300,
    ge=1,
    le=100_000,
    searched=False,  # every value would be trained for minutes
)
CHECKPOINT = Parameter(
    name="checkpoint",
    description="Percentage of the training steps after which the router is taken.",
    default=100,
    start=100,
    ge=1,
    le=100,
    choices=(60, 80, 100),
)
CORRECTION = Parameter(
    name="correction",
    description="Rank of further factors, of no source, that the router has in modules that read text, also in CLIP text encoders that no "
    "source changes, to tell triggers apart by. 0 for none.",
    default=0,
    start=16,
    ge=0,
    searched=False,
)
NEUTRAL_PROMPTS = Parameter(
    name="neutral_prompts",
    description="Number of prompts without a trigger that the router is solved on beside the others. The more there are, the less the "
    "merge changes where nothing asks for it, and the less it shows of sources where they are asked for.",
    default=0,
    start=0,
    ge=0,
    le=10_000,
    searched=False,
)
RIDGE = Parameter(
    name="ridge",
    description="Shrinkage of the least squares towards the stack, relative to the mean power of what the modules read.",
    default=0.01,
    start=0.01,
    gt=0,
    searched=False,
)
ROUNDS = Parameter(
    name="rounds",
    description="How often the least squares are repeated with what the modules read in the merge.",
    default=2,
    start=2,
    ge=1,
    le=20,
    searched=False,
)
BALANCE = Parameter(
    name="balance",
    description="How the kinds of prompts, those of each source and joint ones, count in the least squares: all alike (equal), or so that "
    "the largest of their relative errors is smallest (worst).",
    default="equal",
    start="equal",
    choices=("equal", "worst"),
    searched=False,
)
TRUNCATION = Parameter(
    name="truncation",
    description="What a rank below the sum of the sources' ranks keeps: the most of the modules' outputs on the prompts that the router "
    "was solved on (outputs), or the most of ΔW (delta).",
    default="outputs",
    start="outputs",
    choices=("outputs", "delta"),
    searched=False,
)

_FORMULA = "Σ wᵢ·upᵢ·(R·down)ᵢ"


def _solved(name: str, citation: str, formula: str, *parameters: Parameter, gradients: bool = False) -> Method:
    corrected = CORRECTION in parameters  # what the correction adds does not depend on the weights
    return Method(
        name,
        weighted_sum,
        citation,
        f"{_FORMULA}, {formula}",
        parameters=(*parameters, TRUNCATION),
        needs="gradients" if gradients else "activations",
        cost="factors",
        linear=not corrected,
        homogeneous=not corrected,
        commutes=False,
        seeded=True,
        calibrated=True,
    )


SSR = _solved(
    "ssr",
    "SSR-Merge, arXiv 2606.10617, with an anchor and joint prompts",
    "R by least squares in every module",
    RIDGE,
    BALANCE,
    NEUTRAL_PROMPTS,
)
ITERIS = _solved(
    "iteris", "IterIS, arXiv 2411.15231, in router form", "R as of ssr, repeated with the merge's own activations", RIDGE, ROUNDS
)
ZIP = _solved(
    "zip",
    "ZipRank of DuoLoRA, arXiv 2504.13206, on outputs of a composition",
    "R diagonal, trained",
    TRAIN_STEPS,
    CHECKPOINT,
    gradients=True,
)
DISTILL = _solved(
    "distill",
    "distillation of a composition of the sources (Composable Diffusion, arXiv 2206.01714) into a router",
    "R trained until the merge's outputs equal the composition's",
    TRAIN_STEPS,
    CHECKPOINT,
    CORRECTION,
    NEUTRAL_PROMPTS,
    gradients=True,
)
