"""Export: writes the merged LoRA with file name, metadata and model card, and verifies the written file."""

from optimizer.export.card import CardScore, CardSource, ModelCard, render_card, write_card
from optimizer.export.drawn_with import BASE_ALONE, AcceleratorRecord, DrawnWith
from optimizer.export.heritage import Heritage, heritage
from optimizer.export.naming import file_name, next_free
from optimizer.export.origins import Origin, base_name, card_sources, heritage_of, merge_metadata, setup_of, title
from optimizer.export.setup import SETUP_KEY, Setup
from optimizer.export.verify import ExportCheck, verify_export
from optimizer.export.writer import RECIPE_KEY, ExportMetadata, export_adapter

__all__ = [
    "BASE_ALONE",
    "RECIPE_KEY",
    "SETUP_KEY",
    "AcceleratorRecord",
    "CardScore",
    "CardSource",
    "DrawnWith",
    "ExportCheck",
    "ExportMetadata",
    "Heritage",
    "ModelCard",
    "Origin",
    "Setup",
    "base_name",
    "card_sources",
    "export_adapter",
    "file_name",
    "heritage",
    "heritage_of",
    "merge_metadata",
    "next_free",
    "render_card",
    "setup_of",
    "title",
    "verify_export",
    "write_card",
]
