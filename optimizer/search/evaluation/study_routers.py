"""The routers of a study: solved on its base model when a recipe needs one, and kept in its store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.adapters import Adapter
from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.prompts import prompts_to_solve_on
from optimizer.calibration.solve import COMPLETE, Progress, Solution, Solver
from optimizer.calibration.trajectories import Points
from optimizer.errors import RecipeError, TrialError
from optimizer.merging import ROUTERS, Recipe, Router, read_router, solved_from
from optimizer.merging.methods.solved import CHECKPOINT
from optimizer.rendering import PromptSet, Renderer, Subject, Vocabulary
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.text import one_line
from studies import evaluation_key
from studies.store import Store

# Increase whenever the same inputs are solved to another router.
SOLVER = 6
_CHECKPOINTS = tuple(int(percentage) for percentage in CHECKPOINT.choices)


class _Entry(BaseModel):
    """What solving a recipe gave, as the store keeps it beside the routers' files.

    Attributes:
        routers: percentage of the training steps → SHA-256 of the router.
        losses: percentage of the training steps → smoothed loss of the training.
        prompts: number of prompts.
        seconds: time that it took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    routers: dict[int, str]
    losses: dict[int, float]
    prompts: int
    seconds: float

    @classmethod
    def of(cls, found: Solution) -> Self:
        """Returns the entry of a solution."""
        hashes = {at: router.hash for at, router in found.routers.items()}
        return cls(routers=hashes, losses=dict(found.losses), prompts=found.prompts, seconds=found.seconds)


@dataclass(frozen=True)
class Calibrated:
    """A recipe whose router is known.

    Attributes:
        recipe: recipe, which names its router if its method needs one.
        seconds: time that solving the router took; 0 if it was known already, or if the method needs none.
    """

    recipe: Recipe
    seconds: float = 0.0


@dataclass
class StudyRouters:
    """Solves the routers that recipes of a study need, each once, and finds those that were solved before.

    Attributes:
        store: store of the study; routers are ``routers/HASH.safetensors`` there.
        renderer: renderer of the base model.
        adapters: sources.
        subjects: what each source shows.
        words: words to compose the prompts of.
        context: returns the inputs that pictures of some prompts depend on, JSON-serializable.
        progress: called as a solver works; an exception that it raises stops it.
        note: receives a message if a router has to be solved again, and messages about the memory that solving needs.
    """

    store: Store
    renderer: Renderer
    adapters: Sequence[Adapter]
    subjects: Sequence[Subject]
    words: Vocabulary
    context: Callable[[PromptSet], Mapping[str, object]]
    progress: Progress
    note: Note
    _loaded: dict[str, Router] = field(default_factory=dict, init=False)
    _points: dict[PromptSet, Points] = field(default_factory=dict, init=False)
    _failed: dict[str, str] = field(default_factory=dict, init=False)
    _fallback: GradientFallback = field(init=False)

    def __post_init__(self) -> None:
        self._fallback = GradientFallback(self.note)

    def composition(self) -> Candidate:
        """Returns the composition of all sources; its branches hold memory of the device as long as it is kept."""
        model = self._live_model()
        return model.composed(model.teacher)

    def _live_model(self) -> LiveModel:
        return LiveModel.of(self.renderer, self.adapters, self.subjects)

    def calibrated(self, recipe: Recipe) -> Calibrated:
        """Returns the recipe with the router that its method needs as its calibration; any other recipe as it is.

        Raises:
            TrialError: the router cannot be solved.
        """
        if not recipe.method_record.solved or recipe.calibration:
            return Calibrated(recipe)
        prompts = prompts_to_solve_on(self.subjects, self.words, recipe)
        wanted = {name: value for name, value in solved_from(recipe).items() if name != CHECKPOINT.name}
        roles = [subject.role for subject in self.subjects]
        key = evaluation_key(solved=wanted, solver=SOLVER, roles=roles, **self.context(prompts))
        at = recipe.checkpoint if recipe.method_record.reads(CHECKPOINT.name) else COMPLETE
        if known := self._known(key, at):
            return Calibrated(recipe.replaced(calibration=known.routers[at]))
        begun = time.perf_counter()
        entry = self._solved(key, recipe, prompts)
        return Calibrated(recipe.replaced(calibration=entry.routers[at]), time.perf_counter() - begun)

    def router(self, sha256: str) -> Router:
        """Returns a router of the study by its SHA-256.

        Raises:
            RecipeError: the study does not hold it, or its file is damaged.
        """
        if sha256 not in self._loaded:
            name = _router_name(sha256)
            data = self.store.read(name)
            if data is None:
                remedy = "restore the file from a copy of the study, or start a new study"
                raise RecipeError("the router that the recipe names is missing", where=f"{self.store}/{name}", remedy=remedy)
            self._loaded[sha256] = read_router(data, sha256)
        return self._loaded[sha256]

    def _known(self, key: str, checkpoint: int) -> _Entry | None:
        """Returns what was solved before, if the router of the checkpoint is among it and can be read."""
        data = self.store.read(_entry_name(key))
        try:
            entry = _Entry.model_validate_json(data) if data else None
            if entry and checkpoint in entry.routers and self.router(entry.routers[checkpoint]):
                return entry
        except (ValidationError, RecipeError) as error:
            self.note(f"warning: a router of the study cannot be used and is solved again: {one_line(error)}")
        return None

    def _solved(self, key: str, recipe: Recipe, prompts: PromptSet) -> _Entry:
        if key in self._failed:
            raise TrialError(self._failed[key], where=recipe.method, remedy="see the first trial that failed by it")
        solver = Solver(self._live_model(), self.adapters, prompts, self._points.get(prompts), self._fallback)
        try:
            found = solver.solve(recipe, _CHECKPOINTS, self.progress)
        except TrialError as error:
            self._failed[key] = error.problem
            raise
        if solver.points is not None:
            self._points[prompts] = solver.points
        for router in found.routers.values():
            self._loaded[router.hash] = router
            self.store.write(_router_name(router.hash), router.serialised())
        entry = _Entry.of(found)
        self.store.write(_entry_name(key), f"{json.dumps(entry.model_dump(mode='json'), indent=1)}\n".encode())
        return entry


def _router_name(sha256: str) -> str:
    return f"{ROUTERS}/{sha256}.safetensors"


def _entry_name(key: str) -> str:
    return f"{ROUTERS}/solved-{key}.json"
