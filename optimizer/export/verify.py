"""Verifies an export: reads the file back and compares every ΔW with the merge that was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from optimizer.adapters import Adapter, Factors, load_adapter
from optimizer.adapters.files.container import read_header
from optimizer.errors import AdapterError, ExportError

# The product of two rounded factors has a relative error of about 2⁻¹¹·√(2/3) (fp16); the bounds allow four times that.
_TOLERANCES = {"BF16": 1.6e-2, "F16": 2e-3, "F32": 1e-5}
_NEGLIGIBLE = 1e-4


@dataclass(frozen=True)
class ExportCheck:
    """The result of verifying a file.

    Attributes:
        path: path of the file.
        sha256: hex SHA-256 digest of the file's bytes.
        errors: module path → relative Frobenius error of its ΔW.
        total: relative Frobenius error of all ΔW together.
        tolerance: upper bound that all errors satisfy.
    """

    path: Path
    sha256: str
    errors: Mapping[str, float]
    total: float
    tolerance: float

    @property
    def worst(self) -> str:
        """Path of the module with the greatest error."""
        return max(self.errors, key=lambda path: self.errors[path])


def verify_export(path: str | Path, expected: Adapter, tolerance: float | None = None) -> ExportCheck:
    """Reads a written adapter back and compares every ΔW with the expected one.

    The error of a module is ‖ΔW − ΔW₀‖ / ‖ΔW₀‖ in the Frobenius norm, from QR factors of the low-rank difference. The denominator is
    at least 10⁻⁴ of the root mean square of ‖ΔW₀‖ over the modules, below which rounding errors have no visible effect.

    Args:
        path: the written file.
        expected: the adapter that was scored.
        tolerance: maximum relative error; by default from the file's dtype: 2e-3 for fp16, 1.6e-2 for bf16, 1e-5 for fp32.

    Raises:
        ExportError: the file cannot be read, has missing or additional modules or other shapes, or an error exceeds the tolerance; the
            message names the worst module.
    """
    path = Path(path)
    found, bound = _read(path)
    bound = bound if tolerance is None else tolerance
    _same_modules(path, found, expected)
    wanted = {module: factors.norm() for module, factors in expected.modules.items()}
    missed = {module: distance(found.modules[module], factors) for module, factors in expected.modules.items()}
    whole = sum(norm**2 for norm in wanted.values()) ** 0.5
    floor = _NEGLIGIBLE * whole / max(1, len(wanted)) ** 0.5
    errors = {module: _ratio(missed[module], max(wanted[module], floor)) for module in wanted}
    check = ExportCheck(path, found.sha256, errors, _ratio(sum(d**2 for d in missed.values()) ** 0.5, whole), bound)
    if not (max(errors[check.worst], check.total) <= bound):  # NaN fails too
        problem = f"the written ΔW differs by {errors[check.worst]:.2e} (all modules: {check.total:.2e}; allowed {bound:.2e})"
        raise ExportError(problem, where=f"{path}: {check.worst}", remedy="export as fp32, or report the merge's recipe")
    return check


def _read(path: Path) -> tuple[Adapter, float]:
    try:
        bound = max(_TOLERANCES.get(entry.dtype, 0.0) for entry in read_header(path).entries.values())
        return load_adapter(path), bound
    except AdapterError as error:
        raise ExportError(f"cannot be read back: {error.problem}", where=error.where, remedy="write it again") from error


def _same_modules(path: Path, found: Adapter, expected: Adapter) -> None:
    missing, extra = sorted(expected.modules.keys() - found.modules.keys()), sorted(found.modules.keys() - expected.modules.keys())
    for names, what in ((missing, "lacks"), (extra, "has, besides the merge's modules,")):
        if names:
            raise ExportError(f"the file {what} {len(names)} modules, first {names[0]}", where=path, remedy="write it again")
    for module, factors in expected.modules.items():
        if found.modules[module].shape != tuple(factors.shape):
            problem = f"has shape {found.modules[module].shape} instead of {tuple(factors.shape)}"
            raise ExportError(problem, where=f"{path}: {module}", remedy="fit the merge to the base model's shapes before writing it")


def distance(first: Factors, second: Factors) -> float:
    """Returns ‖ΔW₁ − ΔW₂‖ in the Frobenius norm.

    Computed in fp64 as ‖R_left · R_rightᵀ‖ from QR factorisations of the concatenated factors. If the ranks add up to the smaller
    dimension of the matrix or more, where QR saves nothing, it is computed from the dense matrices in fp32.
    """
    first, second = (replace(f, up=f.up.cpu(), down=f.down.cpu()) for f in (first, second))  # a merge may be on a GPU, a file is on the CPU
    if first.rank + second.rank >= min(first.up.shape[0], first.down.shape[1]):
        return float(torch.linalg.norm((first.delta() - second.delta()).flatten()))
    left = torch.cat([first.scale * first.up.double(), -second.scale * second.up.double()], dim=1)
    right = torch.cat([first.down.double(), second.down.double()], dim=0).T
    return float(torch.linalg.norm(_triangle(left) @ _triangle(right).T))


def _triangle(matrix: Tensor) -> Tensor:
    triangle: Tensor = torch.linalg.qr(matrix, mode="r").R
    return triangle


def _ratio(distance: float, norm: float) -> float:
    if norm == 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / norm
