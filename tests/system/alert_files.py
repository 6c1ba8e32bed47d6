"""The shipped alert files as values: rules, their expressions, the selectors in those."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
ALERTMANAGER = ROOT / "config" / "alertmanager" / "alertmanager.yml"
ALERTS = PROMETHEUS / "rules" / "binance_alerts.yml"
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


@dataclass(frozen=True)
class Rule:
    """One rule; ``name`` is the alert's, or of the series it records."""

    name: str
    expression: str
    is_alert: bool
    body: dict[str, Any]

    @property
    def trigger(self) -> str:
        """Which of the alerts of this name it is; empty where there is one."""
        return str(self.body.get("labels", {}).get("trigger", ""))

    @property
    def key(self) -> str:
        """What its tests are named after: the alert, and which of them."""
        return f"{self.name} {self.trigger}".strip()


def rules() -> list[Rule]:
    """Return every shipped rule."""
    found = []
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            for body in group["rules"]:
                name = body.get("alert") or body["record"]
                found.append(Rule(name, body["expr"], "alert" in body, body))
    return found


def alerts() -> list[Rule]:
    """Return the alerts."""
    return [rule for rule in rules() if rule.is_alert]


def selectors(expression: str) -> set[str]:
    """Return what an expression selects: metric name and label matchers, without time."""
    return {
        _written(one)
        for one in _walk(promql_parser.parse(expression))
        if isinstance(one, promql_parser.VectorSelector)
    }


def _walk(node: object) -> Iterator[object]:
    """Yield every node below, by whatever attribute a node kind keeps its parts under."""
    yield node
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        part = getattr(node, name, None)
        for one in part if isinstance(part, list) else [part]:
            if one is not None and type(one).__module__ == type(node).__module__:
                yield from _walk(one)


def _written(selector: Any) -> str:
    """Write a selector again, without offset."""
    return re.sub(r"\s+offset\s+\S+$", "", selector.prettify().strip())
