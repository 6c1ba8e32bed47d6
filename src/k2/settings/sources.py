"""Where values come from, and when a variable that is there says nothing all the same."""

from pathlib import Path
from typing import get_args

from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

SAYS_SOMETHING_EMPTY = frozenset({"log_file"})
"""Empty, it turns the file off."""


def without_empty_paths(
    settings: type[BaseSettings], *sources: PydanticBaseSettingsSource
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return the sources less their empty paths: ``K2_LAKE_DIR=`` in a compose file is not set.

    As a path the empty text would be the current folder.
    """
    paths = {
        str(field.validation_alias).lower()
        for name, field in settings.model_fields.items()
        if Path in (field.annotation, *get_args(field.annotation))
        and name not in SAYS_SOMETHING_EMPTY
    }
    for source in sources:
        if isinstance(source, EnvSettingsSource):
            source.env_vars = {
                name: value
                for name, value in source.env_vars.items()
                if value or name.lower() not in paths
            }
    return sources
