"""The options of ``optimize merge``, each in its panel of the help text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from optimizer.jobs.merge_options import MergeOption, MergeOptions, MergePanel

_PANELS = {panel: Group(panel, sort_key=place) for place, panel in enumerate(MergePanel)}


def shown(panel: MergePanel, value: str = "") -> Parameter:
    """Returns how the help text shows an option: its panel, and the placeholder of its value unless it is empty."""
    return Parameter(group=_PANELS[panel], metavar=value or None, show_env_var=False)


def _flag(field: FieldInfo) -> tuple[Any, Any]:
    """Returns the annotation and the field of an option for cyclopts."""
    (option,) = (entry for entry in field.metadata if isinstance(entry, MergeOption))
    return (
        Annotated[field.annotation, *field.metadata, shown(option.panel, option.value)],
        Field(default=field.default, description=field.description),
    )


if TYPE_CHECKING:
    MergeFlags = MergeOptions
else:
    MergeFlags = create_model(
        "MergeFlags", __base__=MergeOptions, **{name: _flag(field) for name, field in MergeOptions.model_fields.items()}
    )
"""The options of one merge as cyclopts reads them."""
