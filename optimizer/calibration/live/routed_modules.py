"""Routed modules: every module that a source or a correction changes computes y = W·x + up_cat · R · (down_cat · x) on the loaded model.

R = 0 is the base, the projector on a source's block is that source alone, R = I is the stack: base, sources and every linear merge are the
same modules with another small matrix. The weights are never touched, so this works beside quantised weights, too, and gradients reach R.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optimizer.adapters import Adapter, Factors

Routing = Mapping[str, Tensor]
"""Canonical module path → R, (Σr, Σr) or its diagonal (Σr,), fp32; a module that is missing computes as the base does."""

Observer = Callable[[str, Tensor], None]
"""Called with the canonical path of a module and z = down_cat · x, (…, Σr), each time the module computes."""


class RoutedModules:
    """Branches of all sources beside the modules of a loaded pipeline.

    Args:
        live: canonical path → loaded module, for every linear and convolution module that a source may change.
        adapters: sources, in the shapes of the modules' weights.
        dtype: dtype that the branches compute in; R itself stays in fp32.

    Attributes:
        ranks: canonical module path → rank of each source there, in order; 0 where a source lacks the module.
    """

    def __init__(self, live: Mapping[str, nn.Linear | nn.Conv2d], adapters: Sequence[Adapter], dtype: torch.dtype) -> None:
        self._live, self._sources, self._dtype = live, len(adapters), dtype
        self.ranks = {path: _ranks(adapters, path) for path in sorted({path for adapter in adapters for path in adapter.modules})}
        self._branches = {path: _Branch.of(live[path], adapters, path, dtype) for path in self.ranks}
        self._routing: Routing = {}
        self._observer: Observer | None = None
        self._installed = False

    def extended(self, adapter: Adapter) -> RoutedModules:
        """Returns the modules with a further adapter behind the sources.

        The branches of all modules that it does not change are shared; only one of the two may be installed at a time.
        """
        found, none = copy(self), (0,) * self._sources
        paths = sorted({*self.ranks, *adapter.modules})
        found._sources += 1
        found.ranks = {path: (*self.ranks.get(path, none), *_ranks([adapter], path)) for path in paths}
        own = {path: _Branch.of(self._live[path], [adapter], path, self._dtype) for path in adapter.modules if path not in self.ranks}
        wider = {path: self._branches[path].extended(factors) for path, factors in adapter.modules.items() if path in self.ranks}
        found._branches = self._branches | wider | own
        found._routing, found._observer, found._installed = {}, None, False
        return found

    @property
    def change_texts(self) -> bool:
        """Whether a source changes a text encoder."""
        return any(path.startswith("text_encoder") for path in self.ranks)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Context in which the modules have their branches; on exit they are as before, even after an exception. It may be nested."""
        if self._installed:
            yield
            return
        handles = [branch.module.register_forward_hook(partial(self._added, path, branch)) for path, branch in self._branches.items()]
        self._installed = True
        try:
            yield
        finally:
            self._installed = False
            for handle in handles:
                handle.remove()

    @contextmanager
    def at(self, routing: Routing) -> Iterator[None]:
        """Context in which the installed branches compute with these matrices; on exit with those from before."""
        before, self._routing = self._routing, routing
        try:
            yield
        finally:
            self._routing = before

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Context in which the observer sees z = down_cat · x of every module, whatever its matrix is."""
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    def alone(self, source: int) -> Routing:
        """Returns the projectors on one source's block, for the modules that the source changes."""
        found = {}
        for path, ranks in self.ranks.items():
            if ranks[source]:
                diagonal = torch.zeros(sum(ranks))
                diagonal[sum(ranks[:source]) : sum(ranks[: source + 1])] = 1.0
                found[path] = diagonal
        return found

    def selected(self, asked: Sequence[bool]) -> Routing:
        """Returns the sum of the projectors of some sources, for all modules.

        Args:
            asked: whether each source is selected; adapters behind the last one are not.
        """
        selected = {path: torch.zeros(sum(ranks)) for path, ranks in self.ranks.items()}
        for path, ranks in self.ranks.items():
            own = ranks[: len(asked)]
            selected[path][: sum(own)] = torch.repeat_interleave(torch.tensor([float(one) for one in asked]), torch.tensor(own))
        return selected

    def factors(self, path: str) -> tuple[Tensor, Tensor]:
        """Returns up_cat, (out, Σr), and down_cat, (Σr, fan_in), of a module, with the scale in ``down``."""
        branch = self._branches[path]
        return branch.up, branch.down

    def _added(self, path: str, branch: _Branch, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        matrix = self._routing.get(path)
        if matrix is None and self._observer is None:
            return output
        hidden = branch.hidden(inputs[0])
        if self._observer is not None:
            self._observer(path, hidden)
        return output if matrix is None else output + branch.routed(hidden, matrix).to(output.dtype)


@dataclass(eq=False)
class _Branch:
    """The concatenated factors of all sources beside one module.

    Attributes:
        module: loaded module.
        up: up_cat, (out, Σr).
        down: down_cat, (Σr, fan_in), with the scale.
    """

    module: nn.Linear | nn.Conv2d
    up: Tensor
    down: Tensor

    @classmethod
    def of(cls, module: nn.Linear | nn.Conv2d, adapters: Sequence[Adapter], path: str, dtype: torch.dtype) -> _Branch:
        """Returns the branch of some sources, of which at least one changes the module."""
        parts = [adapter.modules[path] for adapter in adapters if path in adapter.modules]
        # Sequential offload keeps weights on the meta device between calls; the branch then follows the first input.
        device = torch.device("cpu") if module.weight.is_meta else module.weight.device
        up = torch.cat([part.up.float() for part in parts], dim=1).to(device, dtype)
        return cls(module, up, torch.cat([part.scale * part.down.float() for part in parts]).to(device, dtype))

    def extended(self, factors: Factors) -> _Branch:
        """Returns the branch with further factors behind those of the sources."""
        up, down = factors.up.to(self.up), (factors.scale * factors.down.float()).to(self.down)
        return _Branch(self.module, torch.cat([self.up, up], dim=1), torch.cat([self.down, down]))

    def hidden(self, x: Tensor) -> Tensor:
        """Returns z = down_cat · x; of a convolution with its channels last."""
        if self.down.device != x.device:
            with torch.inference_mode(False):  # tensors of the inference mode cannot take part in a backward pass later
                self.up, self.down = self.up.to(x.device), self.down.to(x.device)
        x = x.to(self.down.dtype)
        if isinstance(self.module, nn.Linear):
            return F.linear(x, self.down)
        module = self.module
        weight = self.down.reshape(len(self.down), x.shape[1], *module.kernel_size)
        assert not isinstance(module.padding, str)
        return F.conv2d(x, weight, None, module.stride, module.padding, module.dilation).movedim(1, -1)

    def routed(self, hidden: Tensor, matrix: Tensor) -> Tensor:
        """Returns up_cat · R · z, in the module's layout."""
        matrix = matrix.to(hidden.device, hidden.dtype)
        change = F.linear(hidden * matrix if matrix.ndim == 1 else F.linear(hidden, matrix), self.up)
        return change if isinstance(self.module, nn.Linear) else change.movedim(-1, 1)


def _ranks(adapters: Sequence[Adapter], path: str) -> tuple[int, ...]:
    return tuple(adapter.modules[path].rank if path in adapter.modules else 0 for adapter in adapters)
