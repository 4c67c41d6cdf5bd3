"""Export: the merged LoRA as a file, checked after writing, with its name, metadata and model card."""

from optimizer.export.card import CardScore, CardSource, ModelCard, render_card, write_card
from optimizer.export.heritage import Heritage, heritage
from optimizer.export.naming import file_name, next_free
from optimizer.export.verify import ExportCheck, verify_export
from optimizer.export.writer import RECIPE_KEY, ExportMetadata, export_adapter

__all__ = [
    "RECIPE_KEY",
    "CardScore",
    "CardSource",
    "ExportCheck",
    "ExportMetadata",
    "Heritage",
    "ModelCard",
    "export_adapter",
    "file_name",
    "heritage",
    "next_free",
    "render_card",
    "verify_export",
    "write_card",
]
