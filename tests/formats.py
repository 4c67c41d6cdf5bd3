"""Every file format: dialect × family × kind, each with a maker of small files that knows nothing of the code under test.

``python -m tests.formats`` prints docs/formats.md from these tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.files import Made, kohya_name, lycoris_delta, lycoris_module, old_processor_name

Shape = tuple[int, ...]

FAMILIES = {
    "sd1": "Stable Diffusion 1.x",
    "sd2": "Stable Diffusion 2.x",
    "sdxl": "Stable Diffusion XL",
    "sd3": "Stable Diffusion 3 / 3.5",
    "flux1": "FLUX.1",
    "qwen-image": "Qwen-Image",
}
VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0", "sd3": "sd3", "flux1": "flux1", "qwen-image": "qwen_image"}
"""Family → the ``ss_base_model_version`` by which a file of tiny shapes says so."""

TRANSFORMERS = ("sd3", "flux1", "qwen-image")
RENAMED = ("sd3", "flux1")
"""Those whose original code has names of its own."""


@dataclass(frozen=True)
class Weight:
    """One weight as a dialect has it.

    Attributes:
        name: in the file, in front of the suffix.
        shape: shape of the weight.
        modules: canonical path → the rows of the weight that are this module's.
    """

    name: str
    shape: Shape
    modules: Mapping[str, slice | Tensor]


@dataclass(frozen=True)
class DialectFormat:
    """A dialect.

    Attributes:
        title: for people.
        families: those that it has names for.
        kinds: those that its writers have.
        weights: family → its weights.
        suffixes: suffixes of up and down.
        alphas: whether alpha stands beside them.
        written: the name that this software writes it under.
        loaders: family → who reads what is written.
    """

    title: str
    families: tuple[str, ...]
    kinds: tuple[str, ...]
    weights: Callable[[str], list[Weight]]
    suffixes: tuple[str, str]
    alphas: bool = True
    written: str = ""
    loaders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@cache
def shapes(family: str) -> dict[str, Shape]:
    """Canonical path → weight shape, of a tiny pipeline of the family with all its text encoders."""
    from optimizer.adapters import weight_shapes
    from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_qwen_pipeline, tiny_sd3_pipeline, tiny_xl_pipeline

    makers: dict[str, Callable[[], DiffusionPipeline]] = {
        **{"sd1": tiny_pipeline, "sd2": tiny_pipeline, "sdxl": tiny_xl_pipeline},
        **{"sd3": tiny_sd3_pipeline, "flux1": tiny_flux_pipeline, "qwen-image": tiny_qwen_pipeline},
    }
    components = makers[family]().components
    return weight_shapes({part: model for part, model in components.items() if isinstance(model, nn.Module)})


_SGM_LEAVES = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_SGM_SINGLE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
# The rules by which diffusers converts the transformers of Stability AI and Black Forest Labs, written the other way round.
_NATIVE: dict[str, tuple[tuple[str, str], ...]] = {
    "sd3": (
        (r"transformer_blocks\.(\d+)\.attn\.to_[qkv]", r"joint_blocks.\1.x_block.attn.qkv"),
        (r"transformer_blocks\.(\d+)\.attn2\.to_[qkv]", r"joint_blocks.\1.x_block.attn2.qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj", r"joint_blocks.\1.context_block.attn.qkv"),
        (r"transformer_blocks\.(\d+)\.(attn2?)\.to_out\.0", r"joint_blocks.\1.x_block.\2.proj"),
        (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"joint_blocks.\1.context_block.attn.proj"),
        (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"joint_blocks.\1.x_block.mlp.fc1"),
        (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"joint_blocks.\1.x_block.mlp.fc2"),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"joint_blocks.\1.context_block.mlp.fc1"),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"joint_blocks.\1.context_block.mlp.fc2"),
        (r"transformer_blocks\.(\d+)\.norm1\.linear", r"joint_blocks.\1.x_block.adaLN_modulation.1"),
        (r"transformer_blocks\.(\d+)\.norm1_context\.linear", r"joint_blocks.\1.context_block.adaLN_modulation.1"),
        (r"pos_embed\.proj", "x_embedder.proj"),
        (r"time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
        (r"time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
        (r"time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
        (r"time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
        (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"proj_out", "final_layer.linear"),
    ),
    "flux1": (
        (r"single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)", r"single_blocks.\1.linear1"),
        (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
        (r"single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
        (r"transformer_blocks\.(\d+)\.attn\.to_[qkv]", r"double_blocks.\1.img_attn.qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj", r"double_blocks.\1.txt_attn.qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj"),
        (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj"),
        (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0"),
        (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2"),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0"),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2"),
        (r"transformer_blocks\.(\d+)\.norm1\.linear", r"double_blocks.\1.img_mod.lin"),
        (r"transformer_blocks\.(\d+)\.norm1_context\.linear", r"double_blocks.\1.txt_mod.lin"),
        (r"x_embedder", "img_in"),
        (r"context_embedder", "txt_in"),
        (r"time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
        (r"time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
        (r"time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
        (r"time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
        (r"time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
        (r"time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
        (r"norm_out\.linear", "final_layer.adaLN_modulation.1"),
        (r"proj_out", "final_layer.linear"),
    ),
}
_ORDER = ("to_q", "to_k", "to_v", "proj_mlp", "add_q_proj", "add_k_proj", "add_v_proj")
_TEXT = {
    "kohya": {
        "sd1": ("lora_te_",),
        "sd2": ("lora_te_",),
        "sdxl": ("lora_te1_", "lora_te2_"),
        "sd3": ("lora_te1_", "lora_te2_", "lora_te3_"),
        "flux1": ("lora_te1_", "lora_te3_"),
    },
    "comfyui": {
        "sd1": ("clip_l",),
        "sd2": ("clip_h",),
        "sdxl": ("clip_l", "clip_g"),
        "sd3": ("clip_l", "clip_g", "t5xxl"),
        "flux1": ("clip_l", "t5xxl"),
    },
}
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def native_name(family: str, name: str) -> str:
    """What the model's original code calls the weight that holds a module of the denoiser."""
    if family in TRANSFORMERS:
        return next((re.sub(old, new, name) for old, new in _NATIVE.get(family, ()) if re.fullmatch(old, name)), name)
    return _sgm_name(name, plain_first=family != "sdxl")


