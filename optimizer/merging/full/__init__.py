"""Full models: two or more of one family merged tensor by tensor, in the memory of a few tensors."""

from optimizer.merging.full.account import account, account_place, account_text, is_account, job_of
from optimizer.merging.full.blend import Blend, Job
from optimizer.merging.full.folder import Folder
from optimizer.merging.full.formulas import FORMULAS, Formula, check_formula
from optimizer.merging.full.merging import ModelMerge, merge_models
from optimizer.merging.full.model import Entry, Model, Weights, canonical

__all__ = [
    "FORMULAS",
    "Blend",
    "Entry",
    "Folder",
    "Formula",
    "Job",
    "Model",
    "ModelMerge",
    "Weights",
    "account",
    "account_place",
    "account_text",
    "canonical",
    "check_formula",
    "is_account",
    "job_of",
    "merge_models",
]
