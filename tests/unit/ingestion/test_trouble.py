from structlog.testing import capture_logs

from k2.ingestion.trouble import AGAIN_AFTER_S, REASONS_MAX, SAID_EVERY_S, Trouble


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_same_is_said_once_a_minute_and_how_often_it_was_not() -> None:
    clock = Clock()
    trouble = Trouble("not_readable", clock, shard=3)
    with capture_logs() as lines:
        for _ in range(3):
            trouble.met("no right to")
        clock.now_s = SAID_EVERY_S
        trouble.met("no right to")
        trouble.met("no right to")
    assert [(line["event"], line["shard"], line["reason"], line["unsaid"]) for line in lines] == [
        ("not_readable", 3, "no right to", 0),
        ("not_readable", 3, "no right to", 2),
    ]


def test_another_reason_is_said_at_once() -> None:
    trouble = Trouble("not_readable", Clock())
    with capture_logs() as lines:
        trouble.met("away")
        trouble.met("no right to")
    assert [line["reason"] for line in lines] == ["away", "no right to"]


def test_two_reasons_in_turn_are_said_once_a_minute_each() -> None:
    clock = Clock()
    trouble = Trouble("not_readable", clock)
    with capture_logs() as lines:
        for second in range(120):
            clock.now_s = float(second)
            trouble.met(("away", "no right to")[second % 2])
    assert len(lines) == 4


def test_reasons_that_are_never_the_same_are_bounded() -> None:
    trouble = Trouble("not_readable", Clock())
    with capture_logs() as lines:
        for number in range(100):
            trouble.met(f"offset {number}")
    assert len(lines) == REASONS_MAX


def test_it_lasts_until_it_is_over_and_coming_and_going_is_not_said_each_time() -> None:
    clock = Clock()
    trouble = Trouble("not_readable", clock)
    assert trouble.reason == ""
    with capture_logs() as lines:
        for _ in range(5):
            trouble.met("away")
            assert trouble.reason == "away"
            trouble.over()
            assert trouble.reason == ""
        assert len(lines) == 1
        clock.now_s = AGAIN_AFTER_S
        trouble.met("away")
    assert len(lines) == 2, "another outage is news"