def _sgm_name(name: str, plain_first: bool) -> str:
    if name in _SGM_SINGLE:
        return _SGM_SINGLE[name]
    way, *rest = name.split(".")
    if way == "mid_block":
        kind, index, leaf = rest[0], int(rest[1]), ".".join(rest[2:])
        return f"middle_block.1.{leaf}" if kind == "attentions" else f"middle_block.{2 * index}.{_SGM_LEAVES[leaf]}"
    level, kind, index, leaf = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if plain_first and level == 0 else 2}.conv"
    block = f"input_blocks.{3 * level + index + 1}" if way == "down_blocks" else f"output_blocks.{3 * level + index}"
    return f"{block}.1.{leaf}" if kind == "attentions" else f"{block}.0.{_SGM_LEAVES[leaf]}"


def split(path: str) -> tuple[str, str]:
    part, _, name = path.partition(".")
    return part, name


def single(family: str, name: Callable[[str], str]) -> list[Weight]:
    """A weight for every module."""
    return [Weight(name(path), shape, {path: slice(None)}) for path, shape in shapes(family).items()]


def native(family: str, denoiser: str, flat: bool, text: Callable[[str], str] | None) -> list[Weight]:
    """The denoiser's weights as the original code has them, and the text encoders' under a name of their own, if any.

    Args:
        family: family of the base model.
        denoiser: prefix.
        flat: underscores for dots.
        text: canonical path of a text encoder's module → name in the file; None leaves them out.
    """
    found: dict[str, list[str]] = {}
    for path in shapes(family):
        part, name = split(path)
        if part in ("unet", "transformer"):
            spelt = native_name(family, name)
            found.setdefault(denoiser + (spelt.replace(".", "_") if flat else spelt), []).append(path)
        elif text is not None:
            found.setdefault(text(path), []).append(path)
    return [_weight(name, paths, family) for name, paths in found.items()]


