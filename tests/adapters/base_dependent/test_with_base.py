"""Kinds that need the base weight: ΔW is what the forward pass of LyCORIS and of PEFT does to real modules with random values."""

from __future__ import annotations

import copy
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import BOFTConfig, IA3Config, LoraConfig, OFTConfig, get_peft_model
from peft.tuners.boft import layer as peft_boft
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from optimizer.adapters.base_dependent.kinds import base_kind, change
from optimizer.adapters.expand import BrokenModule

PATH = "unet.some.layer"
LINEAR, SQUARE, POINTS, KERNEL, SQUARE_KERNEL = (8, 12), (8, 8), (8, 12, 1, 1), (8, 12, 3, 3), (8, 8, 3, 3)
SHAPES = (LINEAR, SQUARE, POINTS, KERNEL, SQUARE_KERNEL)
ROLES = {
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_mid.weight": "mid",
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora_magnitude_vector": "magnitude",
    "oft_R.weight": "oft_R",
    **{f"{name}.weight": name for name in ("a1", "a2", "b1", "b2")},
}


def layer(shape: tuple[int, ...], bias: bool = True) -> nn.Linear | nn.Conv2d:
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=bias)
    return nn.Conv2d(shape[1], shape[0], (shape[2], shape[3]), padding=shape[2] // 2, bias=bias)


def probe(shape: tuple[int, ...]) -> Tensor:
    """Inputs that tell every entry of the weight, and the bias."""
    if len(shape) == 2:
        return torch.cat([torch.eye(shape[1]), torch.zeros(1, shape[1])])
    return torch.randn(16, shape[1], 5, 5)


def close(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def assert_forward(base: nn.Linear | nn.Conv2d, delta: Tensor, adapted: Callable[[Tensor], Tensor]) -> None:
    """The base layer with ΔW added does what the adapted one does, and that is not what the base layer does alone."""
    assert delta.dtype == torch.float32
    assert delta.shape == base.weight.shape
    x, changed = probe(tuple(delta.shape)), copy.deepcopy(base)
    changed.weight.add_(delta)
    wanted = adapted(x)
    close(changed(x), wanted)
    assert float((wanted - base(x)).abs().max()) > 1e-2


def tensors_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {ROLES.get(name, name): tensor.detach().clone() for name, tensor in state.items()}


@pytest.fixture(autouse=True)
def _random() -> Any:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        yield


def lycoris(kind: type[Any], base: nn.Module, **options: Any) -> tuple[Any, dict[str, Tensor], Callable[[int], float]]:
    """A LyCORIS module with random values over the layer, its tensors, and its alpha as ``change`` takes it."""
    module = kind("module", base, 1.0, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    tensors = tensors_of(module.state_dict())
    if "oft_blocks" in tensors:
        return module, tensors, float
    alpha = float(tensors.pop("alpha", torch.tensor(1.0)))
    return module, tensors, lambda rank: alpha


DORA: list[tuple[type[Any], dict[str, Any]]] = [
    (LoConModule, {"lora_dim": 3, "alpha": 2.0}),
    (LoConModule, {"lora_dim": 3, "alpha": 2.0, "use_tucker": True}),
    (LohaModule, {"lora_dim": 2, "alpha": 3.0}),
    (LohaModule, {"lora_dim": 2, "alpha": 3.0, "use_tucker": True}),
    (LokrModule, {"lora_dim": 1, "alpha": 0.5, "decompose_both": True, "factor": 4}),
    (LokrModule, {"lora_dim": 10000, "alpha": 1e10, "full_matrix": True}),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_output", [True, False])
@pytest.mark.parametrize(("kind", "options"), DORA, ids=[f"{kind.__name__}-{i}" for i, (kind, _) in enumerate(DORA)])
def test_dora_of_lycoris(kind: type[Any], options: dict[str, Any], on_output: bool, shape: tuple[int, ...]) -> None:
    base = layer(shape)
    module, tensors, alpha_of = lycoris(kind, base, weight_decompose=True, wd_on_out=on_output, **options)
    assert base_kind(tensors) == "DoRA"
    delta = change(PATH, tensors, base.weight, alpha_of, has_bias=True)
    assert_forward(base, delta, module)
    if kind is LoConModule:  # get_merged_weight of LoHa and LoKr (lycoris-lora 4.1) scales twice
        close(base.weight + delta, module.get_merged_weight()[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_input", [True, False])
def test_ia3_of_lycoris(on_input: bool, shape: tuple[int, ...]) -> None:
    base = layer(shape)
    module, tensors, alpha_of = lycoris(IA3Module, base, train_on_input=on_input)
    assert base_kind(tensors) == "(IA)³"
    delta = change(PATH, tensors, base.weight, alpha_of, has_bias=True)
    assert_forward(base, delta, module)
    close(base.weight + delta, module.get_merged_weight()[0])


@pytest.mark.parametrize("shape", [*SHAPES, (16, 5)])
@pytest.mark.parametrize(
    ("kind", "size"),
    [(DiagOFTModule, 2), (DiagOFTModule, 4), (DiagOFTModule, -1), (ButterflyOFTModule, 2), (ButterflyOFTModule, 4)],
)
@pytest.mark.parametrize("constraint", [0, 0.05, 100.0])
@pytest.mark.parametrize("rescaled", [True, False])
def test_oft_of_lycoris(kind: type[Any], size: int, constraint: float, rescaled: bool, shape: tuple[int, ...]) -> None:
    base = layer(shape)
    module, tensors, alpha_of = lycoris(kind, base, lora_dim=size, constraint=constraint, rescaled=rescaled)
    assert base_kind(tensors) == "OFT or BOFT"
    assert tensors["oft_blocks"].ndim == (3 if kind is DiagOFTModule else 4)
    delta = change(PATH, tensors, base.weight, alpha_of, has_bias=True)
    assert_forward(base, delta, module)
    close(base.weight + delta, module.get_merged_weight()[0])


def test_boft_of_lycoris_over_a_side_that_is_no_power_of_two() -> None:
    base = layer((24, 5))
    module, tensors, alpha_of = lycoris(ButterflyOFTModule, base, lora_dim=6)
    assert tensors["oft_blocks"].shape == (3, 4, 6, 6)
    assert_forward(base, change(PATH, tensors, base.weight, alpha_of, has_bias=True), module)


def sd_scripts_oft(weight: Tensor, blocks: Tensor, alpha: float) -> Tensor:
    """W′ as networks/oft.py of kohya-ss/sd-scripts defines it; that repository is not installable, so this is its algebra."""
    skew = blocks - blocks.transpose(1, 2)
    norm = skew.flatten().norm()
    skew = skew * (norm.clamp(max=alpha * weight.shape[0]) + 1e-8) / (norm + 1e-8)
    identity = torch.eye(blocks.shape[1])
    rotations = (identity + skew) @ torch.linalg.inv(identity - skew)
    return torch.cat([rotation.T @ part for rotation, part in zip(rotations, weight.chunk(len(blocks)), strict=True)])


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1e3])
def test_oft_of_sd_scripts_has_the_same_meaning(alpha: float) -> None:
    weight, blocks = torch.randn(LINEAR), torch.randn(2, 4, 4)
    delta = change(PATH, {"oft_blocks": blocks, "alpha": torch.tensor(alpha)}, weight, float, has_bias=False)
    close(weight + delta, sd_scripts_oft(weight, blocks, alpha))


@pytest.mark.parametrize("shape", SHAPES)
def test_glora_of_lycoris(shape: tuple[int, ...]) -> None:
    base = layer(shape)
    module, tensors, alpha_of = lycoris(GLoRAModule, base, lora_dim=3, alpha=2.0)
    assert base_kind(tensors) == "GLoRA"
    delta = change(PATH, tensors, base.weight, alpha_of, has_bias=True)
    assert_forward(base, delta, module)
    close(base.weight + delta, module.get_merged_weight()[0])


def peft(base: nn.Module, config: Any, spread: float = 0.4) -> tuple[Any, dict[str, Tensor], dict[str, Any]]:
    """A PEFT model around the layer, every adapter parameter random; its tensors, and its configuration as the file holds it."""
    model = get_peft_model(nn.Sequential(OrderedDict(layer=copy.deepcopy(base))), config)
    for name, parameter in model.named_parameters():
        if "base_layer" not in name:
            nn.init.normal_(parameter, std=spread)
    state = get_peft_model_state_dict(model)
    fields = model.peft_config["default"].to_dict()
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}
    tensors = tensors_of({name.removeprefix("base_model.model.layer."): tensor for name, tensor in state.items()})
    return model.eval(), tensors, json.loads(json.dumps(settings, default=str))


def merged(model: Any) -> Tensor:
    weight: Tensor = copy.deepcopy(model).merge_and_unload().layer.weight
    return weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stabilised", [True, False])
def test_dora_of_peft(stabilised: bool, shape: tuple[int, ...]) -> None:
    base = layer(shape)
    config = LoraConfig(r=4, lora_alpha=3, use_dora=True, use_rslora=stabilised, target_modules=["layer"])
    model, tensors, settings = peft(base, config)
    alpha = 6.0 if stabilised else 3.0
    assert base_kind(tensors) == "DoRA"
    delta = change(PATH, tensors, base.weight, lambda rank: alpha, has_bias=True, settings=settings)
    assert_forward(base, delta, model)
    close(base.weight + delta, merged(model))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("on_input", [True, False])
def test_ia3_of_peft(on_input: bool, shape: tuple[int, ...]) -> None:
    base = layer(shape, bias=on_input)
    model, tensors, settings = peft(base, IA3Config(target_modules=["layer"], feedforward_modules=["layer"] if on_input else []))
    assert base_kind(tensors) == "(IA)³"
    told = settings if shape == SQUARE_KERNEL else {}  # elsewhere the shape tells
    delta = change(PATH, tensors, base.weight, float, has_bias=on_input, settings=told)
    assert_forward(base, delta, model)
    close(base.weight + delta, merged(model))


@pytest.mark.parametrize("shape", [LINEAR, POINTS])
def test_ia3_of_peft_scales_the_bias_as_well(shape: tuple[int, ...]) -> None:
    base = layer(shape)
    model, tensors, settings = peft(base, IA3Config(target_modules=["layer"], feedforward_modules=[]))
    x = torch.zeros(1, shape[1], *shape[2:])
    close(model(x).flatten(), base(x).flatten() * tensors["ia3_l"].flatten())
    with pytest.raises(BrokenModule, match="scales the layer's bias too"):
        change(PATH, tensors, base.weight, float, has_bias=True, settings=settings)


@pytest.mark.parametrize("shape", [LINEAR, SQUARE, POINTS])
@pytest.mark.parametrize("size", [2, 4, -1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cayley_neumann": False},
        {"block_share": True},
        {"coft": True, "eps": 0.8},
        {"coft": True, "eps": 0.8, "block_share": True, "use_cayley_neumann": False},
        *({"num_cayley_neumann_terms": terms} for terms in (2, 3, 4, 6, 7)),
    ],
    ids=str,
)
def test_oft_of_peft(options: dict[str, Any], size: int, shape: tuple[int, ...]) -> None:
    base = layer(shape)
    config = OFTConfig(r=0, oft_block_size=shape[1] if size < 0 else size, target_modules=["layer"], **options)
    model, tensors, settings = peft(base, config, 0.2)
    assert base_kind(tensors) == "OFT or BOFT"
    # Before the forward pass, which projects the model's parameters in place.
    delta = change(PATH, tensors, base.weight, float, has_bias=True, settings=settings)
    assert_forward(base, delta, model)
    close(base.weight + delta, merged(model))


def test_one_term_of_the_series_is_no_rotation() -> None:
    settings = {"peft_version": "0.21.2", "num_cayley_neumann_terms": 1}
    assert not change(PATH, {"oft_R": torch.ones(3, 6)}, torch.randn(LINEAR), float, has_bias=False, settings=settings).any()


def test_without_settings_the_defaults_of_peft_hold() -> None:
    base = layer(LINEAR)
    model, tensors, _ = peft(base, OFTConfig(r=0, oft_block_size=4, target_modules=["layer"]), 0.2)
    assert_forward(base, change(PATH, tensors, base.weight, float, has_bias=True), model)


def test_oft_of_peft_on_a_kernel_is_no_change_of_the_weight() -> None:
    """Its forward pass folds overlapping patches into sums: even without any rotation it is not the base layer."""
    base = layer(KERNEL)
    model, tensors, settings = peft(base, OFTConfig(r=0, oft_block_size=4, target_modules=["layer"]), 0.0)
    x = probe(KERNEL)
    counts = F.fold(torch.ones(1, 9, 9), (5, 5), 3)
    close(model(x), base(x * counts))
    with pytest.raises(BrokenModule, match="PEFT sums rotated patches"):
        change(PATH, tensors, base.weight, float, has_bias=True, settings=settings)


class BlockDiagonal:
    """Stands in for PEFT's CUDA extension, without which PEFT makes no butterflies: (N, D, b, b) → (N, D·b, D·b)."""

    def forward(self, blocks: Tensor) -> list[Tensor]:
        stages, count, size, _ = blocks.shape
        return [torch.einsum("nkij,kl->nkilj", blocks, torch.eye(count)).reshape(stages, count * size, count * size)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "stages"), [(2, 1), (4, 1), (2, 2), (2, 3), (4, 2)])
def test_boft_of_peft(monkeypatch: pytest.MonkeyPatch, size: int, stages: int, shape: tuple[int, ...]) -> None:
    if math.prod(shape[1:]) % (size * 2 ** (stages - 1)):
        shape = (shape[0], 16, *shape[2:])
    monkeypatch.setattr(peft_boft, "_FBD_CUDA", BlockDiagonal())
    base = layer(shape)
    model, tensors, settings = peft(base, BOFTConfig(boft_block_size=size, boft_n_butterfly_factor=stages, target_modules=["layer"]))
    assert base_kind(tensors) == "OFT or BOFT"
    assert tensors["boft_R"].shape[0] == stages
    delta = change(PATH, tensors, base.weight, float, has_bias=True, settings=settings)
    assert_forward(base, delta, model)
    close(base.weight + delta, merged(model))


def test_boft_of_peft_with_one_stage_of_odd_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_boft, "_FBD_CUDA", BlockDiagonal())
    base = layer((8, 9))
    model, tensors, _ = peft(base, BOFTConfig(boft_block_size=3, target_modules=["layer"]))
    assert_forward(base, change(PATH, tensors, base.weight, float, has_bias=True), model)


@pytest.mark.parametrize("tensors", [["up", "down"], ["hada_w1_a", "alpha"], ["lokr_w1"], ["alpha"], []])
def test_additive_kinds_need_no_base(tensors: list[str]) -> None:
    assert base_kind(tensors) is None
    with pytest.raises(ValueError, match="needs no base weight"):
        change(PATH, {role: torch.ones(2, 2) for role in tensors}, torch.ones(2, 2), float, has_bias=False)


def test_half_precision_in_gives_full_precision_out() -> None:
    weight, tensors = torch.randn(LINEAR), {"weight": torch.randn(12).half(), "on_input": torch.tensor(1)}
    delta = change(PATH, tensors, weight.half(), float, has_bias=False)
    close(delta, weight.half().float() * tensors["weight"].float())


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


PAIR = {"up": ones(8, 2), "down": ones(2, 12)}
GLORA = {"a1": ones(12, 2), "a2": ones(2, 12), "b1": ones(8, 2), "b2": ones(2, 12)}
BROKEN: list[tuple[dict[str, Tensor], str]] = [
    ({"dora_scale": ones(8, 1)}, "dora_scale: stands alone"),
    ({"dora_scale": ones(8)} | PAIR, r"dora_scale: shape \(8,\) is neither one column of 8 nor one row of 12"),
    ({"dora_scale": ones(8, 2)} | PAIR, r"dora_scale: shape \(8, 2\) is neither"),
    ({"dora_scale": ones(8, 1)} | PAIR | {"up": ones(9, 2)}, r"dora_scale: its factors make a \(9, 12\) change of a \(8, 12\)"),
    ({"dora_scale": ones(8, 1), "up": ones(8, 2)}, "up: its other half, down, is missing"),
    ({"dora_scale": ones(8, 1), "magnitude": ones(8)} | PAIR, "magnitude: does not belong beside dora_scale"),
    ({"dora_scale": ones(8, 1), "alpha": ones(1)} | PAIR, "alpha: does not belong beside dora_scale"),
    ({"magnitude": ones(1, 12)} | PAIR, r"magnitude: shape \(1, 12\) is not one magnitude for each of 8 outputs"),
    ({"magnitude": ones(8), "up": ones(0, 2), "down": ones(2, 12)}, r"up: has no elements: shape \(0, 2\)"),
    ({"weight": ones(8)}, "weight: its other half, on_input, is missing"),
    ({"weight": ones(8), "on_input": ones(2)}, r"on_input: is not one number of at least 0: shape \(2,\)"),
    ({"weight": ones(8), "on_input": ones(1)}, r"weight: shape \(8,\) is not one value for each of 12 inputs"),
    ({"weight": ones(2, 4), "on_input": 0 * ones(1)}, r"weight: shape \(2, 4\) is not one value for each of 8 outputs"),
    ({"ia3_l": ones(1, 8)}, r"ia3_l: shape \(1, 8\) is neither \(8, 1\), for outputs, nor \(1, 12\), for inputs"),
    ({"ia3_l": ones(1, 12), "up": ones(8, 2)}, "up: does not belong beside ia3_l"),
    ({"oft_blocks": ones(2, 4, 3)}, r"oft_blocks: shape \(2, 4, 3\) is not a list of square blocks"),
    ({"oft_blocks": ones(3, 4, 4)}, "oft_blocks: 3 blocks of 4 do not fill the weight's side of 8"),
    ({"oft_blocks": ones(2, 4, 4), "alpha": -ones(1)}, "alpha: is not one number of at least 0"),
    ({"oft_blocks": ones(2, 4, 4), "rescale": ones(12, 1)}, r"rescale: shape \(12, 1\) is not one value for each of 8 outputs"),
    ({"oft_blocks": ones(3, 2, 4, 4)}, "oft_blocks: blocks of 4 make no butterfly of this many stages over 8"),
    ({"oft_blocks": ones(1, 8, 1, 1)}, "oft_blocks: blocks of 1 make no butterfly"),
    ({"oft_R": ones(3, 4, 4)}, r"oft_R: shape \(3, 4, 4\) is not one upper triangle for each block"),
    ({"oft_R": ones(3, 5)}, r"oft_R: shape \(3, 5\) is not one upper triangle"),
    ({"oft_R": ones(2, 6)}, "oft_R: 2 blocks of 4 do not fill the weight's side of 12"),
    ({"oft_R": ones(1, 10)}, "oft_R: 2 blocks of 5 do not fill the weight's side of 12"),
    ({"boft_R": ones(1, 3, 4, 4)}, "boft_R: its other half, boft_s, is missing"),
    ({"boft_R": ones(3, 4, 4), "boft_s": ones(8, 1)}, r"boft_R: shape \(3, 4, 4\) is not a list of square blocks for each stage"),
    ({"boft_R": ones(2, 3, 4, 4), "boft_s": ones(8, 1)}, "boft_R: blocks of 4 make no butterfly of this many stages over 12"),
    ({"boft_R": ones(1, 3, 4, 4), "boft_s": ones(12, 1)}, r"boft_s: shape \(12, 1\) is not one value for each of 8 outputs"),
    (GLORA | {"bm": ones(2, 2)}, "bm: does not belong beside a1"),
    (GLORA | {"a2": ones(3, 12)}, r"a1: shapes do not multiply: \(12, 2\) @ \(3, 12\)"),
    (GLORA | {"b1": ones(9, 2)}, r"a1: a1·a2 is \(12, 12\) and b1·b2 \(9, 12\), for a \(8, 12\) weight"),
    ({"a1": ones(12, 2)}, "a1: its other half, a2, is missing"),
]


@pytest.mark.parametrize(("tensors", "message"), BROKEN)
def test_what_does_not_fit_is_named(tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(BrokenModule, match=f"^{message}"):
        change(PATH, tensors, ones(*LINEAR), float, has_bias=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 3}, "written by PEFT before 0.18"),
        ({"peft_version": "0.17.1"}, "written by PEFT before 0.18"),
        ({"peft_version": "0.21.2", "num_cayley_neumann_terms": 10**12}, "num_cayley_neumann_terms is 1000000000000, not"),
        ({"peft_version": "0.21.2", "num_cayley_neumann_terms": 10**400}, "gives num_cayley_neumann_terms as '10000000"),
        ({"peft_version": "0.21.2", "num_cayley_neumann_terms": "5"}, "gives num_cayley_neumann_terms as '5'"),
        ({"use_cayley_neumann": 1}, "gives use_cayley_neumann as '1'"),
        ({"use_cayley_neumann": False, "coft": True, "eps": math.nan}, "gives eps as 'nan'"),
    ],
)
def test_settings_that_cannot_be_right_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenModule, match=f"^oft_R: .*{message}"):
        change(PATH, {"oft_R": ones(3, 6)}, ones(*LINEAR), float, has_bias=False, settings=settings)


@pytest.mark.parametrize("names", [None, ".*layer", [1]])
def test_ia3_on_a_square_convolution_needs_the_names_of_the_feedforward_modules(names: Any) -> None:
    settings = {"feedforward_modules": names}
    with pytest.raises(BrokenModule, match="ia3_l: may scale 8 inputs or as many outputs"):
        change(PATH, {"ia3_l": ones(1, 8, 1, 1)}, ones(*SQUARE_KERNEL), float, has_bias=False, settings=settings)
