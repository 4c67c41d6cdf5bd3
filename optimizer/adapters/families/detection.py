"""Detects the base model family of an adapter: from its shapes, else from its metadata, else from its module names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from optimizer.adapters.factors import Factors
from optimizer.adapters.families import Family

UNKNOWN = "unknown"

_VERSION, _ARCHITECTURE = "ss_base_model_version", "modelspec.architecture"


def base_family(modules: Mapping[str, Factors], metadata: Mapping[str, str], families: Collection[Family]) -> tuple[str, str]:
    """Returns the name of the base model family (``unknown`` without evidence) and a human-readable reason.

    Shapes cannot be wrong in a file that loads; metadata (sd-scripts' ``ss_base_model_version``, ModelSpec's ``architecture``) is often
    wrong after a merge.

    Args:
        modules: canonical module path → factors of the adapter.
        metadata: metadata of the file header.
        families: candidate families, which have modules of all these names.
    """
    told = by_shapes(modules, families) or by_metadata(metadata, families)
    if told is None and len(families) == 1 and not any(metadata.get(key) for key in (_VERSION, _ARCHITECTURE)):
        (only,) = families  # if the metadata state another base, the names may match by chance
        told = (only.name, f"only {only.title} has modules of all these names")
    return told or (UNKNOWN, "")


def by_shapes(modules: Mapping[str, Factors], families: Collection[Family]) -> tuple[str, str] | None:
    """Returns the family that the modules' shapes identify and the reason, or None."""
    for family in families:
        for sign in family.signs:
            for path, factors in modules.items():
                if factors.shape[1] in sign.columns and sign.path.fullmatch(path):
                    return family.name, f"{sign.what} {factors.shape[1]}"
    return None


def by_metadata(metadata: Mapping[str, str], families: Collection[Family]) -> tuple[str, str] | None:
    """Returns the family that the metadata state and the reason, or None if they state none of these families."""
    for family in families:
        for key, starts in ((_VERSION, family.versions), (_ARCHITECTURE, family.architectures)):
            if metadata.get(key, "").lower().startswith(starts):
                return family.name, f"{key} says {metadata[key][:80]!r}"
    return None
