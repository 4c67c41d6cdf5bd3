"""Extracting a LoRA from a pair of full models, from the request to the checked file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optimizer.adapters import Dialect, clean_name
from optimizer.checkpoints.model import Tick
from optimizer.checkpoints.open import open_model
from optimizer.errors import UsageError
from optimizer.export import ExportMetadata, export_adapter, next_free, verify_export
from optimizer.merging import DTYPES
from optimizer.merging.models.extract import Extraction, extract
from optimizer.search.config import Dtype

_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """What to extract, and where to write it.

    Attributes:
        model: trained model: folder, ``.safetensors`` file or name on the hub.
        base: model that it was trained from.
        rank: maximum rank of a module.
        rank_energy: share of each module's energy to keep, in (0, 1], at the smallest rank; None always uses ``rank``.
        dialect: key names of the file.
        dtype: number format of the file.
        out: file to write, or folder to write it to; None is the working directory.
        force: whether to overwrite an existing file; if False, the next free name is used.
    """

    model: str
    base: str
    rank: int = 32
    rank_energy: float | None = None
    dialect: Dialect = "kohya"
    dtype: Dtype = "fp16"
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class ExtractedFile:
    """A written extraction.

    Attributes:
        path: path of the file.
        extraction: extracted LoRA, in fp32, and what it keeps.
    """

    path: Path
    extraction: Extraction


def extract_lora(request: ExtractRequest, *, tick: Tick | None = None) -> ExtractedFile:
    """Extracts a LoRA, writes it, and checks the file by reading it back.

    Args:
        request: models, rank and output file.
        tick: called with the number of finished tensors and of all. An exception that it raises stops the extraction and leaves no file.

    Raises:
        UsageError: an option is invalid, or the output folder does not exist.
        BaseModelError: a model cannot be read, or they do not fit each other.
        ExportError: the file, read back, differs from the extraction.
    """
    _check(request)
    model, base = open_model(request.model), open_model(request.base)
    path = _path(request.out, f"{clean_name(model.name)}_rank{request.rank}{_SUFFIX}")
    found = extract(model, base, rank=request.rank, energy=request.rank_energy, tick=tick)
    path = path if request.force else next_free(path)
    description = f"{model.name} minus {base.name}, at most rank {request.rank}"
    metadata = ExportMetadata(title=found.adapter.name, description=description, tags=("lora",))
    export_adapter(found.adapter, path, dialect=request.dialect, dtype=DTYPES[request.dtype], metadata=metadata)
    verify_export(path, found.adapter)
    return ExtractedFile(path, found)


def _check(request: ExtractRequest) -> None:
    if request.rank < 1:
        raise UsageError(f"the rank is {request.rank}", where="--rank", remedy="give a number, 1 or more")
    if request.rank_energy is not None and not 0 < request.rank_energy <= 1:
        raise UsageError(f"got {request.rank_energy:g}", where="--rank-energy", remedy="give a share, such as 0.95")


def _path(out: Path | None, name: str) -> Path:
    if out is None or out.is_dir():
        return (out or Path()) / name
    if out.suffix != _SUFFIX or not out.parent.is_dir():
        remedy = "name a file that ends in .safetensors, in a directory that exists"
        raise UsageError("is neither such a file nor a directory", where=f"--out {out}", remedy=remedy)
    return out
