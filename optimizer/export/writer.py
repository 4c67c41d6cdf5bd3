"""Writes the merged LoRA with the metadata that trainers, web UIs and model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from optimizer.adapters import Adapter, Dialect, adapter_tensors, clean_name, model_hashes, save_adapter
from optimizer.adapters.families import FAMILIES
from optimizer.export.heritage import Heritage
from optimizer.export.naming import unversioned
from optimizer.export.setup import SETUP_KEY, Setup

RECIPE_KEY = "multilora_recipe"
"""Metadata key that holds the merge's recipe as JSON."""


@dataclass(frozen=True)
class ExportMetadata:
    """Metadata of a merge for the file header.

    Attributes:
        title: human-readable title.
        merged_from: names of the sources, in order.
        triggers: trigger words of the sources.
        recipe: the recipe as JSON-ready data.
        description: one-sentence description of the merge.
        heritage: licence, authors and tags inherited from the sources.
        date: ISO 8601 date; empty by default, so that equal inputs give equal bytes.
        resolution: intended image resolution in pixels, such as ``"512x512"``; by default that of the base model family.
        extra: further metadata strings; they override generated ones with equal keys.
        roles: roles of the sources.
        tags: tags for model hubs, written before the inherited tags.
    """

    title: str
    merged_from: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    description: str = ""
    heritage: Heritage = field(default_factory=Heritage)
    date: str = ""
    resolution: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("lora", "merge")


def export_adapter(
    merged: Adapter,
    path: str | Path,
    *,
    dialect: Dialect = "kohya",
    dtype: torch.dtype = torch.float16,
    metadata: ExportMetadata,
) -> Path:
    """Writes the merged adapter with full metadata; equal adapter, file name and metadata give equal bytes.

    The header holds sd-scripts' minimum (``ss_network_*``, ``ss_base_model_version``, ``ss_v2``, and the ``sshs_`` hashes),
    ModelSpec 1.0.1 (https://github.com/Stability-AI/ModelSpec), and the recipe with its setup. The version at the end of the file's
    name is not part of ``ss_output_name``, so that a rewritten merge has equal bytes.

    Returns:
        The path of the file.

    Raises:
        AdapterError: a value does not fit the dtype, or the file cannot be written.
    """
    path = Path(path)
    tensors, _ = adapter_tensors(merged, path, dialect=dialect, dtype=dtype)
    training = {**_training(merged.base, tensors, dialect), "ss_output_name": clean_name(unversioned(path.stem), 120)}
    model_hash, legacy_hash = model_hashes(tensors, training)
    header = {
        **training,
        **_modelspec(merged.base, metadata),
        "modelspec.hash_sha256": f"0x{model_hash}",
        "sshs_model_hash": model_hash,
        "sshs_legacy_hash": legacy_hash,
        SETUP_KEY: Setup(dialect=dialect, names=metadata.merged_from, roles=metadata.roles, triggers=metadata.triggers).to_header(),
        **({RECIPE_KEY: json.dumps(metadata.recipe, sort_keys=True, ensure_ascii=False)} if metadata.recipe else {}),
        **metadata.extra,
    }
    return save_adapter(merged, path, dialect, dtype, header)


def _training(base: str, tensors: Mapping[str, Tensor], dialect: Dialect) -> dict[str, str]:
    """Returns sd-scripts' minimum metadata, which describe the file's network module, rank and alpha."""
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith((".lora_down.weight", ".lora_A.weight"))}
    alphas = {float(tensor) for name, tensor in tensors.items() if name.endswith(".alpha")} or {float(rank) for rank in ranks}
    fields = {
        "ss_network_module": FAMILIES[base].network if base in FAMILIES else "networks.lora",
        "ss_network_dim": _one_or_dynamic({str(rank) for rank in ranks}),
        "ss_network_alpha": _one_or_dynamic({f"{alpha:g}" for alpha in alphas}),
        "ss_v2": str(base in FAMILIES and FAMILIES[base].v2),
    }
    if any(tensor.ndim == 4 and tensor.shape[2:] != (1, 1) for tensor in tensors.values()):
        conv = {"conv_dim": fields["ss_network_dim"], "conv_alpha": fields["ss_network_alpha"]}
        fields["ss_network_args"] = json.dumps(conv)
    return fields | ({"ss_base_model_version": FAMILIES[base].versions[0]} if base in FAMILIES else {})


def _one_or_dynamic(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else "Dynamic"


def _modelspec(base: str, metadata: ExportMetadata) -> dict[str, str]:
    family, own = FAMILIES.get(base), metadata.heritage
    fields = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{family.architecture if family else base}/lora",
        "implementation": family.implementation if family else "diffusers",
        "title": metadata.title,
        "description": metadata.description,
        "date": metadata.date,
        "resolution": metadata.resolution or (family.resolution if family else ""),
        "merged_from": ", ".join(metadata.merged_from),
        "trigger_phrase": ", ".join(trigger for trigger in metadata.triggers if trigger),
        "usage_hint": "load at strength 1.0",
        "author": ", ".join(own.authors),
        "license": own.licence,
        "tags": ", ".join(dict.fromkeys((*metadata.tags, *own.tags))),
    }
    return {f"modelspec.{key}": value for key, value in fields.items() if value}
