"""The options of the main command: those of the configuration, side by side, each in its panel of the help text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from optimizer.search.config import GROUPS, Panel, Settings, option_of

PANELS = {panel: Group(panel, sort_key=place) for place, panel in enumerate(Panel)}


def _options() -> dict[str, Any]:
    """Returns the declarations of all options, in the order of the help text."""
    fields = {name: field for group in GROUPS for name, field in group.model_fields.items()}
    return {
        name: (Annotated[field.annotation, *field.metadata, _shown(field)], Field(default=field.default, description=field.description))
        for name, field in fields.items()
    }


def _shown(field: FieldInfo) -> Parameter:
    """Returns how the help text shows an option."""
    option = option_of(field)
    return Parameter(group=PANELS[option.panel], metavar=option.value or None, show_env_var=False)


if TYPE_CHECKING:
    Options = Settings
else:
    Options = create_model("Options", __base__=Settings, **_options())
"""All options of the main command in one flat model, which is what cyclopts reads."""
