"""The commands. Each returns the exit code; results go to stdout, progress to stderr."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from optimizer.cli.quiet import hush
from optimizer.errors import UsageError
from optimizer.search.config import Config, checked
from optimizer.search.study_errors import study_errors
from optimizer.search.workers.parent_watch import leave_with_parent
from studies import StudyDirectory, StudySummary, load_summary
from studies.demo.world import GUIDANCE, STEPS, DemoSource, demo_base, demo_embedder, demo_sources, demo_words

STOPPED_EARLY = 4


def run_and_tell(config: Config) -> int:
    """Run the main job with progress on stderr, then print the verdict."""
    checked(config)
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    with errors.status("loading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.display import Display
        from optimizer.search.observer import Stopped
        from optimizer.search.run import run
    display = Display(errors)
    with display.watching():
        try:
            study = run(config, display)
        except Stopped:  # once more, while the storage was away
            return 128 + (display.stopping or 0)
    _tell(study.summary, study.directory, study.best)
    if study.complete and study.best:
        return 0
    return 128 + display.stopping if display.stopping is not None else STOPPED_EARLY


def resume(directory: Path, *, budget: int | None = None) -> int:
    """Continue a study that was stopped, or extend a finished one with --budget.

    Args:
        directory: the study directory.
        budget: a new budget; default: the study's own.
    """
    changed: dict[str, Any] = {"out": directory} | ({} if budget is None else {"budget": budget})
    return run_and_tell(Config.from_yaml(_study(directory).settings).replaced(**changed))


def worker(
    directory: Path | None = None,
    *,
    storage: str = "",
    study: str = "",
    artifacts: str = "",
    base: str = "",
    vae: str = "",
    denoiser: str = "",
    decoder: str = "",
    base_config: str = "",
    device: str = "auto",
    batch: int | None = None,
) -> int:
    """Evaluate trials of a study that another process has started, here or on another machine.

    Args:
        directory: study directory, also of a study that is in a database.
        storage: postgresql://… database of the study.
        study: name of the study in the database.
        artifacts: folder or s3://BUCKET/PREFIX with the evaluations, pictures and sources of the study.
        base: location of the study's --base on this machine, if it differs.
        vae: location of the study's --vae on this machine, if it differs.
        denoiser: location of the study's --denoiser on this machine, if it differs.
        decoder: location of the study's --decoder on this machine, if it differs.
        base_config: location of the study's --base-config on this machine, if it differs.
        device: Torch device.
        batch: pictures per forward pass.
    """
    config = _place_of_work(directory, storage, study, artifacts)
    places = {"base": base, "vae": vae, "denoiser": denoiser, "decoder": decoder, "base_config": base_config}
    here = {name: place for name, place in places.items() if place}
    own: dict[str, Any] = here | {"device": device} | ({} if batch is None else {"batch": batch})
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    from optimizer.cli.display import Display
    from optimizer.search.observer import Stopped
    from optimizer.search.worker import work

    display = Display(errors)
    leave_with_parent()
    with display.watching():
        try:
            done = work(config.replaced(**own), display)
        except Stopped:
            return 128 + (display.stopping or 0)
    print(f"{done} {'trial' if done == 1 else 'trials'} evaluated here; the study has none left")
    return 0


def report(directory: Path) -> int:
    """Write report.html again from the data of the study.

    Args:
        directory: the study directory.
    """
    from studies import write_report

    with study_errors():
        study = StudyDirectory(directory).open()
        summary = load_summary(study)
    print(write_report(summary, study))
    return 0


def demo() -> int:
    """List the demo sources, and the command that names their files one by one."""
    sources = demo_sources()
    table = Table("source", "role", "trigger")
    for name, source in sources.items():
        table.add_row(f"demo:{name}", source.role, source.trigger or "(always on)")
    console = Console(highlight=False)
    console.print(table)
    style, character = (next(s for s in sources.values() if s.role == role) for role in ("style", "character"))
    console.print(f"optimize --sources demo:{style.name} demo:{character.name} is short for", soft_wrap=True, markup=False)
    console.print(shlex.join(_in_full(style, character)), soft_wrap=True, markup=False)
    return 0


def _in_full(*sources: DemoSource) -> list[str]:
    """The command that names every file and setting of the demo world, as one does for a model of one's own."""
    files = [str(s.path) for s in sources]
    folders = ["--base", str(demo_base()), "--embedder", str(demo_embedder()), "--prompts", str(demo_words())]
    asked = ["--roles", *(s.role for s in sources), "--triggers", *(s.trigger for s in sources)]
    return ["optimize", "--sources", *files, *folders, *asked, "--steps", str(STEPS), "--guidance", str(GUIDANCE)]


def _place_of_work(directory: Path | None, storage: str, study: str, artifacts: str) -> Config:
    """The configuration of a study on this machine, or where one in a database is; a directory knows which of them it is of."""
    if directory is not None:
        config = Config.from_yaml(_study(directory).settings)
        places = config.places
        if not places.storage:
            return config.replaced(out=directory)
        storage, artifacts = storage or places.storage, artifacts or places.artifacts
        study = study or places.study_name
    if not (storage and study and artifacts):
        remedy = "give the study's directory, or --storage, --study and --artifacts together"
        raise UsageError("where the study is cannot be told", remedy=remedy)
    return Config.of(storage=storage, study=study, artifacts=artifacts)


def _study(directory: Path) -> StudyDirectory:
    with study_errors():
        return StudyDirectory(directory).open()


def _tell(summary: StudySummary, directory: Path, best: Path | None) -> None:
    console = Console(highlight=False)
    if summary.verdict:
        table = Table("model", "weakest source", "95 % interval", *summary.names, "artifacts")
        for label, row in summary.verdict.rows.items():
            shown = f"{label} ◂" if label == summary.verdict.shipped_label else label
            each = [f"{row.sources[name]:.2f}" for name in summary.names]
            damage = "–" if row.artifacts is None else f"{row.artifacts:.2f}"
            table.add_row(shown, f"{row.score:.2f}", f"{row.ci_low:.2f} – {row.ci_high:.2f}", *each, damage)
        console.print(table)
        console.print(summary.verdict.sentence, soft_wrap=True, markup=False)
    if best:
        console.print(f"{'model ' if summary.kind == 'model' else 'LoRA  '}  {best}", soft_wrap=True, markup=False)
    console.print(f"report  {directory / 'report.html'}", soft_wrap=True, markup=False)
    if summary.resume_command:
        console.print(f"resume  optimize resume {shlex.quote(str(directory))}", soft_wrap=True, markup=False)
