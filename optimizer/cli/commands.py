"""The commands. Each returns the exit code; results go to stdout, progress to stderr."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from optimizer.cli.quiet import hush
from optimizer.errors import StudyError, UsageError
from optimizer.search.config import Config
from optimizer.search.workers.parent_watch import leave_with_parent
from studies import StudyDirectory, StudyDirectoryError, StudySummary, load_summary
from studies.demo.world import GUIDANCE, STEPS, DemoSource, demo_base, demo_embedder, demo_sources, demo_words

STOPPED_EARLY = 4


def run_and_tell(config: Config) -> int:
    """Run the main job with progress on stderr, then print the verdict."""
    config.checked()
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
    """Continue a study that was stopped, or enlarge one that is finished.

    Args:
        directory: the study directory.
        budget: a new budget; default: the study's own.
    """
    config = Config.from_yaml(_study(directory).settings)
    return run_and_tell(config.model_copy(update={"out": directory} | ({} if budget is None else {"budget": budget})))


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
    """Work on a study that has begun, in its directory on this machine or in a database, until it has no trials left.

    Args:
        directory: the study directory; it knows the database of a study that is in one.
        storage: the postgresql://… database of the study.
        study: its name there.
        artifacts: folder or s3://BUCKET/PREFIX where its evaluations, pictures and sources lie.
        base: where the base model lies on this machine, if elsewhere than where the study began.
        vae: the same of another autoencoder, if the study has one.
        denoiser: the same of another denoiser.
        decoder: the same of a tiny decoder.
        base_config: the same of the folder that says how a single file is laid out.
        device: Torch device.
        batch: pictures per forward pass.
    """
    config = _place_of_work(directory, storage, study, artifacts)
    places = {"base": base, "vae": vae, "denoiser": denoiser, "decoder": decoder, "base_config": base_config}
    here = {name: place for name, place in places.items() if place}
    own = here | {"device": device} | ({} if batch is None else {"batch": batch})
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    from optimizer.cli.display import Display
    from optimizer.search.observer import Stopped
    from optimizer.search.worker import work

    display = Display(errors)
    leave_with_parent()
    with display.watching():
        try:
            done = work(config.model_copy(update=own), display)
        except Stopped:
            return 128 + (display.stopping or 0)
    print(f"{done} {'trial' if done == 1 else 'trials'} evaluated here; the study has none left")
    return 0


def report(directory: Path) -> int:
    """Write report.html anew from the study's data.

    Args:
        directory: the study directory.
    """
    from studies import write_report

    study = _study(directory)
    print(write_report(_summary(study), study))
    return 0


def demo() -> int:
    """List the sources that ship with this package, and how to name their files one by one."""
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
        if not config.storage:
            return config.model_copy(update={"out": directory})
        storage, artifacts = storage or config.storage, artifacts or config.artifacts
        study = study or config.study or config.out.name
    if not (storage and study and artifacts):
        remedy = "give the study's directory, or --storage, --study and --artifacts together"
        raise UsageError("where the study is cannot be told", remedy=remedy)
    return Config.of(storage=storage, study=study, artifacts=artifacts)


def _study(directory: Path) -> StudyDirectory:
    try:
        return StudyDirectory(directory).open()
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where=error.where, remedy=error.remedy) from error


def _summary(study: StudyDirectory) -> StudySummary:
    try:
        return load_summary(study)
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where=error.where, remedy=error.remedy) from error


def _tell(summary: StudySummary, directory: Path, best: Path | None) -> None:
    console = Console(highlight=False)
    if summary.verdict:
        discounts = summary.verdict.discounts
        table = Table("model", "weakest source", "95 % interval", *summary.names, "artifacts", *discounts)
        for label, row in summary.verdict.rows.items():
            shown = f"{label} ◂" if label == summary.verdict.shipped_label else label
            each = [f"{row.sources[name]:.2f}" for name in summary.names]
            further = [f"{row.metrics[name]:.2f}" if name in row.metrics else "–" for name in discounts.values()]
            damage = "–" if row.artifacts is None else f"{row.artifacts:.2f}"
            table.add_row(shown, f"{row.weakest:.2f}", f"{row.ci_low:.2f} – {row.ci_high:.2f}", *each, damage, *further)
        console.print(table)
        console.print(summary.verdict.sentence, soft_wrap=True, markup=False)
    if best:
        console.print(f"{'model ' if summary.kind == 'model' else 'LoRA  '}  {best}", soft_wrap=True, markup=False)
    console.print(f"report  {directory / 'report.html'}", soft_wrap=True, markup=False)
    if summary.resume_command:
        console.print(f"resume  optimize resume {shlex.quote(str(directory))}", soft_wrap=True, markup=False)
