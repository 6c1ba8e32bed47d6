import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from k2.observability.families import Families, Spread


def page(families: Families) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(families)
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(f"|{v}" for v in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_family_without_labels_is_there_from_the_start() -> None:
    families = Families()
    families.counter("frames", "…")
    families.gauge("state", "…")
    families.histogram("wait_seconds", "…", bounds=(1,))
    shown = page(families)
    assert shown["frames_total"] == 0
    assert shown["state"] == 0
    assert shown["wait_seconds_count"] == 0


def test_a_series_begins_when_its_labels_are_named() -> None:
    families = Families()
    errors = families.counter("errors", "…", "kind")
    assert page(families) == {}
    errors.labels("parse")
    assert page(families) == {"errors_total|parse": 0}
    errors.labels("parse").inc(3)
    assert page(families) == {"errors_total|parse": 3}


def test_a_series_needs_every_label() -> None:
    errors = Families().counter("errors", "…", "kind")
    with pytest.raises(ValueError, match="kind"):
        errors.labels("parse", "BTCUSDT")


def test_buckets_count_what_is_at_most_their_end() -> None:
    families = Families()
    wait = families.histogram("wait_seconds", "…", bounds=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 2):
        wait.observe(value)
    shown = page(families)
    assert shown["wait_seconds_bucket|0.1"] == 2
    assert shown["wait_seconds_bucket|1.0"] == 3
    assert shown["wait_seconds_bucket|+Inf"] == 4
    assert shown["wait_seconds_count"] == 4
    assert shown["wait_seconds_sum"] == pytest.approx(2.65)


def test_one_value_shared_by_many_records_counts_for_each() -> None:
    families = Families()
    wait = families.histogram("wait_seconds", "…", bounds=(1,))
    wait.observe(0.5, times=10)
    assert page(families)["wait_seconds_count"] == 10
    assert page(families)["wait_seconds_sum"] == 5


def test_a_histogram_of_values_below_0_has_no_sum() -> None:
    families = Families()
    lag = families.histogram("lag_seconds", "…", bounds=(-1, 0, 1))
    lag.observe(-0.5)
    shown = page(families)
    assert shown["lag_seconds_bucket|-1.0"] == 0
    assert shown["lag_seconds_bucket|0.0"] == 1
    assert "lag_seconds_sum" not in shown


def test_a_quantile_is_the_end_of_its_bucket() -> None:
    spread = Spread((0.1, 1.0))
    assert spread.quantile(0.5) is None
    for value in (0.05, 0.05, 0.5, 5):
        spread.observe(value)
    assert spread.quantile(0.5) == 0.1
    assert spread.quantile(0.75) == 1.0
    assert spread.quantile(0.99) == float("inf")


def test_what_is_measured_at_a_scrape_is_measured_at_each() -> None:
    families = Families()
    age = families.gauge("age_seconds", "…", "leg")
    ages = iter([1.0, 2.0])
    end = families.before_scrape(lambda: age.labels("a").set(next(ages)))
    assert page(families) == {"age_seconds|a": 1}
    assert page(families) == {"age_seconds|a": 2}
    end()
    assert page(families) == {"age_seconds|a": 2}


def test_services_share_families() -> None:
    shared = Families()
    shared.gauge("memory_bytes", "…").set(7)
    service = Families(shared)
    service.gauge("own", "…")
    assert page(service) == {"memory_bytes": 7, "own": 0}


def test_openmetrics_can_be_written_too() -> None:
    families = Families()
    families.counter("frames", "…").inc()
    families.histogram("lag_seconds", "…", bounds=(-1, 1)).observe(0)
    registry = CollectorRegistry()
    registry.register(families)
    text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert "frames_total 1" in text
    assert text.endswith("# EOF\n")
