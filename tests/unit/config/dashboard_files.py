"""The shipped dashboards as values: panels, their queries, what those name."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser

ROOT = Path(__file__).parents[3]
GRAFANA = ROOT / "config" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Query:
    """One query of a panel, as shipped."""

    expression: str
    legend: str

    @property
    def legend_labels(self) -> set[str]:
        """Return the labels the legend shows."""
        return set(re.findall(r"{{\s*(\w+)\s*}}", self.legend))

    def filled(self) -> str:
        """Return the expression with every choice at its beginning: all."""
        return re.sub(r"\$\w+", ".*", self.expression)


@dataclass(frozen=True)
class Panel:
    """One panel; rows are none."""

    board: str
    body: dict[str, Any]

    @property
    def title(self) -> str:
        """Its title."""
        return str(self.body["title"])

    @property
    def kind(self) -> str:
        """Its panel type."""
        return str(self.body["type"])

    @property
    def queries(self) -> list[Query]:
        """What it asks."""
        return [Query(one["expr"], one["legendFormat"]) for one in self.body["targets"]]

    def __str__(self) -> str:
        """Name it."""
        return f"{self.board}: {self.title}"


def boards() -> list[dict[str, Any]]:
    """Return the dashboards."""
    return [json.loads(path.read_text("utf-8")) for path in FILES]


def panels() -> list[Panel]:
    """Return the panels of all dashboards."""
    return [
        Panel(board["title"], body)
        for board in boards()
        for body in board["panels"]
        if body["type"] != "row"
    ]


@dataclass(frozen=True)
class Selected:
    """A metric a query selects, and the labels it is matched by."""

    metric: str
    labels: frozenset[str]


def selected(query: Query) -> set[Selected]:
    """Return every metric a query names."""
    return {
        Selected(str(node.name), frozenset(one.name for one in node.matchers.matchers))
        for node in _walk(promql_parser.parse(query.filled()))
        if isinstance(node, promql_parser.VectorSelector)
    }


def grouped(query: Query) -> set[str]:
    """Return every label a query groups or joins by."""
    return {
        label.strip()
        for group in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query.expression)
        for label in group.split(",")
    }


def _walk(node: object) -> Iterator[object]:
    yield node
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        part = getattr(node, name, None)
        for one in part if isinstance(part, list) else [part]:
            if one is not None and type(one).__module__ == type(node).__module__:
                yield from _walk(one)