def _weight(name: str, paths: list[str], family: str) -> Weight:
    if len(paths) > 1:
        paths = sorted(paths, key=lambda path: next(i for i, leaf in enumerate(_ORDER) if path.endswith(leaf)))
    of = [shapes(family)[path] for path in paths]
    rows: dict[str, slice | Tensor] = {}
    start = 0
    for path, shape in zip(paths, of, strict=True):
        rows[path] = slice(start, start + shape[0])
        start += shape[0]
    if "adaLN_modulation" in name and start == 2 * of[0][1]:  # scale and shift change places
        rows = {paths[0]: torch.arange(start).roll(start // 2)}
    return Weight(name, (start, *of[0][1:]), rows)


def kohya_text(family: str) -> Callable[[str], str]:
    return lambda path: _TEXT["kohya"][family][_ENCODERS.index(split(path)[0])] + split(path)[1].replace(".", "_")


def comfyui_text(family: str) -> Callable[[str], str]:
    return lambda path: f"text_encoders.{_TEXT['comfyui'][family][_ENCODERS.index(split(path)[0])]}.transformer.{split(path)[1]}"


def kohya(family: str) -> list[Weight]:
    if family in ("sd1", "sd2"):
        return single(family, kohya_name)
    return native(family, "lora_unet_", True, kohya_text(family))


def onetrainer(family: str) -> list[Weight]:
    denoiser = "lora_transformer_" if family in TRANSFORMERS else "lora_unet_"
    numbers = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}
    return single(family, lambda path: numbers.get(split(path)[0], denoiser) + split(path)[1].replace(".", "_"))


def comfyui(family: str) -> list[Weight]:
    return native(family, "diffusion_model.", False, comfyui_text(family))


def xlabs(family: str) -> list[Weight]:
    names = {"img_attn.qkv": "qkv_lora1", "txt_attn.qkv": "qkv_lora2", "img_attn.proj": "proj_lora1", "txt_attn.proj": "proj_lora2"}
    found = []
    for weight in native(family, "", False, None):
        match = re.fullmatch(r"(double_blocks\.\d+)\.(.+)", weight.name)
        if match and match[2] in names:
            found.append(Weight(f"{match[1]}.processor.{names[match[2]]}", weight.shape, weight.modules))
        elif match := re.fullmatch(r"(single_blocks\.\d+)\.linear([12])", weight.name):
            found.append(_xlabs_single(match[1], match[2], weight))
    return found


def _xlabs_single(block: str, which: str, weight: Weight) -> Weight:
    if which == "2":
        return Weight(f"{block}.processor.proj_lora", weight.shape, weight.modules)
    width = weight.shape[1]
    modules = {path: rows for path, rows in weight.modules.items() if ".attn." in path}
    return Weight(f"{block}.processor.qkv_lora", (3 * width, width), modules)


def old_diffusers(family: str) -> list[Weight]:
    return [weight for weight in single(family, old_processor_name) if ".attn" in weight.name]


LORA = ("LoRA",)
LYCORIS = ("LoRA", "LoCon (Tucker)", "LoHa", "LoHa (Tucker)", "LoKr", "LoKr (factored)", "LoKr (whole)", "full")
_UP_DOWN = (".lora_up.weight", ".lora_down.weight")
_ALL, _U_NETS = tuple(FAMILIES), ("sd1", "sd2", "sdxl")
_DIFFUSERS = {
    **dict.fromkeys((*_U_NETS, "qwen-image"), ("diffusers", "PEFT")),
    **dict.fromkeys(RENAMED, ("diffusers (without T5)", "PEFT")),
}

DIALECTS: dict[str, DialectFormat] = {
    "kohya": DialectFormat(
        "kohya (sd-scripts, musubi-tuner)",
        _ALL,
        LYCORIS,
        kohya,
        _UP_DOWN,
        written="kohya",
        loaders={
            **dict.fromkeys(_U_NETS, ("diffusers", "lycoris-lora")),
            "sd3": ("lycoris-lora",),
            "flux1": ("diffusers (the blocks)", "lycoris-lora (without T5)"),
            "qwen-image": ("diffusers", "lycoris-lora"),
        },
    ),
    "lycoris": DialectFormat(
        "LyCORIS wrapper, SimpleTuner (`lycoris_`)",
        _ALL,
        LYCORIS,
        lambda family: single(family, lambda path: "lycoris_" + path.replace(".", "_")),
        _UP_DOWN,
    ),
    "onetrainer": DialectFormat("OneTrainer", _ALL, LYCORIS, onetrainer, _UP_DOWN),
    "diffusers": DialectFormat(
        "diffusers, ai-toolkit",
        _ALL,
        LORA,
        lambda family: single(family, str),
        (".lora_B.weight", ".lora_A.weight"),
        alphas=False,
        written="diffusers",
        loaders=_DIFFUSERS,
    ),
    "diffusers-old": DialectFormat(
        "diffusers' attention processors", _U_NETS, LORA, old_diffusers, (".up.weight", ".down.weight"), alphas=False
    ),
    "peft": DialectFormat(
        "PEFT",
        _ALL,
        LORA,
        lambda family: single(family, lambda path: f"base_model.model.{path}"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
        alphas=False,
    ),
    "comfyui": DialectFormat(
        "ComfyUI",
        _ALL,
        LYCORIS,
        comfyui,
        _UP_DOWN,
        written="comfyui",
        loaders={"flux1": ("diffusers (the blocks)",), "qwen-image": ("diffusers",)},
    ),
    "original": DialectFormat(
        "the original code's names (BFL)",
        RENAMED,
        LORA,
        lambda family: native(family, "", False, None),
        (".lora_B.weight", ".lora_A.weight"),
        alphas=False,
    ),
    "xlabs": DialectFormat("XLabs", ("flux1",), LORA, xlabs, (".up.weight", ".down.weight"), alphas=False),
}

WITH_BASE = {
    "DoRA": ("LyCORIS", "PEFT"),
    "(IA)³": ("LyCORIS", "PEFT"),
    "OFT": ("LyCORIS", "PEFT"),
    "BOFT": ("LyCORIS", "PEFT"),
    "GLoRA": ("LyCORIS",),
}
"""Kind that multiplies the base weight → whose files of it are read, with the base model's folder."""

REFUSED = {
    "OFT of PEFT before 0.14, GLoRA with a middle factor": "its library no longer writes it",
    "`reshape_weight`, `set_weight`": "the change replaces the base weight",
    "`diff_b`, `lora_B.bias`": "a change of a bias; the rest is read with `--allow-unknown`",
    "`w_norm`, `b_norm`": "a trained norm; the rest is read with `--allow-unknown`",
    "`lora_embedding_A`, `bundle_emb.…`": "an embedding; the rest is read with `--allow-unknown`",
    "`.ckpt`, `.pt`, `.bin`": "pickled code",
}

_STRIDE = 4  # LyCORIS's modules take their time; it divides no block's number of weights, so all sorts are among them
_MODULES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "LoCon (Tucker)": (LoConModule, {"lora_dim": 2, "alpha": 1.0, "use_tucker": True}),
    "LoHa": (LohaModule, {"lora_dim": 2, "alpha": 1.0}),
    "LoHa (Tucker)": (LohaModule, {"lora_dim": 2, "alpha": 3.0, "use_tucker": True}),
    "LoKr": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "factor": 4}),
    "LoKr (factored)": (LokrModule, {"lora_dim": 1, "alpha": 0.5, "decompose_both": True, "factor": 4}),
    "LoKr (whole)": (LokrModule, {"lora_dim": 10000, "alpha": 1e10, "full_matrix": True, "factor": 4}),
}


