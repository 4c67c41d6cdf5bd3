"""Merging of full models of one family, tensor by tensor, with memory for only a few tensors."""

from optimizer.merging.models.blend import Blend, Job
from optimizer.merging.models.formulas import FORMULAS, Formula, check_formula
from optimizer.merging.models.merge import ModelMerge, merge_models
from optimizer.merging.models.recipe import account, account_path, account_text, is_account, job_of

__all__ = [
    "FORMULAS",
    "Blend",
    "Formula",
    "Job",
    "ModelMerge",
    "account",
    "account_path",
    "account_text",
    "check_formula",
    "is_account",
    "job_of",
    "merge_models",
]
