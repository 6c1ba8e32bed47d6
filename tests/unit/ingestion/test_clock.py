import asyncio

import pytest

from k2.errors import RetryError
from k2.ingestion.clock import ClockWatch, Offset, offset_of
from k2.observability import metrics

S = 1_000_000


def test_half_of_the_round_trip_is_how_wrong_it_may_be() -> None:
    offset = offset_of(before_us=100 * S, exchange_us=99 * S, after_us=100 * S + S // 5)
    assert offset == pytest.approx(Offset(1.1, 0.1))


def test_a_clock_that_is_behind_has_an_offset_below_0() -> None:
    assert offset_of(before_us=0, exchange_us=2 * S, after_us=0).offset_s == -2


def test_the_surest_answer_counts_and_a_rest_that_is_away_changes_nothing() -> None:
    answers: list[tuple[int, int, int] | None] = [
        (0, S, 4 * S),
        (0, S, 2 * S),
        None,
        *[None] * 3,
        *[(0, 5 * S, 10 * S)] * 3,
    ]

    async def ask() -> tuple[int, int, int]:
        answer = answers.pop(0)
        if answer is None:
            raise RetryError("away")
        return answer

    async def story() -> None:
        watch = ClockWatch(ask)
        await watch.look()
        assert watch.best == Offset(0.0, 1.0)
        await watch.look()
        assert watch.best == Offset(0.0, 1.0)
        await watch.look()
        assert watch.best == Offset(0.0, 1.0), "a later answer that is less sure"
        assert metrics.clock_offset.labels().value == 0
        assert metrics.clock_uncertainty.labels().value == 1

    asyncio.run(story())


def test_a_clock_set_back_during_a_question_spoils_its_answer_and_those_before() -> None:
    answers = [
        *[(5 * S, 0, 5 * S + S // 50)] * 3,
        (5 * S, 0, S // 50),  # it was 5 s ahead when we asked, and right when the answer came
        *[(0, S, 2 * S)] * 2,
    ]

    async def ask() -> tuple[int, int, int]:
        return answers.pop(0)

    async def story() -> None:
        watch = ClockWatch(ask)
        await watch.look()
        assert watch.best == pytest.approx(Offset(5.01, 0.01))
        await watch.look()
        assert watch.best == Offset(0.0, 1.0)

    asyncio.run(story())
