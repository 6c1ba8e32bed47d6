"""The operations contract as values: docs/reference/contract.toml, and the contract's own rows."""

import ast
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NewType

import pytest

ROOT = Path(__file__).parents[2]
LISTING = ROOT / "docs" / "reference" / "contract.toml"
CORRECTIONS = ROOT / "docs" / "reference" / "corrections.md"
CONTRACT = ROOT.parent / "shared" / "reference" / "operations-contract.md"
ISSUES = {"deployment", "performance"}

RowName = NewType("RowName", str)
"""R001, C5, D12: as the contract numbers them."""


@dataclass(frozen=True)
class Row:
    """One row of the contract, and what covers it."""

    name: RowName
    what: str
    tests: tuple[str, ...] = ()
    differs: str = ""
    """The C or D number that says why it is otherwise here; a few words may follow a colon."""
    owed: str = ""
    """The issue it, or a part of it, belongs to."""

    @property
    def correction(self) -> str:
        """The number that ``differs`` begins with; empty where it begins with none."""
        found = re.match(r"[CD]\d+(?=$|: \S)", self.differs)
        return found[0] if found else ""


@dataclass(frozen=True)
class MetricName:
    """One metric as the contract (or our own table) has it."""

    name: str
    type: str
    labels: tuple[str, ...]
    service: str
    seen_by: str
    row: str = ""
    values: dict[str, list[str]] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    """Upper ends of a histogram's buckets, where the contract lists them."""

    @property
    def family(self) -> str:
        """What a scraper calls it: a counter's name without ``_total``."""
        return self.name.removesuffix("_total") if self.type == "counter" else self.name

    def of(self, service: str) -> bool:
        """Say whether this service has it."""
        return self.service in (service, "both")


@cache
def listing() -> dict[str, Any]:
    """Return the whole file."""
    return tomllib.loads(LISTING.read_text("utf-8"))


def rows() -> list[Row]:
    """Return every row, in the file's order."""
    return [
        Row(RowName(name), **{**one, "tests": tuple(one.get("tests", ()))})
        for name, one in listing()["row"].items()
    ]


def metric_names() -> list[MetricName]:
    """Return every metric."""
    return [
        MetricName(
            **{**one, "labels": tuple(one["labels"]), "bounds": tuple(one.get("bounds", ()))}
        )
        for one in listing()["metric"]
    ]


def contract_rows() -> set[str]:
    """Return the numbers of every row in the contract's tables, or fail the test."""
    if not CONTRACT.exists():
        pytest.fail(f"the operations contract is not beside this checkout: {CONTRACT}")
    text = CONTRACT.read_text("utf-8")
    found = set(re.findall(r"^\| ([RCD]\d+) \|", text, re.MULTILINE))
    # The scaling table is a row of its own, with its number above it.
    return found | set(re.findall(r"^[A-Z].* table \((R\d+),", text, re.MULTILINE))


def own_corrections() -> dict[str, str]:
    """Return our own C numbers, and the rows (or the C row) each one corrects."""
    text = CORRECTIONS.read_text("utf-8")
    return dict(re.findall(r"^\| (C\d+) \| ([^|]+) \|", text, re.MULTILINE))


@cache
def functions(path: str) -> frozenset[str]:
    """Return the names of a test file's functions; none where there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def exists(test: str) -> bool:
    """Say whether a test of this name (``path::function``) is there."""
    path, _, name = test.partition("::")
    return name in functions(path)