def cells() -> Iterator[tuple[str, str, str]]:
    """Every (dialect, family, kind) that is read."""
    for name, dialect in DIALECTS.items():
        for family in dialect.families:
            for kind in dialect.kinds:
                yield name, family, kind


def make(path: Path, dialect: str, family: str, kind: str, *, seed: int = 0, metadata: Mapping[str, str] | None = None) -> Made:
    """Write a file of a format and return what every module changes."""
    record = DIALECTS[dialect]
    tensors: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        weights = record.weights(family)
        for index, weight in enumerate(weights if kind == "LoRA" else weights[::_STRIDE]):
            own, delta = _lora(record, weight.shape, index) if kind == "LoRA" else _lycoris(kind, weight.shape)
            tensors |= {weight.name + suffix: value.contiguous() for suffix, value in own.items()}
            deltas |= {module: delta[rows] for module, rows in weight.modules.items()}
    save_file(tensors, path, dict(metadata or {}))
    return Made(path, deltas)


def _lora(record: DialectFormat, shape: Shape, index: int) -> tuple[dict[str, Tensor], Tensor]:
    """A LoRA of rank 1 to 3 and, where the dialect has alphas, an alpha of its own."""
    rank, (out, *rest) = 1 + index % 3, shape
    alpha = (1.0, 2.0, 6.5)[index // 3 % 3] if record.alphas else float(rank)
    up, down = (torch.randn(out, rank) * 0.1).half(), (torch.randn(rank, *rest) * 0.1).half()
    delta = (alpha / rank * (up.float() @ down.float().flatten(1))).reshape(shape)
    own = {record.suffixes[0]: up.reshape(out, rank, *(1 for _ in rest[1:])), record.suffixes[1]: down}
    return own | ({".alpha": torch.tensor(alpha)} if record.alphas else {}), delta


def _lycoris(kind: str, shape: Shape) -> tuple[dict[str, Tensor], Tensor]:
    if kind == "full":
        delta = torch.randn(shape) * 0.01
        return {".diff": delta}, delta
    module_kind, options = _MODULES[kind]
    layer = lycoris_module(module_kind, shape, **options)
    return {f".{key}": value.detach().clone() for key, value in layer.custom_state_dict().items()}, lycoris_delta(layer, shape)


def page() -> str:
    """docs/formats.md."""
    rows = [
        [dialect.title, *(_cell(dialect, family) for family in FAMILIES), ", ".join(dict.fromkeys(map(_plain, dialect.kinds)))]
        for dialect in DIALECTS.values()
    ]
    loaders = [
        [f"`{dialect.written}`", *(", ".join(dialect.loaders.get(family, ())) or "–" for family in FAMILIES)]
        for dialect in DIALECTS.values()
        if dialect.written
    ]
    based = [[kind, *("read" if library in libraries else "–" for library in ("LyCORIS", "PEFT"))] for kind, libraries in WITH_BASE.items()]
    return "\n".join(
        [
            "# Formats",
            "",
            "What is read and written, by whose tensor names, for which base model. Every cell is a test: a file is built by the dialect's",
            "own rules, with lycoris-lora's factors where the kind is LyCORIS's, and every module's ΔW is compared (`tests/formats.py`,",
            "from which `python -m tests.formats` makes this page).",
            "",
            *_table(["names", *FAMILIES.values(), "kinds"], rows),
            "",
            "All are stored as fp32, bf16, fp16 or fp8 and come with `.alpha` tensors, PEFT's `adapter_config.json`, diffusers' header, or",
            "none (alpha = rank). Factors of LoHa, LoKr and LoCon expand to low rank exactly; PEFT's LoHa and LoKr are read, too.",
            "Projections that the original code keeps in one weight (q, k, v; in FLUX.1's single blocks also the feed-forward layer) are",
            "taken apart, and put together again, exactly.",
            "",
            "These kinds multiply the base weight; with the base model's folder they are read as what they change at strength 1:",
            "",
            *_table(["kind", "by LyCORIS", "by PEFT"], based),
            "",
            "## Who loads what is written",
            "",
            "Tested against the loaders themselves, with every key used and every layer's change compared (1e-3 in fp16, 1e-6 in fp32):",
            "",
            *_table(["dialect", *FAMILIES.values()], loaders),
            "",
            "ComfyUI, A1111, Forge, InvokeAI and sd-scripts cannot be run by these tests; the `kohya` and `comfyui` dialects follow the",
            "names in their sources. diffusers 0.42 loads no LoRA into T5, and of FLUX.1 under original names only the blocks.",
            "",
            "## Refused, by name",
            "",
            *_table(["what", "why"], [[what, why] for what, why in REFUSED.items()]),
            "",
        ]
    )


def _cell(dialect: DialectFormat, family: str) -> str:
    if family not in dialect.families:
        return "–"
    return f"read, write `{dialect.written}`" if dialect.written else "read"


def _plain(kind: str) -> str:
    return {"full": "full difference", "LoCon (Tucker)": "LoCon"}.get(kind, kind.partition(" (")[0])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    print(page(), end="")
