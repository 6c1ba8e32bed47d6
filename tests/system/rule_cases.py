"""The promtool tests as values: what happens to which series, and when which alert is looked at."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import yaml

from system.alert_files import RULE_TESTS, Rule, rules, selectors

COUNTERS = ("_total", "_bucket", "_count", "_sum")
ITSELF = "ALERTS"
"""What Prometheus makes of firing alerts: it comes from whatever those read."""

_REPEATED = re.compile(r"(_|-?[\d.e]+?)(?:([+-][\d.]+))?x(\d+)")
_UNITS_S = {"h": 3600, "m": 60, "s": 1}

Values = list[float | None]
"""One value a step; None where the series is not there."""


@dataclass(frozen=True)
class Look:
    """One look at an alert: the step it is at, and the labels of what has to fire then."""

    step: int
    firing: list[dict[str, str]]


@dataclass(frozen=True)
class Case:
    """What one promtool test does to the series of one rule, and its looks at that rule."""

    name: str
    series: dict[str, list[Values]]
    looks: list[Look]

    def first(self, happened: Callable[[Values], int | None]) -> int | None:
        """Return the step at which something had first happened to a series."""
        steps = [happened(one) for every in self.series.values() for one in every]
        return min((step for step in steps if step is not None), default=None)

    def looked_at(self, since: int | None) -> bool:
        """Say whether the alert was looked at from this step on."""
        return since is not None and any(look.step >= since for look in self.looks)


def cases(rule: Rule) -> list[Case]:
    """Return the tests named after a rule (``KEY does this``, ``KEY, KEY and KEY do this``)."""
    read = metrics(rule)
    return [
        Case(
            what,
            {
                metric: values
                for metric, values in _series(test).items()
                if metric in read or ITSELF in read
            },
            list(_looks(test, rule)),
        )
        for test in _tests()
        for keys, what in [subjects(test["name"])]
        if rule.key in keys
    ]


def subjects(name: str) -> tuple[list[str], str]:
    """Return the rules a test is named after, and what they do in it."""
    keys = []
    while key := next((key for key in _keys() if name.startswith(f"{key} ")), None) or next(
        (key for key in _keys() if name.startswith(f"{key}, ")), None
    ):
        keys.append(key)
        name = re.sub(r"^(, | and )", "", name.removeprefix(key))
    return keys, name.strip()


@cache
def _keys() -> list[str]:
    """The longest first: one may begin as another does."""
    return sorted({rule.key for rule in rules() if rule.is_alert}, key=len, reverse=True)


def metrics(rule: Rule) -> set[str]:
    """Return the metrics a rule reads, and those that its recorded ones are made of."""
    found = _named(rule.expression)
    return found.union(*(_recorded().get(name, ()) for name in found))


@cache
def _recorded() -> dict[str, set[str]]:
    """What each recorded series is made of."""
    direct: dict[str, set[str]] = {}
    for rule in rules():
        if not rule.is_alert:
            direct.setdefault(rule.name, set()).update(_named(rule.expression))

    def whole(name: str) -> set[str]:
        made_of = direct.get(name, set())
        return made_of.union(*map(whole, made_of))

    return {name: whole(name) for name in direct}


def _named(expression: str) -> set[str]:
    return {one.partition("{")[0] for one in selectors(expression)}


def reads_a_counter(rule: Rule) -> bool:
    """Say whether a restart sets anything back that a rule reads."""
    return any(name.endswith(COUNTERS) for name in metrics(rule))


# What a case shows, apart from how it is called.


def fires(case: Case) -> bool:
    """Some look finds the alert."""
    return any(look.firing for look in case.looks)


def stays_quiet(case: Case) -> bool:
    """No look finds the alert, though there is something to judge."""
    return bool(case.series) and bool(case.looks) and not fires(case)


def process_dies(case: Case) -> bool:
    """A series that was there is gone (``up`` is 0) when the alert is looked at."""
    up = case.series.get("up", [])
    every = [one for values in case.series.values() for one in values]
    return any(_gone(one, at=look.step) for look in case.looks for one in every) or any(
        _down(one, at=look.step) for look in case.looks for one in up
    )


def restarts(case: Case) -> bool:
    """A series is gone and there again (``up`` is back at 1), and the alert is looked at then."""
    up = Case(case.name, {"up": case.series.get("up", [])}, case.looks)
    return case.looked_at(case.first(_return)) or up.looked_at(up.first(_back))


def counter_is_reset(case: Case) -> bool:
    """A counter falls, and the alert is looked at then."""
    counters = {name: one for name, one in case.series.items() if name.endswith(COUNTERS)}
    return case.looked_at(Case(case.name, counters, case.looks).first(_fall))


def _gone(values: Values, *, at: int) -> bool:
    # A series that merely ends was not looked at any further by whoever wrote the test.
    return at < len(values) and values[at] is None and any(one is not None for one in values[:at])


def _down(values: Values, *, at: int) -> bool:
    return at < len(values) and values[at] == 0 and 1 in values[:at]


def _return(values: Values) -> int | None:
    there = [step for step, value in enumerate(values) if value is not None]
    return next((b for a, b in pairwise(there) if b > a + 1), None)


def _fall(values: Values) -> int | None:
    there = [(step, value) for step, value in enumerate(values) if value is not None]
    pairs = pairwise(there)
    return next((step for (_, before), (step, after) in pairs if after < before), None)


def _back(values: Values) -> int | None:
    pairs = enumerate(pairwise(values), start=1)
    return next((step for step, (before, after) in pairs if before == 0 and after == 1), None)


# How promtool writes it.


@cache
def _tests() -> list[dict[str, Any]]:
    return [
        test for path in RULE_TESTS for test in yaml.safe_load(path.read_text("utf-8"))["tests"]
    ]


def _series(test: dict[str, Any]) -> dict[str, list[Values]]:
    found: dict[str, list[Values]] = {}
    for one in test["input_series"]:
        found.setdefault(one["series"].partition("{")[0], []).append(expanded(one["values"]))
    return found


def _looks(test: dict[str, Any], rule: Rule) -> Iterator[Look]:
    step_s = _seconds(test["interval"])
    for one in test.get("alert_rule_test", ()):
        if one["alertname"] == rule.name:
            firing = [alert["exp_labels"] for alert in one.get("exp_alerts", ())]
            ours = [each for each in firing if each.get("trigger", "") == rule.trigger]
            yield Look(_seconds(one["eval_time"]) // step_s, ours)


def _seconds(time: str) -> int:
    return sum(int(count) * _UNITS_S[unit] for count, unit in re.findall(r"(\d+)([hms])", time))


def expanded(notation: str) -> Values:
    """Return the values of promtool's shorthand (``0+5x3`` is 0 5 10 15)."""
    found: Values = []
    for word in notation.split():
        if word in ("_", "stale"):
            found.append(None)
        elif (written := _REPEATED.fullmatch(word)) is None:
            found.append(float(word))
        elif written[1] == "_":
            found += [None] * int(written[3])
        else:
            first, growth = float(written[1]), float(written[2] or 0)
            found += [first + growth * step for step in range(int(written[3]) + 1)]
    return found
