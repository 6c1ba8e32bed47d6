"""Every row of the operations contract is covered, and every name of it exists."""

import ast
from dataclasses import replace
from functools import cache

import pytest

from contract.listing import (
    ISSUES,
    ROOT,
    MetricName,
    Row,
    contract_rows,
    exists,
    listing,
    metric_names,
    own_corrections,
    rows,
)
from contract.summary import lines, uncovered
from k2.cli.app import app
from k2.observability import metrics
from k2.observability.families import Counters, Gauges, Histograms
from k2.settings import load_settings, setting_rows
from system.alert_files import alerts
from unit.config.dashboard_files import panels

SERVICES = {"both": metrics.process, "stream": metrics.capture, "archive": metrics.archive}
TYPES = {Counters: "counter", Gauges: "gauge", Histograms: "histogram"}

every_row = pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)


def test_every_row_of_the_contract_is_listed_and_nothing_else() -> None:
    found = {row.name for row in rows()}
    assert found == contract_rows()
    assert {"R001", "R137", "R164", "C29", "D12"} <= found


@every_row
def test_every_row_is_covered(row: Row) -> None:
    assert not uncovered([row])
    assert row.owed in ISSUES | {""}


@every_row
def test_what_differs_names_the_correction_that_says_why(row: Row) -> None:
    if not row.differs:
        return
    assert row.correction, f"{row.name} begins with no C or D number: {row.differs}"
    ours = own_corrections()
    if row.correction in ours:
        assert row.name in ours[row.correction].split(", ")
    else:
        assert row.correction in {name for name in contract_rows() if name[0] in "CD"}


def test_our_corrections_go_on_where_the_contracts_end_and_each_is_used() -> None:
    named = {row.correction for row in rows()}
    ours = list(own_corrections())
    assert ours == [f"C{number}" for number in range(30, 30 + len(ours))]
    assert set(ours) <= named
    assert not set(ours) & contract_rows()


def test_a_difference_in_prose_or_with_a_number_in_passing_has_no_correction() -> None:
    def correction(differs: str) -> str:
        return replace(rows()[0], differs=differs).correction

    assert correction("C6") == correction("C6: the probe is optional") == "C6"
    for prose in ("fixed", "the timeout is fixed: C6", "C6 makes it optional", "C6:", "R6", "C"):
        assert correction(prose) == ""


@every_row
def test_every_named_test_exists(row: Row) -> None:
    assert [test for test in row.tests if not exists(test)] == []


@pytest.mark.parametrize("metric", metric_names(), ids=lambda metric: metric.name)
def test_the_test_that_sees_a_metric_is_there_and_covers_its_row(metric: MetricName) -> None:
    assert exists(metric.seen_by)
    if metric.row:
        tests = next(row.tests for row in rows() if row.name == metric.row)
        assert metric.seen_by in tests


def test_the_list_of_metrics_is_the_table_in_the_code() -> None:
    table = {
        (family.name, TYPES[type(family)], tuple(family.label_names), service)
        for service, families in SERVICES.items()
        for family in families.own
    }
    listed = {(one.family, one.type, one.labels, one.service) for one in metric_names()}
    assert listed == table


def test_contract_names_carry_no_prefix_and_ours_do() -> None:
    for one in metric_names():
        assert one.row or one.name.startswith("k2_"), one.name
        assert one.row in ("R030", "R032", "") or not one.name.startswith("k2_"), one.name


def test_counters_end_in_total_and_times_in_their_unit() -> None:
    for one in metric_names():
        assert one.name.endswith("_total") == (one.type == "counter"), one.name
        assert not one.name.endswith(("_ms", "_us", "_minutes", "_kb", "_mb")), one.name


@pytest.mark.parametrize("setting", listing()["setting"], ids=lambda setting: setting["name"])
def test_every_setting_has_its_default(setting: dict[str, str]) -> None:
    shown = {row.variable: row.value for row in setting_rows(load_settings())}
    assert shown[setting["name"]] == setting["default"]


@pytest.mark.parametrize("command", listing()["command"], ids=lambda one: " ".join(one["words"]))
def test_every_command_is_there(command: dict[str, list[str]]) -> None:
    found = app
    for word in command["words"]:
        if word == "healthcheck":
            continue  # it is run without any of this; see its own tests
        found = found[word]


def test_every_alert_and_panel_is_shipped() -> None:
    shipped = {alert.name: alert.body for alert in alerts()}
    for one in listing()["alert"]:
        body = shipped[one["name"]]
        assert body["labels"]["severity"] == one["severity"], one["name"]
        if "for" in one:
            assert body["for"] == one["for"], one["name"]
    titles = {panel.title for panel in panels()}
    assert {one["title"] for one in listing()["panel"]} <= titles


@cache
def said() -> set[str]:
    """Return every literal text in the source."""
    return {
        node.value
        for path in (ROOT / "src" / "k2").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("log", listing()["log"], ids=lambda log: log["literal"])
def test_every_literal_the_runbooks_look_for_is_said_somewhere(log: dict[str, str]) -> None:
    assert any(log["literal"] in text for text in said())


@pytest.mark.parametrize("one", listing()["path"], ids=lambda one: one["path"])
def test_every_path_of_the_contract_is_there_or_owed(one: dict[str, str]) -> None:
    there = (ROOT / one["path"]).exists()
    assert there != ("owed" in one), "what is there is owed no more" if there else "it is not there"


def test_a_row_with_nothing_and_a_test_that_is_gone_are_shown() -> None:
    bare = Row(rows()[0].name, "nothing")
    gone = Row(rows()[0].name, "gone", tests=("tests/nowhere.py::test_it",))
    assert uncovered([bare, gone]) == [bare]
    text = "\n".join(lines([bare, gone]))
    assert "NOTHING" in text
    assert "NO SUCH TEST tests/nowhere.py::test_it" in text
    assert "1 have nothing" in text
