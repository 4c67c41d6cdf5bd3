"""Merging: low-rank algebra, merge methods, named blocks, and the recipe that describes a merge completely.

Every method works on ΔW = scale · up @ down, never on ``up`` and ``down`` separately. Any invertible R turns (up, down) into
(up·R, R⁻¹·down) without changing the adapter, so the entries of the factors alone are not meaningful.
"""

from __future__ import annotations

from optimizer.adapters.files.dtypes import DTYPES
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import Change, LowRank
from optimizer.merging.blocks.files import read_blocks_file
from optimizer.merging.blocks.maps import BLOCK_MAPS, BlockMap, block_map, block_of, block_weight
from optimizer.merging.blocks.presets import BLOCK_PRESETS, block_preset_names
from optimizer.merging.blocks.strings import read_blocks
from optimizer.merging.common_base import common_base
from optimizer.merging.correction import NO_TEXTS, correctable, correction_of, with_correction
from optimizer.merging.default_rank import default_rank, sum_of_ranks
from optimizer.merging.digest import digest
from optimizer.merging.merge import Merged, Merger, merge, shared_modules
from optimizer.merging.methods import METHODS, PARAMETERS, MergeFunction, Method, Parameter
from optimizer.merging.rank_allocation import Pruned, prune_curve
from optimizer.merging.recipe import BlockWeights, Recipe
from optimizer.merging.report import Fidelity, MergeReport, merge_report
from optimizer.merging.router import Router
from optimizer.merging.router_files import ROUTERS, load_router, read_router, router_path, save_router
from optimizer.merging.solving import solved_from
from optimizer.merging.soup import Soup, greedy_soup, is_weighted_sum, mean_recipe

__all__ = [
    "BLOCK_MAPS",
    "BLOCK_PRESETS",
    "DTYPES",
    "METHODS",
    "NO_TEXTS",
    "PARAMETERS",
    "ROUTERS",
    "BlockMap",
    "BlockWeights",
    "Change",
    "Deltas",
    "Fidelity",
    "LowRank",
    "MergeFunction",
    "MergeReport",
    "Merged",
    "Merger",
    "Method",
    "Parameter",
    "Pruned",
    "Recipe",
    "Router",
    "Soup",
    "block_map",
    "block_of",
    "block_preset_names",
    "block_weight",
    "common_base",
    "correctable",
    "correction_of",
    "default_rank",
    "digest",
    "greedy_soup",
    "is_weighted_sum",
    "load_router",
    "mean_recipe",
    "merge",
    "merge_report",
    "prune_curve",
    "read_blocks",
    "read_blocks_file",
    "read_router",
    "router_path",
    "save_router",
    "shared_modules",
    "solved_from",
    "sum_of_ranks",
    "with_correction",
]
