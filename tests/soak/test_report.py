"""A soak's figures, bounds, record and page, without a soak."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from soak.forms import FORMS
from soak.judging import Outcome, judge
from soak.plot import Chart, Series, figure, ticks
from soak.profile import (
    Check,
    Metadata,
    Profile,
    Sample,
    leak_scores,
    summary,
    write_profile,
)
from soak.report import page
from soak.scrape import quantile_s, read_metrics

HOUR_FORM = FORMS["1h"]
GOOD = Outcome("completed", 0, [], "complete, 216,000 rows", True, (0.0, 0.0))


def sample(minute: float, **changed: float) -> Sample:
    figures = {
        "elapsed_s": minute * 60,
        "rss_mb": 80.0,
        "vms_mb": 900.0,
        "archive_rss_mb": 150.0,
        "archive_vms_mb": 2000.0,
        "messages": int(36_000 + minute * 3600),
        "message_rate": 60.0,
        "latency_p50_ms": 30.0,
        "latency_p99_ms": 75.0,
        "rotations": int(2 + minute / 5),
        "reconnections": 0,
        "rows_archived": 0,
        "cores": 0.1,
        "archive_cores": 0.2,
    } | changed
    return Sample(timestamp="2026-11-21T00:00:00.000+00:00", **figures)  # type: ignore[arg-type]


def hour_of_samples() -> list[Sample]:
    return [sample(n / 2) for n in range(121)]


def profile_of(samples: list[Sample], checks: list[Check]) -> Profile:
    return Profile(
        Metadata(
            form="1h",
            started="2026-11-21T00:00:00+00:00",
            duration_s=3600,
            duration_wanted_s=3600,
            warm_up_s=600,
            sample_every_s=30,
            samples_wanted=121,
            trades_per_s=60,
            connection_age_max_s=600,
            symbols=["BTCUSDT"],
            machine="2 cores",
            versions={"k2": "0"},
            ended="completed",
            latency_ms={"p50": 30.0, "p95": 60.0, "p99": 75.0},
            alarming_lines=["<script>"],
            checks=checks,
            warm_up_samples=[sample(n / 2) for n in range(-20, 0)],
        ),
        summary(samples),
        samples,
    )


def broken(samples: list[Sample], outcome: Outcome = GOOD) -> list[str]:
    return [check.what for check in judge(HOUR_FORM, samples, outcome) if not check.kept]


def test_a_good_hour_keeps_every_bound() -> None:
    assert broken(hour_of_samples()) == []


def changed(samples: list[Sample], place: int, **figures: float) -> list[Sample]:
    return [*samples[:place], sample(place / 2, **figures), *samples[place + 1 :]]


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (hour_of_samples()[:116], ["measured time, s"]),
        (hour_of_samples()[:60] + hour_of_samples()[68:], ["samples"]),
        (changed(hour_of_samples(), 7, rss_mb=400.1), ["capture: RSS, MB"]),
        (changed(hour_of_samples(), 7, archive_rss_mb=400.1), ["archive: RSS, MB"]),
        (changed(hour_of_samples(), 120, rss_mb=90.0), ["capture: growth, MB"]),
        (changed(hour_of_samples(), 120, rotations=11), ["rotations"]),
        (changed(hour_of_samples(), 120, messages=36_000 + 69_666), ["messages"]),
        (
            changed(hour_of_samples(), 120, messages=36_000 + 35_000),
            ["messages", "messages a second"],
        ),
        (
            [sample(n / 2, archive_rss_mb=150 + n / 10) for n in range(121)],
            ["archive: growth, MB"],
        ),
    ],
)
def test_each_bound_fails_by_itself(samples: list[Sample], what: list[str]) -> None:
    assert broken(samples) == what


@pytest.mark.parametrize(
    ("outcome", "what"),
    [
        (GOOD._replace(ended="interrupted"), "the run"),
        (GOOD._replace(schema_errors=1), "schema errors"),
        (GOOD._replace(alarming_lines=["an error"]), "alarming log lines"),
        (GOOD._replace(proved=False), "k2 verify"),
        (GOOD._replace(leak_scores=(0.5, 0.0)), "capture: leak score"),
        (GOOD._replace(leak_scores=(0.0, 0.5)), "archive: leak score"),
    ],
)
def test_each_finding_of_the_end_fails_by_itself(outcome: Outcome, what: str) -> None:
    assert broken(hour_of_samples(), outcome) == [what]


def test_a_run_without_samples_keeps_nothing_it_would_need_them_for() -> None:
    assert {"measured time, s", "samples", "messages"} <= set(broken([]))


def test_the_record_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    written = write_profile(tmp_path, profile_of(hour_of_samples(), []))
    found = json.loads(written.read_text(encoding="utf-8"))
    assert written.name == "binance_soak_memory_profile.json"
    assert list(found) == ["test_metadata", "summary_statistics", "memory_samples"]
    assert found["summary_statistics"] == {
        "initial_rss_mb": 80.0,
        "final_rss_mb": 80.0,
        "memory_growth_mb": 0.0,
        "total_messages": 216_000,
        "avg_message_rate": 60.0,
    }
    assert len(found["memory_samples"]) == 121
    assert {"timestamp", "rss_mb"} <= set(found["memory_samples"][0])


def test_the_shipped_score_judges_a_faster_form_by_its_samples() -> None:
    leaking = [sample(n / 60, archive_rss_mb=150 + n / 3) for n in range(-60, 121)]
    capture, archive = leak_scores(leaking, sample_every_s=1)
    assert (capture, round(archive, 3)) == (0.0, 0.875)


def test_the_page_is_one_file_of_well_formed_markup() -> None:
    text = page(profile_of(hour_of_samples(), judge(HOUR_FORM, hour_of_samples(), GOOD)))
    assert "All 15 bounds were kept" in text
    assert text.count("<svg") == 5
    for outside in ("http:", "https:", "src=", "<script", "<link", "@import", "url("):
        assert outside not in text
    for drawing in text.split("<svg")[1:]:
        ET.fromstring("<svg" + drawing.partition("</svg>")[0] + "</svg>")
    assert "&lt;script&gt;" in text


def test_the_page_names_what_was_not_kept() -> None:
    checks = judge(HOUR_FORM, hour_of_samples(), GOOD._replace(proved=False))
    assert "Not kept: k2 verify" in page(profile_of(hour_of_samples(), checks))


def test_the_page_of_a_run_under_way_says_so() -> None:
    assert "Under way" in page(profile_of(hour_of_samples()[:3], []))
    assert "nothing yet" in figure(Chart("t", "ms", [Series("p99", [])]))


def test_a_line_is_interrupted_where_nothing_was_measured() -> None:
    one = Series("p99", [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)])
    assert figure(Chart("t", "ms", [one])).count("M") == 2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (-10, 60, [0, 20, 40, 60]), (0, 0.9, [0, 0.2, 0.4])],
)
def test_ticks_are_round_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high)[: len(expected)] == pytest.approx(expected)


METRICS = """\
# TYPE received counter
received_total{symbol="A"} 3
received_total{symbol="B"} 4
# TYPE took histogram
took_bucket{le="0.1"} 5
took_bucket{le="0.2"} 9
took_bucket{le="+Inf"} 10
took_sum 1
took_count 10
"""


def test_metrics_are_summed_over_their_labels() -> None:
    found = read_metrics(METRICS)
    assert found.value("received_total") == 7
    assert found.value("absent") == 0
    assert found.buckets["took"] == {0.1: 5, 0.2: 9, float("inf"): 10}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.9, 0.2), (0.99, 0.2)]
)
def test_a_quantile_lies_within_its_bucket(share: float, expected: float) -> None:
    later = read_metrics(METRICS).buckets["took"]
    assert quantile_s({}, later, share) == pytest.approx(expected)


def test_a_quantile_is_that_of_the_time_between_two_scrapes() -> None:
    later = {0.1: 5.0, 0.2: 9.0}
    assert quantile_s({0.1: 5.0, 0.2: 5.0}, later, 0.5) == pytest.approx(0.15)
    assert quantile_s(later, later, 0.5) is None
