"""``optimize worker``: evaluates trials of a study that another process has started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from optimizer.cli.quiet import hush
from optimizer.jobs.saved_studies import joined_config
from optimizer.search.workers.parent_watch import exit_with_parent


def worker(
    directory: Path | None = None,
    *,
    storage: str = "",
    study: str = "",
    artifacts: str = "",
    base: str = "",
    eval_base: str = "",
    vae: str = "",
    denoiser: str = "",
    decoder: str = "",
    base_config: str = "",
    device: str = "auto",
    batch: int | None = None,
    metric: tuple[str, ...] = (),
) -> int:
    """Evaluate trials of a study that another process has started, here or on another machine.

    Args:
        directory: study directory, also of a study that is in a database.
        storage: postgresql://… database of the study.
        study: name of the study in the database.
        artifacts: folder or s3://BUCKET/PREFIX with the evaluations, pictures and sources of the study.
        base: location of the study's --base on this machine, if it differs.
        eval_base: location of the study's --eval-base on this machine, if it differs.
        vae: location of the study's --vae on this machine, if it differs.
        denoiser: location of the study's --denoiser on this machine, if it differs.
        decoder: location of the study's --decoder on this machine, if it differs.
        base_config: location of the study's --base-config on this machine, if it differs.
        device: Torch device.
        batch: pictures per forward pass.
        metric: the study's --metric, if it has one: its code is imported only if you name it.
    """
    config = joined_config(directory, storage, study, artifacts, metric)
    places = {"base": base, "eval_base": eval_base, "vae": vae, "denoiser": denoiser, "decoder": decoder, "base_config": base_config}
    here = {name: place for name, place in places.items() if place}
    own: dict[str, Any] = here | {"device": device} | ({} if batch is None else {"batch": batch})
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    from optimizer.cli.display import Display
    from optimizer.search.observer import Stopped
    from optimizer.search.worker import work

    display = Display(errors)
    exit_with_parent()
    with display.watching():
        try:
            done = work(config.replaced(**own), display)
        except Stopped:
            return 128 + (display.stopping or 0)
    print(f"{done} {'trial' if done == 1 else 'trials'} evaluated here; the study has none left")
    return 0
