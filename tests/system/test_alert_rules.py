"""The shipped alert files, judged by Prometheus's and Alertmanager's own tools."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from system.alert_files import (
    ALERTMANAGER,
    PROMETHEUS,
    ROOT,
    RULE_TESTS,
    Rule,
    alerts,
)
from system.conftest import program
from system.rule_cases import (
    Case,
    cases,
    counter_is_reset,
    fires,
    process_dies,
    reads_a_counter,
    restarts,
    stays_quiet,
    subjects,
)

SEVERITIES = {"critical": "page", "high": "urgent", "medium": "ticket", "warning": "ticket"}
# What every alert has to be shown to do: how such a test is named, and what has to be in it.
CASES: dict[str, tuple[str, Callable[[Case], bool]]] = {
    "fires": (r"^fires?\b", fires),
    "stays quiet": (r"^stays quiet\b", stays_quiet),
    "process dead": (r"\b(dead|died|dies)\b", process_dies),
    "restart": (r"restart", restarts),
    "counter reset": (r"resets? the counter|counter reset", counter_is_reset),
}
NAMED_BY_THE_CONTRACT = {
    *("BinanceDisconnected", "BinanceNoMessages", "BinanceHighErrorRate", "BinanceMemoryHigh"),
    *("BinanceMemoryLeakDetected", "BinancePongTimeout", "BinanceConnectionStale"),
    *("BinanceTargetDown", "BinanceTargetAbsent", "Watchdog"),
}
PER_SYMBOL = ("BinanceNoMessages", "BinanceSymbolSilent", "BinanceProduceStalled")


def run(*words: str | Path) -> str:
    """Run a tool to its end; return what it printed, or fail with it."""
    done = subprocess.run(
        [program(str(words[0])), *map(str, words[1:])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def slug(heading: str) -> str:
    """Return the anchor of a Markdown heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_prometheus_takes_its_configuration() -> None:
    assert "SUCCESS" in run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    for rules in (PROMETHEUS / "rules").glob("*.yml"):
        run("promtool", "check", "rules", "--lint-fatal", rules)


def test_alertmanager_takes_its_configuration() -> None:
    assert "SUCCESS" in run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", path)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.key)
def test_every_alert_is_tested_in_each_case(rule: Rule) -> None:
    found = cases(rule)
    needed = set(CASES)
    if rule.name == "Watchdog":
        needed = {"fires"}  # it reads nothing
    elif not reads_a_counter(rule):
        needed.remove("counter reset")
    missing = {
        kind
        for kind in needed
        if not any(re.search(CASES[kind][0], one.name) and CASES[kind][1](one) for one in found)
    }
    if rule.name in PER_SYMBOL and not any("one quiet symbol" in one.name for one in found):
        missing.add("one quiet symbol")
    assert not missing, f"{rule.key} has no test: {sorted(missing)}"


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_every_test_of_an_alert_is_named_after_it_and_looks_at_nothing_else(path: Path) -> None:
    for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
        keys, _ = subjects(test["name"])
        looked_at = {look["alertname"] for look in test.get("alert_rule_test", ())}
        assert {key.partition(" ")[0] for key in keys} == looked_at, test["name"]


def test_the_alerts_named_by_the_contract_are_there() -> None:
    assert {rule.name for rule in alerts()} >= NAMED_BY_THE_CONTRACT


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.name)
def test_every_alert_says_how_bad_it_is_and_what_to_do(rule: Rule) -> None:
    severity = rule.body["labels"]["severity"]
    assert severity in SEVERITIES or (rule.name, severity) == ("Watchdog", "none")
    annotations = rule.body["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert all(annotations.values())
    page, _, anchor = annotations["runbook"].partition("#")
    assert page == "docs/operations/runbooks/binance-streaming.md"
    assert anchor
    if (ROOT / page).exists():
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert anchor in map(slug, headings), f"{page} has no heading for #{anchor}"


@pytest.mark.parametrize(("severity", "receiver"), SEVERITIES.items())
def test_every_severity_is_routed(severity: str, receiver: str) -> None:
    assert routed(alertname="Any", severity=severity) == receiver


def test_the_watchdog_and_a_severity_nobody_thought_of_are_routed() -> None:
    assert routed(alertname="Watchdog", severity="none") == "heartbeat"
    assert routed(alertname="Any", severity="unheard-of") == "ticket"


def routed(**labels: str) -> str:
    """Return the receiver Alertmanager gives these labels to."""
    words = [f"{name}={value}" for name, value in labels.items()]
    return run(
        "amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *words
    ).strip()


def test_no_secret_is_in_the_shipped_files() -> None:
    for path in (ALERTMANAGER, *PROMETHEUS.rglob("*.yml")):
        # A secret is named by the file it is in.
        text = path.read_text("utf-8")
        found = re.findall(r"(?m)^\s*\w*(?:password|token|secret|credentials):", text)
        assert not found, f"{path}: {found}"
