"""Which tape a command is about: the settings, as ``k2 up`` left them or as given."""

from typing import Annotated, Any

from cyclopts import Parameter, validators

from k2.settings import SESSION_FILE, Settings, load_settings

ONE_FLAG = Parameter(negative="")
Port = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))]
Symbols = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


def session(overrides: dict[str, Any]) -> Settings:
    """Return the settings, with what ``k2 up`` ran last in this state directory as their file."""
    state_dir = load_settings({"state_dir": overrides.get("state_dir")}).state_dir
    if overrides.get("kafka_bootstrap") or overrides.get("schema_registry_url"):
        # Somebody names another Kafka or registry: what ran here has no say in its topics.
        return load_settings(overrides)
    return load_settings(overrides, env_file=state_dir / SESSION_FILE)


def split_symbols(symbols: list[str] | None) -> set[str]:
    """Return the symbols named on a command line, by spaces or commas, in any case."""
    return {name.upper() for part in symbols or [] for name in part.split(",") if name}


def open_lake(settings: Settings) -> Any:
    """Return a reader of the lake."""
    from k2.lake.query import LakeReader  # noqa: PLC0415 - `k2 --help` stays fast
    from k2.lake.tables import open_catalog  # noqa: PLC0415

    catalog = open_catalog(
        lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
    )
    return LakeReader(catalog)
