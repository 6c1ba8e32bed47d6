"""The list of metrics and endpoints against running services, with Kafka away and with Kafka."""

import json
import re
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from contract.listing import MetricName, listing, metric_names
from integration.harness import Process, Room, wait_for
from integration.samples import Samples
from k2.local.ports import pick_free

pytestmark = pytest.mark.integration

# No series before anything is known of the symbol (an id), or of another process.
NOT_BEFORE_A_TRADE = {"k2_next_id", "k2_lake_next_id"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# What the runbooks decide health by (contract R090).
ALARMING = re.compile(r"error|exception|critical|invalid|parse", re.IGNORECASE)


def start(room: Room) -> dict[str, Process]:
    (room.extra["K2_ARCHIVE_HEALTH_PORT"],) = map(str, pick_free(1))
    return {"stream": room.stream(), "archive": room.archive()}


def check_all(samples: Samples, service: str, *, symbols: tuple[str, ...]) -> None:
    """Hold one page against the list: every family, its type, labels and known values."""
    for one in (metric for metric in metric_names() if metric.of(service)):
        family = samples.families.get(one.family)
        assert family is not None, f"{service} does not tell {one.name}"
        assert family.type == one.type, one.name
        assert family.documentation, one.name
        if one.name in NOT_BEFORE_A_TRADE:
            continue
        check_series(samples, one, symbols)


def check_series(samples: Samples, one: MetricName, symbols: tuple[str, ...]) -> None:
    name = f"{one.name}_bucket" if one.type == "histogram" else one.name
    # What the runbooks do: curl | grep NAME finds a line that is no comment.
    assert re.search(rf"^{name}[ {{]", samples.text, re.MULTILINE), f"{one.name} has no line"
    found = samples.labels(name)
    for labels in found:
        assert labels.keys() - {"le"} == set(one.labels), f"{one.name}: {labels}"
    if one.bounds:
        ends = {float(labels["le"]) for labels in found}
        assert ends == {*one.bounds, float("inf")}, one.name
    for label, values in one.values.items():
        assert {labels[label] for labels in found} >= set(values), f"{one.name}: {label}"
    if "symbol" in one.labels and one.service == "stream":
        assert {labels["symbol"] for labels in found} >= set(symbols), one.name


def nothing_unlisted(samples: Samples, service: str) -> None:
    """Only the client library's own families of the process are not on the list."""
    listed = {one.family for one in metric_names() if one.of(service)}
    others = {name for name in samples.families if name not in listed}
    assert {name for name in others if not name.startswith(("process_", "python_"))} == set()


def test_every_metric_is_there_from_the_start_with_its_type_and_labels(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "200")
    (nowhere,) = pick_free(1)
    room.extra["KAFKA_BOOTSTRAP"] = f"127.0.0.1:{nowhere}"
    away = start(room)
    for service, process in away.items():
        samples = room.metrics(process)
        check_all(samples, service, symbols=room.symbols)
        nothing_unlisted(samples, service)
        if service == "stream":
            assert samples.value("binance_connection_state") == 0
    for process in away.values():
        assert process.end() == 0
    del room.extra["KAFKA_BOOTSTRAP"]
    running = start(room)
    room.wait_until_archiving()
    for service, process in running.items():
        samples = room.metrics(process)
        check_all(samples, service, symbols=room.symbols)
        nothing_unlisted(samples, service)
    assert room.metrics(running["stream"]).value("binance_connection_state") == 1


def test_metrics_are_text_or_openmetrics_by_what_is_asked_for(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "200")
    for service, process in start(room).items():
        room.metrics(process)
        url = f"http://127.0.0.1:{room.metrics_port(process)}/metrics"
        kind, text = get(url, accept="text/plain")
        assert kind.startswith("text/plain")
        assert "# EOF" not in text
        kind, text = get(url, accept=OPENMETRICS)
        assert kind.startswith("application/openmetrics-text")
        # The strict reader: it refuses what a scraper might forgive.
        read = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        families = {family.name for family in read}
        assert families >= {one.family for one in metric_names() if one.of(service)}


def get(url: str, *, accept: str) -> tuple[str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.headers["Content-Type"], reply.read().decode()


def test_every_endpoint_answers_as_the_contract_says(room: Room) -> None:
    room.measured = True
    room.exchange("--rate", "200")
    running = start(room)
    room.wait_until_archiving()
    for one in listing()["endpoint"]:
        process = running[one["service"]]
        url = f"http://127.0.0.1:{port(process, one['service'], one['port'])}{one['path']}"
        assert 200 in one["statuses"]
        wait_for(lambda url=url: status(url) == 200, what=f"{url} to answer 200")  # type: ignore[misc]


def port(process: Process, service: str, kind: str) -> str:
    prefix = "K2_ARCHIVE_" if service == "archive" else "K2_"
    return process.environ[f"{prefix}{kind.upper()}_PORT"]


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return 0


def test_a_healthy_run_says_nothing_that_alarms_and_ends_with_shutdown_complete(
    room: Room,
) -> None:
    room.exchange("--rate", "200")
    stream, archive = room.stream(), room.archive()
    room.wait_until_archiving()
    (subscribed, _) = stream.events("Subscribed")
    assert subscribed["symbols"] == list(room.symbols)
    assert len(stream.events("Connected")) == 2
    for process in (stream, archive):
        assert process.end() == 0
        lines = process.log().splitlines()
        for line in lines:
            told = json.loads(line)
            assert told["level"] in ("info", "debug"), line
            assert not ALARMING.search(line), line
        assert "Shutdown complete" in lines[-1]
