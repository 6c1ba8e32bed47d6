"""Contract R125 and C16: what is a leak, and what only looks like one."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.observability.leak import DAY, HOUR, MB, MemoryHistory, MemorySample, leak_score
from k2.observability.leak import score_of_run as score

GOOD, LEAK = 0.5, 0.8
EVERY_S = HOUR.sample_every_s
Shape = Callable[[float], float]
"""Hours since the start to MB used."""


def run_of(hours: float, shape: Shape, *, noise_mb: float = 0.0) -> list[MemorySample]:
    rng = random.Random(7)
    return [
        MemorySample(n * EVERY_S, MB * (100 + shape(n * EVERY_S / 3600) + rng.gauss(0, noise_mb)))
        for n in range(int(hours * 3600 / EVERY_S) + 1)
    ]


def hour_of(mb_per_h: float) -> list[MemorySample]:
    return [MemorySample(n * EVERY_S, MB * mb_per_h * n * EVERY_S / 3600) for n in range(120)]


# The curve of C16, to its corners and between them.


@pytest.mark.parametrize(
    ("mb_per_h", "expected"),
    [(0, 0), (1, 0.05), (5, 0.25), (10, 0.5), (30, 0.75), (34, 0.8), (50, 1), (500, 1), (-20, 0)],
)
def test_steady_growth_scores_by_the_curve(mb_per_h: float, expected: float) -> None:
    assert leak_score(hour_of(mb_per_h)) == pytest.approx(expected, abs=1e-6)


def test_ten_samples_are_needed() -> None:
    assert leak_score(hour_of(50)[:9]) == 0
    assert leak_score(hour_of(50)[:10]) == pytest.approx(1)


def test_only_the_newest_120_samples_count() -> None:
    level = [MemorySample((n - 120) * EVERY_S, 0.0) for n in range(120)]
    assert leak_score(level + hour_of(50)) == pytest.approx(1)


def test_growth_that_the_line_explains_badly_counts_less() -> None:
    noisy = run_of(1, lambda h: 20 * h, noise_mb=3)
    share = leak_score(noisy) / leak_score(hour_of(20))
    assert 0 < share < 0.9


# A leak is found.


def test_a_leak_of_50_mb_an_hour_is_reported_half_an_hour_after_the_warm_up() -> None:
    assert score(run_of(0.67, lambda h: 50 * h, noise_mb=0.3)) > LEAK


def test_a_leak_of_what_a_day_may_not_grow_is_reported_by_the_slow_window() -> None:
    samples = run_of(8, lambda h: 2.1 * h, noise_mb=0.5)
    assert leak_score(samples) < GOOD
    assert score(samples) > LEAK


def test_a_slow_leak_below_a_sawtooth_is_reported_within_the_day() -> None:
    assert score(run_of(24, lambda h: 2.5 * h + 8 * (h % 0.7))) > LEAK


def test_a_leak_in_steps_of_the_allocator_is_reported() -> None:
    assert score(run_of(1.2, lambda h: 4 * math.floor(50 * h / 4))) > LEAK


def test_a_leak_that_begins_after_hours_is_reported() -> None:
    assert score(run_of(9, lambda h: max(0.0, h - 8) * 45, noise_mb=0.5)) > LEAK


# What is no leak is not reported, at any time of the run.


def sawtooth(h: float) -> float:
    return 20 * (h % 0.25)


def settling_steps(h: float) -> float:
    return 10 * sum(h > at for at in (0.3, 0.45, 1.0, 1.8, 2.6))


def settling(h: float) -> float:
    return 60 * (1 - math.exp(-h / 0.15))


def one_allocation(h: float) -> float:
    return 80.0 if h > 0.8 else 0.0


def one_filled_cache(h: float) -> float:
    return min(max(h - 0.8, 0.0), 0.25) * 160


def a_backlog_and_back(h: float) -> float:
    return 100 * max(0.0, 1 - abs(h - 1.5) / 0.1)


def shrinking(h: float) -> float:
    return -5 * h


@pytest.mark.parametrize(
    "shape",
    [
        *(sawtooth, settling_steps, settling, one_allocation, one_filled_cache),
        *(a_backlog_and_back, shrinking),
    ],
)
def test_what_is_no_leak_is_never_reported(shape: Shape) -> None:
    history = MemoryHistory()
    worst = 0.0
    for sample in run_of(12, shape, noise_mb=0.5):
        history.add(sample)
        worst = max(worst, history.leak_score)
    assert worst < GOOD


def test_the_warm_up_is_ignored() -> None:
    steep = run_of(1 / 6, lambda h: 400 * h)[:-1]
    assert leak_score(steep) > LEAK
    assert score(steep) == 0
    assert score(steep + [MemorySample(600 + n * EVERY_S, 167 * MB) for n in range(120)]) == 0


# Properties.

many = settings(max_examples=80, deadline=None)

LEVELS = st.lists(st.integers(min_value=0, max_value=4000), min_size=HOUR.samples_min, max_size=150)
WINDOWS = {"hour": HOUR, "day": DAY}


def series(levels: list[int], *, every_s: float = EVERY_S) -> list[MemorySample]:
    return [MemorySample(n * every_s, level * MB / 16) for n, level in enumerate(levels)]


@many
@given(levels=LEVELS, window=st.sampled_from(sorted(WINDOWS)))
def test_a_score_is_between_0_and_1(levels: list[int], window: str) -> None:
    assert 0 <= leak_score(series(levels), window=WINDOWS[window]) <= 1


@many
@given(levels=LEVELS, later_s=st.integers(0, 10**7), more_bytes=st.integers(0, 2**34))
def test_when_a_process_began_and_what_it_used_then_do_not_matter(
    levels: list[int], later_s: int, more_bytes: int
) -> None:
    moved = [MemorySample(t + later_s, rss + more_bytes) for t, rss in series(levels)]
    assert leak_score(moved) == pytest.approx(leak_score(series(levels)), abs=1e-4)


@many
@given(levels=LEVELS, times=st.sampled_from([0.25, 2, 16]))
def test_only_bytes_per_time_matter(levels: list[int], times: float) -> None:
    scaled = [MemorySample(t * times, rss * times) for t, rss in series(levels)]
    assert leak_score(scaled) == pytest.approx(leak_score(series(levels)), abs=1e-6)


@many
@given(levels=LEVELS, steeper_mb_per_h=st.integers(0, 200))
def test_more_growth_never_scores_less(levels: list[int], steeper_mb_per_h: int) -> None:
    steeper = [MemorySample(t, rss + steeper_mb_per_h * MB * t / 3600) for t, rss in series(levels)]
    assert leak_score(steeper) >= leak_score(series(levels)) - 1e-6


@many
@given(levels=LEVELS)
def test_what_never_grows_scores_nothing(levels: list[int]) -> None:
    assert leak_score(series(sorted(levels, reverse=True))) == 0
