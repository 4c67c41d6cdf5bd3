"""The family of the base model that an adapter was trained on: from its shapes, else from its metadata, else from its names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from optimizer.adapters.factors import Factors
from optimizer.adapters.families import Family

UNKNOWN = "unknown"

_VERSION, _ARCHITECTURE = "ss_base_model_version", "modelspec.architecture"


def base_family(modules: Mapping[str, Factors], metadata: Mapping[str, str], families: Collection[Family]) -> tuple[str, str]:
    """Name of the family (``unknown`` where nothing tells it) and, for people, what told it.

    Shapes cannot be wrong in a file that loads; metadata (sd-scripts' ``ss_base_model_version``, ModelSpec's ``architecture``) often
    are, after a merge.

    Args:
        modules: of the adapter.
        metadata: of the file.
        families: those that have modules of all these names.
    """
    told = by_shapes(modules, families) or by_metadata(metadata, families)
    if told is None and len(families) == 1 and not any(metadata.get(key) for key in (_VERSION, _ARCHITECTURE)):
        (only,) = families  # where metadata name a base that is none of these, its names may be the same by chance
        told = (only.name, f"only {only.title} has modules of all these names")
    return told or (UNKNOWN, "")


def by_shapes(modules: Mapping[str, Factors], families: Collection[Family]) -> tuple[str, str] | None:
    """The family that the modules' shapes tell, and how; None where they do not."""
    for family in families:
        for sign in family.signs:
            for path, factors in modules.items():
                if factors.shape[1] in sign.columns and sign.path.fullmatch(path):
                    return family.name, f"{sign.what} {factors.shape[1]}"
    return None


def by_metadata(metadata: Mapping[str, str], families: Collection[Family]) -> tuple[str, str] | None:
    """The family that the metadata name, and where; None where they name none of these."""
    for family in families:
        for key, starts in ((_VERSION, family.versions), (_ARCHITECTURE, family.architectures)):
            if metadata.get(key, "").lower().startswith(starts):
                return family.name, f"{key} says {metadata[key][:80]!r}"
    return None
