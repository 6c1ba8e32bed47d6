import pytest

from k2.ingestion.health import Stretch
from k2.ingestion.tape_trail import REMEMBERED_S, TapeTrail, TrailSample, stretches
from k2.market import IdRange


def sample(time_s: float, next_id: int, held: int = 0) -> TrailSample:
    return TrailSample(time_s, next_id, next_id + held)


def test_the_rate_is_that_of_the_last_ten_seconds_not_of_all_time() -> None:
    trail = TapeTrail()
    for second in range(60):
        trail.add(sample(second, 1000))  # quiet
    for second in range(60, 90):
        trail.add(sample(second, 1000 + 30 * (second - 60)))
    assert trail.rate_per_s(sample(90, 1900)) == pytest.approx(30)


def test_a_hole_does_not_stop_the_rate_nor_does_its_end_make_it_jump() -> None:
    trail = TapeTrail()
    trail.add(sample(0, 100))
    assert trail.rate_per_s(sample(10, 100, held=50)) == pytest.approx(5)
    assert trail.rate_per_s(sample(10, 153)) == pytest.approx(5.3)  # three were missing


def test_without_a_past_there_is_no_rate() -> None:
    assert TapeTrail().rate_per_s(sample(5, 100)) == 0
    trail = TapeTrail()
    trail.add(sample(5, 100))
    assert trail.rate_per_s(sample(5, 100)) == 0


def test_two_minutes_are_remembered_and_no_more() -> None:
    trail = TapeTrail()
    for second in range(1000):
        trail.add(sample(second, second))
    assert trail.since_id(0) == 995 - REMEMBERED_S  # the last sample is five seconds old at most
    assert len(trail._samples) <= REMEMBERED_S / 5 + 1


def test_a_tape_that_goes_back_begins_its_trail_anew() -> None:
    trail = TapeTrail()
    trail.add(sample(0, 500))
    trail.add(sample(1, 100))
    assert trail.since_id(0) == 100
    assert trail.rate_per_s(sample(11, 200)) == pytest.approx(10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [("written", 10)]),
        ({"placed_to": 23}, [("written", 10), ("waiting", 3)]),
        (
            {"placed_to": 23, "hole": IdRange(23, 25), "held": 4},
            [("written", 10), ("waiting", 3), ("missing", 3), ("held", 4)],
        ),
        (
            {"declared": [IdRange(12, 13), IdRange(18, 30)]},
            [("written", 2), ("declared", 2), ("written", 4), ("declared", 2)],
        ),
        ({"declared": [IdRange(1, 5)]}, [("written", 10)]),
        ({"declared": [IdRange(1, 11)]}, [("declared", 2), ("written", 8)]),
        # A standby whose tape trails the log.
        ({"placed_to": 15}, [("written", 10)]),
        (
            {"placed_to": 15, "hole": IdRange(15, 21), "held": 2},
            [("written", 10), ("missing", 2), ("held", 2)],
        ),
    ],
)
def test_every_recent_id_is_in_one_stretch(
    given: dict[str, object], expected: list[tuple[str, int]]
) -> None:
    asked = {"placed_to": 20, "hole": None, "held": 0, "declared": [], **given}
    found = stretches(since_id=10, written_to=20, **asked)  # type: ignore[arg-type]
    assert found == [Stretch(part, ids) for part, ids in expected]  # type: ignore[arg-type]
