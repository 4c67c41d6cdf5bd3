"""Adapters: reads LoRA and LyCORIS files into one canonical form and writes them back."""

from optimizer.adapters.adapter import Adapter, Coverage
from optimizer.adapters.base_dependent.base_weights import BaseWeights
from optimizer.adapters.clean_names import clean_name
from optimizer.adapters.factors import Factors
from optimizer.adapters.files.distillation import distillation
from optimizer.adapters.files.sd_scripts_hashes import model_hashes
from optimizer.adapters.load import load_adapter
from optimizer.adapters.names.dialects import Dialect, written_rows
from optimizer.adapters.save import adapter_tensors, save_adapter
from optimizer.adapters.shapes import fit_shapes, live_modules, shape_mismatches, weight_shapes

__all__ = [
    "Adapter",
    "BaseWeights",
    "Coverage",
    "Dialect",
    "Factors",
    "adapter_tensors",
    "clean_name",
    "distillation",
    "fit_shapes",
    "live_modules",
    "load_adapter",
    "model_hashes",
    "save_adapter",
    "shape_mismatches",
    "weight_shapes",
    "written_rows",
]
