"""Full models: two or more of one family merged tensor by tensor, in the memory of a few tensors."""

from optimizer.merging.full.formulas import FORMULAS, Formula
from optimizer.merging.full.job import Job, ModelMerge, merge_models
from optimizer.merging.full.reading import Model

__all__ = ["FORMULAS", "Formula", "Job", "Model", "ModelMerge", "merge_models"]
