"""Locates a base model: a folder, a single file, or a hub model in the local cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from optimizer.errors import BaseModelError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def locate_base(base: str | Path) -> Path:
    """Returns the folder or file of a base model. Nothing is downloaded.

    Args:
        base: a folder, a file, or ``ORGANISATION/NAME`` of a model on the hub, with ``@REVISION`` if it is not ``main``.

    Raises:
        BaseModelError: the path does not exist and the local cache holds no such model.
    """
    place = Path(base)
    if place.exists():
        return place
    name = str(base)
    if not _ID.fullmatch(name):
        remedy = "give a diffusers folder, a .safetensors file, or ORGANISATION/NAME of a model in the local cache"
        remedy = "leave it out: demo:NAME sources bring their base" if name == "demo" else remedy
        raise BaseModelError("does not exist", where=base, remedy=remedy)
    model, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        fetch = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        problem = f"neither a folder nor a file, and no model of this name is in the local cache {constants.HF_HUB_CACHE}"
        raise BaseModelError(problem, where=name, remedy=f"check the path, or fetch it once: {fetch}") from error
