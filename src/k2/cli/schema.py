"""``k2 schema``: the trade schema and the registry."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App

from k2.cli.output import TEXT, Output, print_either, print_json, print_table
from k2.cli.session import ONE_FLAG, session
from k2.errors import K2Error, RejectError
from k2.ingestion.supervision import ExitCode

SHOWN_CHARS = 200

schema = App(name="schema", help="The trade schema and the registry.", help_epilogue="")


@schema.command(name="register")
def schema_register(
    *,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Register the trade schema under TOPIC-value (again is fine).

    Examples: `k2 schema register`, `k2 schema register --schema-registry http://registry:8081`.

    Args:
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    subject, registry = _registry(schema_registry, state_dir)
    schema_id = registry.register(subject, _schema_text())
    found = {"subject": subject, "id": schema_id}
    print_either(found, f"{subject}: registered with id {schema_id}", output.as_json)
    return ExitCode.CLEAN


@schema.command(name="check")
def schema_check(
    *,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Say whether this version's schema may follow the registered one. Exit 1 when it may not.

    Examples: `k2 schema check`, `k2 schema check --schema-registry http://registry:8081`.

    Args:
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    subject, registry = _registry(schema_registry, state_dir)
    compatible = registry.compatible(subject, _schema_text())
    found = {"subject": subject, "compatible": compatible}
    verdict = "compatible" if compatible else "NOT compatible"
    print_either(found, f"{subject}: {verdict}", output.as_json)
    return ExitCode.CLEAN if compatible else ExitCode.FAILED


@schema.command(name="show")
def schema_show(
    *,
    registered: Annotated[bool, ONE_FLAG] = False,
    schema_registry: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show the schema's fields and what each means.

    Examples: `k2 schema show`, `k2 schema show --json`.

    Args:
        registered: Show the registry's newest version instead of this program's.
        schema_registry: The registry's address (SCHEMA_REGISTRY_URL).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    text = _schema_text()
    if registered:
        subject, registry = _registry(schema_registry, state_dir)
        latest = registry.latest(subject)
        if latest is None:
            raise K2Error(f"{subject} is not registered: run `k2 schema register`")
        text = latest.schema_text
    try:
        parsed = msgspec.json.decode(text)
        if output.as_json:
            print_json(parsed)
            return ExitCode.CLEAN
        rows = [(f["name"], _type_name(f["type"]), f.get("doc", "")) for f in parsed["fields"]]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as exc:
        # Only what is registered can be: somebody else's schema, of whatever kind.
        shown = " ".join(text[:SHOWN_CHARS].split())
        raise RejectError(f"what is registered is no Avro record: {shown}") from exc
    print_table(["field", "type", "meaning"], rows)
    return ExitCode.CLEAN


def _type_name(avro_type: Any) -> str:
    if isinstance(avro_type, list):
        return " or ".join(_type_name(part) for part in avro_type)
    if isinstance(avro_type, dict):
        if avro_type.get("logicalType") == "decimal":
            return f"decimal({avro_type['precision']},{avro_type.get('scale', 0)})"
        return str(avro_type.get("logicalType") or avro_type.get("name") or avro_type["type"])
    return str(avro_type)


def _schema_text() -> str:
    from k2.kafka.encoding import SCHEMA_TEXT  # noqa: PLC0415 - `k2 --help` stays fast

    return SCHEMA_TEXT


def _registry(url: str | None, state_dir: Path | None) -> Any:
    from k2.kafka.topics import TopicNames  # noqa: PLC0415

    settings = session({"schema_registry_url": url, "state_dir": state_dir})
    subject = TopicNames.of(settings.topic_prefix).subject
    return subject, settings.registry
