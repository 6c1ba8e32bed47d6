import itertools
import math
import random

import pytest

from k2.tape.silence import ALLOWED_MIN_S, TRADES_MIN, Silence


def _after(gaps_s: list[float]) -> tuple[Silence, float]:
    """Return the model of a symbol that traded after each of these silences, and the last time."""
    silence, now_s = Silence(0.0), 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        silence.traded(now_s)
    return silence, now_s


def _random_gaps_s(mean_s: float, *, count: int, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [draw.expovariate(1 / mean_s) for _ in range(count)]


def test_a_busy_symbol_is_overdue_after_seconds() -> None:
    silence, now_s = _after(_random_gaps_s(0.05, count=2_000))
    assert silence.allowed_s == ALLOWED_MIN_S
    assert not silence.overdue(now_s + ALLOWED_MIN_S)
    assert silence.overdue(now_s + ALLOWED_MIN_S + 0.1)


def test_a_thin_symbol_is_not_overdue_within_an_hour() -> None:
    silence, now_s = _after(_random_gaps_s(600.0, count=60))
    assert not silence.overdue(now_s + 3600)
    assert silence.overdue(now_s + 24 * 3600)


def test_a_quiet_time_after_a_burst_is_as_long_as_such_times_are_here() -> None:
    burst, quiet = [0.01] * 500, [240.0]
    silence, now_s = _after((burst + quiet) * 4 + burst)
    assert not silence.overdue(now_s + 400)
    assert silence.overdue(now_s + 600)


def test_a_long_silence_is_forgotten_in_the_end() -> None:
    silence, now_s = _after([1.0] * 100 + [120.0] + [1.0] * 100)
    assert not silence.overdue(now_s + 200)
    for _ in range(20_000):
        now_s += 1.0
        silence.traded(now_s)
    assert silence.overdue(now_s + 200)
    assert not silence.overdue(now_s + 20)


def test_a_symbol_whose_rhythm_is_not_known_is_never_overdue() -> None:
    silence, now_s = _after([0.1] * (TRADES_MIN - 1))
    assert silence.allowed_s == math.inf
    assert not silence.overdue(now_s + 10**6)
    silence.traded(now_s + 0.1)
    assert silence.overdue(now_s + 10**6)
    assert not Silence(0.0).overdue(10**9)


def test_how_long_we_waited_for_the_first_trade_says_nothing() -> None:
    silence, now_s = _after([5_000.0] + [0.1] * 100)
    assert silence.overdue(now_s + 6)


def test_a_steady_rhythm_of_random_trades_raises_hardly_an_alarm() -> None:
    alarms = 0
    for seed in range(20):
        silence, now_s = Silence(0.0), 0.0
        for gap_s in _random_gaps_s(10.0, count=5_000, seed=seed):
            alarms += silence.overdue(now_s + gap_s)
            now_s += gap_s
            silence.traded(now_s)
    assert alarms <= 2


def test_silences_grow_with_what_is_usual() -> None:
    allowed = [_after([gap_s] * 50)[0].allowed_s for gap_s in (0.01, 1, 10, 100)]
    assert all(shorter < longer for shorter, longer in itertools.pairwise(allowed))


def test_a_silence_that_was_ours_is_not_learnt() -> None:
    silence = Silence(0.0)
    now_s = 0.0
    for _ in range(200):
        now_s += 0.1
        silence.traded(now_s)
    usual_s = silence.allowed_s
    now_s += 60.0  # both legs were cut
    silence.resumed(now_s)
    silence.traded(now_s + 0.1)
    assert silence.allowed_s == pytest.approx(usual_s)
