import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.binance.limits import (
    CLIENT_FRAMES_PER_S,
    CLIENT_FRAMES_WINDOW_S,
    CONNECTS_MAX,
    CONNECTS_WINDOW_S,
    WEIGHT_IN_FLIGHT,
    WEIGHT_PER_MINUTE,
    Breaker,
    SendWindow,
    WeightBudget,
    backoff_s,
    connect_wait_s,
    recent_connects_s,
)


@given(st.lists(st.floats(0, 0.5), max_size=80))
def test_no_second_sees_more_frames_than_the_venue_allows(steps: list[float]) -> None:
    window, now_s, sent = SendWindow(), 100.0, []
    for step in steps:
        now_s += step
        if window.take(now_s):
            sent.append(now_s)
    for first_s in sent:
        assert sum(first_s <= at_s < first_s + 1.0 for at_s in sent) <= CLIENT_FRAMES_PER_S


def test_frames_held_back_may_go_when_the_second_has_passed() -> None:
    window = SendWindow()
    assert [window.take(10.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert not window.take(11.0)
    assert window.take(11.3)


@given(st.lists(st.floats(0, 0.5), max_size=40), st.floats(0, 1e6))
def test_a_frame_may_go_exactly_when_the_window_says_so(steps: list[float], from_s: float) -> None:
    window, now_s = SendWindow(), from_s
    for step in steps:
        now_s += step
        free_s = window.free_at_s(now_s)
        assert now_s <= free_s <= now_s + CLIENT_FRAMES_WINDOW_S + 1e-9
        assert window.take(now_s) == (free_s == now_s)
        if free_s > now_s:
            now_s = free_s
            assert window.take(now_s)  # or a driver that sleeps until then would spin


def _connects(count: int, *, from_s: float) -> list[float]:
    return [from_s + n for n in range(count)]


def test_connecting_waits_for_nothing_while_there_are_few_attempts() -> None:
    assert connect_wait_s([], share=1.0, wall_s=1e9) == 0
    attempts_s = _connects(CONNECTS_MAX - 1, from_s=1e9)
    assert connect_wait_s(attempts_s, share=1.0, wall_s=1e9 + 299) == 0


def test_the_attempt_too_many_waits_until_the_oldest_counts_no_more() -> None:
    attempts_s = [1e9] * CONNECTS_MAX
    assert connect_wait_s(attempts_s, share=1.0, wall_s=1e9 + 100) == CONNECTS_WINDOW_S - 100
    assert connect_wait_s(attempts_s, share=1.0, wall_s=1e9 + CONNECTS_WINDOW_S) == 0


def test_a_share_of_the_address_allows_that_part_and_always_one() -> None:
    attempts_s = _connects(30, from_s=1e9)
    assert connect_wait_s(attempts_s, share=0.1, wall_s=1e9 + 30) == pytest.approx(270)
    assert connect_wait_s(attempts_s[:29], share=0.1, wall_s=1e9 + 30) == 0
    assert connect_wait_s([], share=0.0001, wall_s=1e9) == 0
    assert connect_wait_s([1e9], share=0.0001, wall_s=1e9 + 1) == pytest.approx(299)


def test_attempts_in_the_future_count_as_made_now() -> None:
    attempts_s = [1e9 + 3600] * CONNECTS_MAX
    assert connect_wait_s(attempts_s, share=1.0, wall_s=1e9) == CONNECTS_WINDOW_S
    kept_s = recent_connects_s(attempts_s, wall_s=1e9)
    assert kept_s == [1e9] * CONNECTS_MAX
    assert connect_wait_s(kept_s, share=1.0, wall_s=1e9 + CONNECTS_WINDOW_S) == 0


@given(
    attempts_s=st.lists(st.floats(0, 2000), max_size=40),
    share=st.floats(0.003, 0.1),
    wall_s=st.floats(0, 2000),
)
def test_whoever_waits_as_told_may_connect(
    attempts_s: list[float], share: float, wall_s: float
) -> None:
    kept_s = recent_connects_s(attempts_s, wall_s=wall_s)
    wait_s = connect_wait_s(attempts_s, share=share, wall_s=wall_s)
    assert 0 <= wait_s <= CONNECTS_WINDOW_S + 1e-6
    assert connect_wait_s(kept_s, share=share, wall_s=wall_s) == wait_s
    assert connect_wait_s(kept_s, share=share, wall_s=wall_s + wait_s + 1e-6) == 0


def test_weight_is_spent_up_to_the_limit_of_a_minute() -> None:
    budget = WeightBudget(limit=10)
    assert budget.wait_s(weight=4, wall_s=120.0) == 0
    assert budget.wait_s(weight=4, wall_s=121.0) == 0
    assert budget.wait_s(weight=4, wall_s=130.0) == 50
    assert budget.wait_s(weight=2, wall_s=130.0) == 0
    assert budget.wait_s(weight=4, wall_s=180.0) == 0


def test_what_others_at_the_address_spend_counts_by_the_venues_own_counter() -> None:
    budget = WeightBudget(limit=100)
    full = WEIGHT_PER_MINUTE - WEIGHT_IN_FLIGHT
    budget.wait_s(weight=1, wall_s=0.0)
    budget.learn(used_weight=full - 5, wall_s=1.0)
    assert budget.wait_s(weight=4, wall_s=2.0) == 0
    assert budget.wait_s(weight=4, wall_s=2.0) > 0
    budget.learn(used_weight=1, wall_s=3.0)
    assert budget.wait_s(weight=4, wall_s=4.0) > 0
    budget.learn(used_weight=full, wall_s=61.0)  # a late reply about the minute before
    assert budget.wait_s(weight=4, wall_s=62.0) == 0


def test_two_instances_each_have_their_share() -> None:
    budget = WeightBudget(limit=3000)
    budget.wait_s(weight=4, wall_s=0.0)
    budget.learn(used_weight=3004, wall_s=1.0)  # the other one has spent all of its own
    assert budget.wait_s(weight=4, wall_s=2.0) == 0


def test_nothing_is_spent_while_the_venue_says_wait() -> None:
    budget = WeightBudget()
    budget.block(retry_after_s=90, wall_s=10.0)
    budget.block(retry_after_s=5, wall_s=11.0)
    assert budget.breaker(99.9) is Breaker.OPEN
    assert budget.breaker(100.0) is Breaker.HALF_OPEN
    assert budget.wait_s(weight=1, wall_s=40.0) == pytest.approx(60.0)
    assert budget.wait_s(weight=1, wall_s=100.0) == 0


@given(st.lists(st.tuples(st.sampled_from([1, 4, 20, 25]), st.floats(0, 30)), max_size=200))
def test_a_minute_never_costs_more_than_the_budget(calls: list[tuple[int, float]]) -> None:
    budget, wall_s, spent = WeightBudget(limit=60), 0.0, dict[int, int]()
    for weight, step in calls:
        wall_s += step
        wait_s = budget.wait_s(weight=weight, wall_s=wall_s)
        assert 0 <= wait_s <= 60
        if not wait_s:
            spent[int(wall_s // 60)] = spent.get(int(wall_s // 60), 0) + weight
    assert all(used <= 60 for used in spent.values())
    assert WeightBudget().limit <= WEIGHT_PER_MINUTE / 2  # other programs share the address


@given(
    attempt=st.integers(0, 10_000),
    delays=st.tuples(st.floats(0.01, 100), st.floats(0.01, 1000)).map(sorted),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_backoff_stays_between_its_bounds(attempt: int, delays: list[float], draw: float) -> None:
    delay_min_s, delay_max_s = delays
    wait_s = backoff_s(attempt=attempt, delay_min_s=delay_min_s, delay_max_s=delay_max_s, draw=draw)
    assert delay_min_s <= wait_s <= delay_max_s * (1 + 1e-9)


def test_backoff_doubles_until_its_largest() -> None:
    waits = [backoff_s(attempt=n, delay_min_s=1, delay_max_s=60, draw=0.999999) for n in range(8)]
    assert [round(wait_s) for wait_s in waits] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff_s(attempt=5, delay_min_s=1, delay_max_s=60, draw=0.0) == 1
