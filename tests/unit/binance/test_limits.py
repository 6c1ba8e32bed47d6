import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.binance.limits import (
    CLIENT_FRAMES_PER_S,
    WEIGHT_PER_MINUTE,
    SendWindow,
    WeightBudget,
    backoff_s,
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


def test_weight_is_spent_up_to_the_limit_of_a_minute() -> None:
    budget = WeightBudget(limit=10)
    assert budget.wait_s(weight=4, wall_s=120.0) == 0
    assert budget.wait_s(weight=4, wall_s=121.0) == 0
    assert budget.wait_s(weight=4, wall_s=130.0) == 50
    assert budget.wait_s(weight=2, wall_s=130.0) == 0
    assert budget.wait_s(weight=4, wall_s=180.0) == 0


def test_the_venues_own_counter_is_believed_when_higher() -> None:
    budget = WeightBudget(limit=100)
    budget.wait_s(weight=1, wall_s=0.0)
    budget.learn(used_weight=98, wall_s=1.0)
    assert budget.wait_s(weight=4, wall_s=2.0) > 0
    budget.learn(used_weight=1, wall_s=3.0)
    assert budget.wait_s(weight=4, wall_s=4.0) > 0
    budget.learn(used_weight=99, wall_s=61.0)  # a late reply about the minute before
    assert budget.wait_s(weight=4, wall_s=62.0) == 0


def test_nothing_is_spent_while_the_venue_says_wait() -> None:
    budget = WeightBudget()
    budget.block(retry_after_s=90, wall_s=10.0)
    budget.block(retry_after_s=5, wall_s=11.0)
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
    assert WEIGHT_PER_MINUTE <= 3000


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
