"""Merging of full models of one family, tensor by tensor, with memory for only a few tensors."""

from optimizer.merging.models.blend import Blend, Job
from optimizer.merging.models.formulas import FORMULAS, Formula, check_formula
from optimizer.merging.models.merge import ModelMerge, merge_models
from optimizer.merging.models.recipe import is_merge_record, job_of, merge_record, merge_record_path, merge_record_text

__all__ = [
    "FORMULAS",
    "Blend",
    "Formula",
    "Job",
    "ModelMerge",
    "check_formula",
    "is_merge_record",
    "job_of",
    "merge_models",
    "merge_record",
    "merge_record_path",
    "merge_record_text",
]
