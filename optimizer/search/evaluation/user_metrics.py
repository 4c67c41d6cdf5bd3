"""Loading the metrics that the user names: importing them, and turning everything that is wrong with them into a clear error.

This is the only place that imports a module by a name from outside; ``optimizer.search.config.metric`` says whose word it takes for that.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from objectives import AnyObjective, MetricError, MetricObjective
from objectives.metrics import (
    Constraint,
    FunctionCall,
    MetricIdentity,
    Rule,
    Scale,
    Term,
    TorchMetricCall,
    build_metric,
    inputs_of,
    self_test,
)
from optimizer.errors import UsageError
from optimizer.rendering import AnyRenderer
from optimizer.search.config.metric import OPTION, MetricSpec, parse_metrics
from optimizer.text import one_line


def load_metrics(texts: Sequence[str], taken: Iterable[AnyObjective] = ()) -> tuple[MetricObjective, ...]:
    """Imports metrics.

    Args:
        texts: specifications, which the user has named for this run.
        taken: objectives whose names are taken.

    Raises:
        UsageError: a module or a name does not exist, or what it names is no metric; the message names the option and the remedy.
    """
    names = {objective.name for objective in taken}
    specs = parse_metrics(texts)
    if clash := next((spec.name for spec in specs if spec.name in names), ""):
        raise UsageError(f"an objective has the name {clash} already", where=OPTION, remedy="give the metric another name")
    return tuple(_load(spec) for spec in specs)


def tested(metrics: Sequence[MetricObjective], renderer: AnyRenderer, sources: int, *, based: bool) -> tuple[MetricObjective, ...]:
    """Calls every metric once on pictures of noise, in the size of the run.

    Args:
        metrics: metrics to test.
        renderer: renderer of the run.
        sources: number of sources.
        based: whether the run has a base.

    Returns:
        The metrics, with the type of pictures that each accepts.

    Raises:
        UsageError: a metric fails, or returns what is no finite number.
    """
    return tuple(_tested(metric, renderer, sources, based) for metric in metrics)


def _tested(metric: MetricObjective, renderer: AnyRenderer, sources: int, based: bool) -> MetricObjective:
    errors: list[MetricError] = []
    for candidate in _variants(metric):
        try:
            self_test(candidate, renderer.picture_size, sources, renderer.device, based=based)
            return candidate
        except MetricError as error:
            errors.append(error)
    problem = f"{errors[0].problem}, on pictures of noise, {' × '.join(map(str, reversed(renderer.picture_size)))}"
    raise UsageError(problem, where=OPTION, remedy=errors[0].remedy or "correct it, or leave it out") from errors[0]


def _variants(metric: MetricObjective) -> list[MetricObjective]:
    """Returns the metric, and, for one of torchmetrics that may demand bytes, the metric on pictures as uint8."""
    call = metric.call
    if not isinstance(call, TorchMetricCall) or not call.floats:
        return [metric]
    return [
        metric,
        MetricObjective(metric.name, TorchMetricCall(call.metric, call.inputs, floats=False), metric.rule, metric.scale, metric.identity),
    ]


def _load(spec: MetricSpec) -> MetricObjective:
    module = _import(spec)
    try:
        found = reduce(getattr, spec.attribute.split("."), module)
    except AttributeError as error:
        raise _refused(spec, f"there is no {spec.attribute} in {spec.module}", "check the name") from error
    call, described = _call(spec, found)
    try:
        return MetricObjective(spec.name, call, _rule(spec), Scale.of(described), MetricIdentity(spec.target, _version(module)))
    except MetricError as error:
        raise UsageError(error.problem, where=OPTION, remedy=error.remedy) from error


def _import(spec: MetricSpec) -> ModuleType:
    """Imports the module of a metric; modules in the working directory are found after all installed ones."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(spec.module)
    except ModuleNotFoundError as error:
        if error.name and f"{spec.module}.".startswith(f"{error.name}."):
            remedy = f"install it, or run the command in the folder of {error.name}.py"
            raise _refused(spec, f"there is no module {error.name}", remedy) from error
        raise _refused(spec, f"{spec.module} needs the module {error.name}", "install it") from error
    except (Exception, SystemExit) as error:  # whatever the code of a user raises
        raise _refused(spec, f"{spec.module} cannot be imported: {_reason(error)}", "correct it") from error


def _call(spec: MetricSpec, found: Any) -> tuple[Any, Any]:
    """Returns how a metric is called, and the object whose attributes describe it."""
    from_torchmetrics = _torchmetrics_base()
    if isinstance(found, type) and issubclass(found, from_torchmetrics):
        metric = _guarded(spec, lambda: build_metric(found))
    elif isinstance(found, from_torchmetrics):
        metric = found
    elif callable(found) and not isinstance(found, type):
        return FunctionCall(found), found
    else:
        raise _refused(spec, f"{spec.target} is {_kind(found)}", "name a class of torchmetrics, or a function")
    inputs = _guarded(spec, lambda: inputs_of(type(metric).update))
    return TorchMetricCall(metric, inputs, floats=inputs != "texts"), metric


def _guarded(spec: MetricSpec, build: Callable[[], Any]) -> Any:
    """Calls a constructor of torchmetrics, and explains why it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build()
    except MetricError as error:
        raise _refused(spec, f"{spec.target}: {error.problem}", error.remedy) from error
    except ImportError as error:
        raise _refused(spec, f"{spec.target} needs a package that is missing: {_reason(error)}", "install it") from error
    except OSError as error:  # URLError and the errors of the hub are OSErrors
        remedy = "connect to the network once, or put its weights into the cache"
        raise _refused(spec, f"{spec.target} cannot get its weights: {_reason(error)}", remedy) from error
    except Exception as error:
        raise _refused(spec, f"{spec.target} cannot be constructed: {_reason(error)}", "correct it") from error


def _torchmetrics_base() -> Any:
    """Returns the base class of torchmetrics, or an empty tuple if nothing has imported it, so that it has no instances."""
    loaded = sys.modules.get("torchmetrics")
    return () if loaded is None else loaded.Metric


def _rule(spec: MetricSpec) -> Rule:
    if spec.weight is not None:
        return Term(spec.weight)
    if spec.at_least is not None:
        return Constraint(spec.at_least, at_least=True)
    return None if spec.at_most is None else Constraint(spec.at_most, at_least=False)


def _version(module: ModuleType) -> str:
    """Returns the version of an installed package, or the SHA-256 of a file of the user, or of all Python files of a package."""
    package = sys.modules[module.__name__.partition(".")[0]]
    number, file = getattr(package, "__version__", None), getattr(module, "__file__", None)
    if number and not _below(getattr(package, "__file__", None), Path.cwd()):
        return f"{package.__name__} {number}"
    if not file:
        return f"Python {sys.version.split()[0]}"
    path = Path(file)
    digest = hashlib.sha256()
    for each in sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]:
        digest.update(f"{each.relative_to(path.parent).as_posix()}\0".encode() + each.read_bytes())
    return digest.hexdigest()


def _below(file: str | None, folder: Path) -> bool:
    """Returns whether a package is the user's own, in the working directory; an environment in there is not."""
    path = Path(file or "/").resolve()
    return path.is_relative_to(folder.resolve()) and "site-packages" not in path.parts


def _kind(found: Any) -> str:
    return f"the class {found.__name__}, no Metric" if isinstance(found, type) else f"of type {type(found).__name__}"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}".rstrip(": ")


def _refused(spec: MetricSpec, problem: str, remedy: str) -> UsageError:
    return UsageError(f"{spec.name}: {problem}", where=OPTION, remedy=remedy)
