"""The data dictionary names every field and column, with its type."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.schema import Schema

from k2.kafka.encoding import SCHEMA_TEXT
from k2.lake.tables import GAPS_SCHEMA, TRADES_SCHEMA

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "data-dictionary-v2.md"
FIELDS = json.loads(SCHEMA_TEXT)["fields"]


def table_under(heading: str) -> dict[str, list[str]]:
    """Return the first table under a heading: name in backticks to the cells after it."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section[section.index("\n| field |") :].lstrip().split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


def avro_type(schema: Any) -> str:
    if isinstance(schema, list):
        return " or ".join(map(avro_type, schema))
    if isinstance(schema, dict):
        if schema.get("logicalType") == "decimal":
            return f"decimal({schema['precision']},{schema['scale']})"
        return str(schema.get("logicalType", schema["type"]))
    return str(schema)


def iceberg_types(schema: Schema) -> dict[str, str]:
    return {
        column.name: str(column.field_type) + ("" if column.required else ", nullable")
        for column in schema.fields
    }


def test_every_field_of_a_trade_is_explained_with_its_avro_type() -> None:
    documented = {name: cells[0] for name, cells in table_under("The trade").items()}

    assert documented == {field["name"]: avro_type(field["type"]) for field in FIELDS}


def test_every_field_of_a_trade_says_where_it_comes_from() -> None:
    sources = table_under("Where each field comes from")

    assert set(sources) == {field["name"] for field in FIELDS}
    assert all(len(cells) == 5 and all(cells) for cells in sources.values())


@pytest.mark.parametrize(
    ("heading", "schema"), [("The trade", TRADES_SCHEMA), ("The declared gap", GAPS_SCHEMA)]
)
def test_every_column_is_explained_with_its_iceberg_type(heading: str, schema: Schema) -> None:
    documented = {name: cells[1] for name, cells in table_under(heading).items()}

    assert documented == iceberg_types(schema)
