"""The memory plan: what is chosen where nothing is asked for, what is said of it, and what does not go together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from optimizer.errors import UsageError
from optimizer.rendering import Loading
from optimizer.rendering.assemble import demand as demanded
from optimizer.rendering.memory.placement import Demand, plan_placement
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

GIB = 1 << 30
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SDXL = Demand({"unet": 5 * GIB, "text_encoder_2": GIB, "vae": GIB // 4}, "unet", 1024 * 1024, 2, quantised=False)
FLUX = Demand({"transformer": 22 * GIB, "text_encoder_2": 9 * GIB, "vae": GIB // 4}, "transformer", 1024 * 1024, 2, quantised=False)


@pytest.mark.parametrize(
    ("demand", "free", "offload", "branch"),
    [
        (SDXL, 80, "none", False),
        (SDXL, 24, "none", False),
        (SDXL, 12, "none", True),
        (SDXL, 8, "model", False),
        (SDXL, 6, "sequential", False),
        (FLUX, 80, "none", False),
        (FLUX, 48, "none", True),
        (FLUX, 32, "model", False),
        (FLUX, 16, "sequential", False),
        (replace(FLUX, parts={"transformer": 7 * GIB, "text_encoder_2": 3 * GIB}, quantised=True), 16, "none", True),
    ],
)
def test_what_fits_on_a_card(demand: Demand, free: int, offload: str, branch: bool) -> None:
    found = plan_placement(demand, free * GIB, Loading(), CUDA, torch.bfloat16)
    assert (found.offload, found.branch) == (offload, branch)


def test_a_cpu_computes_where_everything_lies() -> None:
    found = plan_placement(SDXL, GIB, Loading(), CPU, torch.float32)
    assert (found.offload, found.branch, found.marks) == ("none", False, ())
    assert found.plan == "memory: 6.7 GB of weights in fp32, 1.1 GB free on cpu: all of them on cpu; candidates in the weights"


def test_what_is_asked_for_is_done() -> None:
    found = plan_placement(SDXL, 80 * GIB, Loading(offload="model", apply="branch", vae_tiling=True), CUDA, torch.float16)
    assert (found.offload, found.branch, found.marks) == ("model", True, ("branch", "tiled"))
    assert found.plan == (
        "memory: 6.7 GB of weights in fp16, 86 GB free on cuda: those that are idle in the computer's memory; "
        "candidates in branches beside the weights"
    )
    found = plan_placement(FLUX, 40 * GIB, Loading(compile=True), CUDA, torch.bfloat16)
    assert (found.offload, found.compiled, found.branch) == ("none", True, True)


@pytest.mark.parametrize(
    ("demand", "free", "sliced"),
    [
        (replace(SDXL, batch=16), 80, False),
        (replace(SDXL, batch=16), 24, True),
        (replace(SDXL, batch=16, upcast=True), 80, True),
        (replace(SDXL, batch=4, upcast=True), 80, False),
        (replace(SDXL, batch=1), 16, False),
        (replace(FLUX, batch=16), 32, True),  # with offload the autoencoder alone is there
        (replace(FLUX, batch=8), 32, False),
    ],
)
def test_a_batch_that_there_is_no_room_to_decode_is_decoded_picture_by_picture(demand: Demand, free: int, sliced: bool) -> None:
    """Or all its denoising would be for nothing, and smaller batches would be drawn all night."""
    found = plan_placement(demand, free * GIB, Loading(), CUDA, torch.float16)
    assert found.sliced == sliced
    assert found.plan.endswith("; pictures decoded one at a time") == sliced
    assert not plan_placement(demand, GIB, Loading(), CPU, torch.float32).sliced
    assert plan_placement(demand, GIB, Loading(vae_slicing=True), CPU, torch.float32).sliced


def test_what_a_pipeline_wants() -> None:
    pipeline = tiny_xl_pipeline().to(torch.float16)
    found = demanded(pipeline, 64, torch.float16, 3)
    assert (found.pixels, found.batch, found.upcast, found.quantised) == (64 * 64, 3, True, False)
    assert not demanded(pipeline, 64, torch.bfloat16).upcast
    assert not demanded(tiny_pipeline(), 64, torch.float16).upcast


@pytest.mark.parametrize(
    ("loading", "device", "message"),
    [
        (Loading(offload="model"), CPU, "--offload: everything lies in the computer's memory anyway — leave it out, or use a GPU"),
        (Loading(offload="model", compile=True), CUDA, "--offload model: a compiled model must stay where it is — leave out one of them"),
        (Loading(apply="weights"), CUDA, "--apply weights: the base is quantised, and nothing can be added to weights of a few bits — "),
    ],
)
def test_what_does_not_go_together(loading: Loading, device: torch.device, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_placement(replace(SDXL, quantised=loading.apply == "weights"), 80 * GIB, loading, device, torch.float16)
    assert str(caught.value).startswith(message)
