import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import CollectorRegistry

from k2.cli.app import app
from k2.observability import metrics
from k2.observability.families import Counters, Families, Gauges, Histograms
from unit.config.dashboard_files import (
    FILES,
    GRAFANA,
    ROOT,
    Panel,
    boards,
    grouped,
    panels,
    selected,
)

RULES = ROOT / "config" / "prometheus" / "rules"
RUNBOOK = "docs/operations/runbooks/binance-streaming.md"
# What Grafana 12 and later draw without a plugin, of the kinds used here.
DRAWN = {"stat", "timeseries", "table", "state-timeline"}
OF_A_TARGET = {"job", "instance"}
SUFFIXES: dict[type, dict[str, tuple[str, ...]]] = {
    Counters: {"_total": ()},
    Gauges: {"": ()},
    Histograms: {"_bucket": ("le",), "_count": (), "_sum": ()},
}
SEED = {
    "Binance Connection State": ("stat", ["binance_connection_state{"]),
    "Messages Received (msg/sec)": ("timeseries", ["rate(binance_messages_received_total{"]),
    "Message Processing Latency": (
        "timeseries",
        [f"histogram_quantile({q}, " for q in ("0.50", "0.95", "0.99")],
    ),
}
# R113: what else has to be on them, by the metric that tells it.
WANTED = {
    *("kafka_messages_produced_total", "kafka_produce_errors_total"),
    *("binance_message_errors_total", "binance_reconnections_total"),
    *("binance_connection_lifetime_seconds", "binance_connection_rotations_total"),
    *("binance_last_pong_timestamp_seconds", "process_memory_rss_bytes"),
    *("memory_leak_detection_score", "serializer_cache_size", "binance_dlq_records_total"),
    *("kafka_consumer_lag_messages", "iceberg_rows_written_total"),
    *("iceberg_write_duration_seconds_count", "sequence_gaps_detected_total"),
    *("duplicate_messages_detected_total", "k2_build_info", "k2:sli_bad:ratio_1h"),
}

every_panel = pytest.mark.parametrize("panel", panels(), ids=str)


def exported(families: Families) -> dict[str, set[str]]:
    """Return every sample name a service can export, and its labels."""
    return {
        family.name + suffix: {*family.label_names, *extra}
        for family in families.own
        for suffix, extra in SUFFIXES[type(family)].items()
    }


def known() -> dict[str, set[str]]:
    """Return every name a query may select, and its labels."""
    found = {"up": set(OF_A_TARGET), "ALERTS": {"alertname", "alertstate", "severity"}}
    for families in (metrics.process, metrics.capture, metrics.archive):
        found |= exported(families)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    for metric in registry.collect():
        found |= {sample.name: set(sample.labels) for sample in metric.samples}
    for path in RULES.glob("*.yml"):
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                if name := rule.get("record"):
                    found.setdefault(name, set()).update(rule.get("labels", {}))
    return {name: labels | OF_A_TARGET for name, labels in found.items()}


def test_the_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "scripts.dashboards", "--to", tmp_path], cwd=ROOT, check=True
    )
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text("utf-8") for path in FILES}
    assert made == shipped, "run: make docs"


def test_the_seeds_panels_are_there_by_title() -> None:
    found = {panel.title: panel for panel in panels() if panel.board == "Binance Streaming"}
    for title, (kind, expressions) in SEED.items():
        assert found[title].kind == kind
        asked = [query.expression for query in found[title].queries]
        for expression in expressions:
            assert any(expression in one for one in asked), f"{title}: {expression}"
    (mapping,) = found["Binance Connection State"].body["fieldConfig"]["defaults"]["mappings"]
    shown = {value: (one["text"], one["color"]) for value, one in mapping["options"].items()}
    assert shown == {"1": ("CONNECTED", "green"), "0": ("DISCONNECTED", "red")}
    latency = found["Message Processing Latency"]
    assert [query.legend[:3] for query in latency.queries] == ["p50", "p95", "p99"]


def test_everything_the_contract_wants_to_see_is_shown() -> None:
    shown = {one.metric for panel in panels() for q in panel.queries for one in selected(q)}
    assert shown >= WANTED


@every_panel
def test_a_panel_is_of_a_kind_that_grafana_still_draws(panel: Panel) -> None:
    assert panel.kind in DRAWN


