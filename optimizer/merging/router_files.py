"""Files of routers: safetensors, named by the SHA-256 of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from optimizer.adapters.files.container import read_header, read_tensors, write_atomically
from optimizer.errors import AdapterError, RecipeError
from optimizer.merging.correction import NO_TEXTS
from optimizer.merging.recipe import Sha256
from optimizer.merging.router import FORMAT_VERSION, Router

ROUTERS = "routers"
"""Name of the folder of routers, in a study and beside a recipe."""

Size = Annotated[int, Field(gt=0, le=1 << 16)]
"""Number of rows or of columns of a weight of a text encoder, bounded so that a damaged file cannot ask for more memory than there is."""

_REMEDY = "restore the file, or solve the router again"


class _Layout(BaseModel):
    """Sources and ranks of a router, and shapes of what no source changes, as its file's header tells them."""

    model_config = ConfigDict(extra="forbid")

    sources: tuple[Sha256, ...]
    ranks: Mapping[str, tuple[NonNegativeInt, ...]]
    texts: Mapping[str, tuple[Size, Size]] = NO_TEXTS


def router_path(folder: Path, sha256: str) -> Path:
    """Returns the path of a router's file in a folder of routers."""
    return folder / f"{sha256}.safetensors"


def save_router(router: Router, folder: str | Path) -> Path:
    """Writes a router to a folder, atomically; equal routers give equal files.

    Args:
        router: router to write.
        folder: folder of routers, such as ``routers/`` of a study; it is made if it does not exist.

    Returns:
        Path of the file, ``HASH.safetensors``.

    Raises:
        AdapterError: the file cannot be written.
    """
    path = router_path(Path(folder), router.hash)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterError(f"cannot be made: {error.strerror}", file=path.parent, remedy="check the folder's permissions") from error
    write_atomically(router.serialised(), path)
    return path


def read_router(data: bytes, sha256: str) -> Router:
    """Returns the router in the bytes of a file that ``save_router`` wrote.

    Args:
        data: bytes of the file.
        sha256: SHA-256 of the router, 64 hexadecimal digits.

    Raises:
        RecipeError: the bytes are damaged, or not those of this router.
    """
    with TemporaryDirectory() as folder:
        path = router_path(Path(folder), sha256)
        path.write_bytes(data)
        return load_router(path)


def load_router(path: str | Path) -> Router:
    """Reads a router.

    Raises:
        RecipeError: the file is missing, damaged, or not a router, or its name is not the SHA-256 of its content.
    """
    path = Path(path)
    try:
        header = read_header(path)
        version = header.metadata.get("router_format")
        if version is None:
            raise RecipeError("is no router", where=path, remedy="name a file that save_router wrote, in a folder 'routers'")
        if version != FORMAT_VERSION:
            problem = f"the router has the format version {version!r}; this version reads {FORMAT_VERSION!r}"
            raise RecipeError(problem, where=path, remedy="update this software, or solve the router again")
        tensors, sha256 = read_tensors(header)
    except AdapterError as error:
        raise RecipeError(error.problem, where=error.where, remedy=_REMEDY) from error
    if path.stem != sha256:
        raise RecipeError(f"damaged or renamed: the content has SHA-256 {sha256}", where=path, remedy=_REMEDY)
    try:
        layout = _Layout.model_validate_json(header.metadata.get("router", ""))
        router = Router(layout.sources, layout.ranks, tensors, layout.texts)
    except ValidationError:
        raise RecipeError("damaged: the header does not tell sources and ranks", where=path, remedy=_REMEDY) from None
    except RecipeError as error:
        raise RecipeError(error.problem, where=f"{path}: {error.where}", remedy=_REMEDY) from error
    if router.hash != sha256:
        raise RecipeError("not written by save_router: equal routers have other bytes", where=path, remedy="write it by save_router")
    return router
