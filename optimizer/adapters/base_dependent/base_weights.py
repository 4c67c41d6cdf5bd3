"""Base model weights, for the adapter kinds whose ΔW depends on them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.adapters.files.variants import weight_files
from optimizer.adapters.fusing import swap_halves
from optimizer.adapters.names.paths import TEMPLATES, from_dotted
from optimizer.adapters.names.targets import Target
from optimizer.errors import BaseModelError

_WEIGHT, _BIAS = ".weight", ".bias"


class BaseWeights:
    """The weights of a diffusers pipeline folder, read one tensor at a time.

    Args:
        folder: pipeline folder, with one subfolder of safetensors files per part.

    Raises:
        BaseModelError: the folder holds no safetensors weights, or a file in it cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, Path] = {}
        self._names: dict[str, str] = {}
        for part in TEMPLATES:
            for file in weight_files(self.folder / part):
                self._enter(part, file)
        if not self._files:
            problem = "holds no safetensors weights of a diffusers pipeline"
            raise BaseModelError(problem, where=self.folder, remedy="give the folder of one")

    def weight(self, target: Target) -> Tensor:
        """Returns the base weight that a module of a file changes: fp32, in the layout of the file, (out, in) or (out, in, kh, kw)."""
        weight = torch.cat([self._read(path).float() for path in target.paths])
        return swap_halves(weight) if target.swapped else weight

    def has_bias(self, target: Target) -> bool:
        """Returns whether any module of the target has a bias."""
        return any(path + _BIAS in self._files for path in target.paths)

    def _read(self, path: str) -> Tensor:
        if path + _WEIGHT not in self._files:
            raise BaseModelError(f"has no module {path}", where=self.folder, remedy="use the base model that the source was trained on")
        with safe_open(self._files[path + _WEIGHT], framework="pt") as file:
            tensor: Tensor = file.get_tensor(self._names[path + _WEIGHT])
        return tensor

    def _enter(self, part: str, file: Path) -> None:
        try:
            with safe_open(file, framework="pt") as opened:
                names = list(opened.keys())
        except (OSError, SafetensorError) as error:
            raise BaseModelError(f"cannot be read: {error}", where=file, remedy="fetch the whole folder again") from error
        for name in names:
            for end in (_WEIGHT, _BIAS):
                if name.endswith(end) and (path := from_dotted(part, name.removesuffix(end))):
                    self._files[path + end], self._names[path + end] = file, name