@every_panel
def test_a_panel_says_what_it_means_and_what_to_do(panel: Panel) -> None:
    assert panel.title.strip()
    meaning, action, runbook = panel.body["description"].split("\n\n")
    assert len(meaning) > 20
    assert action.startswith("**What to do:** ")
    assert len(action) > 40
    assert runbook.startswith(f"`{RUNBOOK}#")


def test_a_panels_runbook_section_is_one_that_alerts_name_too() -> None:
    told = {panel.body["description"].rsplit("#")[-1].strip("`") for panel in panels()}
    text = (RULES / "binance_alerts.yml").read_text("utf-8")
    assert told <= set(re.findall(rf"runbook: {RUNBOOK}#(\S+)", text))
    if (ROOT / RUNBOOK).exists():
        headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / RUNBOOK).read_text("utf-8"))
        anchors = {
            re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings
        }
        assert told <= anchors


@every_panel
def test_the_commands_a_panel_names_exist(panel: Panel) -> None:
    for words in re.findall(r"`k2 ([a-z ]+)`", panel.body["description"]):
        app.parse_args(words.split(), exit_on_error=False)


@every_panel
def test_a_panel_has_a_unit_that_grafana_knows(panel: Panel) -> None:
    grafanas = {value for name, value in vars(units).items() if isinstance(value, str)}
    assert panel.body["fieldConfig"]["defaults"]["unit"] in grafanas - {""}


@every_panel
def test_a_panels_source_can_be_chosen(panel: Panel) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel.body["datasource"] == chosen
    assert panel.body["targets"]
    assert all(target["datasource"] == chosen for target in panel.body["targets"])


@every_panel
def test_a_panel_asks_only_for_metrics_and_labels_that_exist(panel: Panel) -> None:
    names = known()
    for query in panel.queries:
        asked = selected(query)
        assert asked
        for one in asked:
            assert one.metric in names, f"nothing exports {one.metric}"
            assert one.labels <= names[one.metric], f"{one.metric} has no {one.labels}"
        labels = set().union(*(names[one.metric] for one in asked))
        assert grouped(query) <= labels
        assert query.legend_labels <= labels


@every_panel
def test_a_legend_names_what_its_query_keeps_apart(panel: Panel) -> None:
    for query in panel.queries:
        assert query.legend.strip()
        if not grouped(query):
            # An aggregation over everything has one series, and no label to show.
            whole = re.match(r"(sum|max|min|clamp_min)\(", query.expression)
            assert not (whole and query.legend_labels)
            continue
        outer = re.match(r"(?:\w+\([\d.]+, )?(?:sum|max|min) by \(([^)]*)\)", query.expression)
        if outer and "group_left" not in query.expression:
            by = {label.strip() for label in outer[1].split(",")} - {"le"}
            assert query.legend_labels == by, f"{query.legend} of {by}"


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["title"])
def test_a_dashboards_panels_fill_its_grid_and_do_not_overlap(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    for one in places:
        assert one["x"] + one["w"] <= 24
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    for row in {one["y"] for one in places}:
        line = [one for one in places if one["y"] == row]
        assert sum(one["w"] for one in line) == 24
        assert len({one["h"] for one in line}) == 1


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["title"])
def test_titles_and_numbers_are_unique_in_a_dashboard(board: dict[str, Any]) -> None:
    for key in ("title", "id"):
        values = [panel[key] for panel in board["panels"]]
        assert len(values) == len(set(values))


def test_dashboards_are_unique_and_named_like_their_files() -> None:
    assert [board["uid"] for board in boards()] == [path.stem for path in FILES]
    assert len({board["title"] for board in boards()}) == len(FILES) == 3


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["title"])
def test_every_choice_is_used_and_every_used_choice_is_there(board: dict[str, Any]) -> None:
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    names = known()
    for name, variable in variables.items():
        if name == "datasource":
            continue
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", variable["definition"]
        ).groups()  # type: ignore[union-attr]
        assert label in names[metric]
    used = set(re.findall(r"\$(\w+)", str([panel.get("targets") for panel in board["panels"]])))
    assert used | {"datasource"} == set(variables)


def test_the_provisioning_files_point_at_each_other() -> None:
    (source,) = yaml.safe_load((GRAFANA / "datasources" / "prometheus.yml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    shipped = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == shipped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "dashboards" / "k2.yml").read_text("utf-8"))[
        "providers"
    ]
    assert provider["type"] == "file"
    path = provider["options"]["path"].replace("$GF_PATHS_PROVISIONING", str(GRAFANA))
    assert sorted(Path(path).glob("*.json")) == FILES
