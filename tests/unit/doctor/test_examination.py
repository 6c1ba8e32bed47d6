"""Checks side by side: what one does costs the others nothing."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from k2.doctor.examination import Check, examine
from k2.doctor.finding import Finding, Level, fail, ok
from k2.errors import RetryError

Look = Callable[[], Iterable[Finding]]


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that is set only after the test: what waits for it hangs."""
    event = threading.Event()
    yield event
    event.set()


def _check(name: str, look: Look, *, deadline_s: float = 20.0, spares: str = "") -> Check:
    return Check(subject="s", name=name, look=look, deadline_s=deadline_s, spares=spares)


def _hang(until: threading.Event) -> Iterable[Finding]:
    until.wait()
    return []


def _quiet(_: object) -> None:
    pass


def test_lines_come_in_the_order_of_the_checks_whoever_ends_first() -> None:
    second_done = threading.Event()

    def first() -> Iterator[Finding]:
        assert second_done.wait(10)
        yield ok("1", "")

    def second() -> Iterator[Finding]:
        yield ok("2", "")
        second_done.set()

    lines = examine([_check("a", first), _check("b", second)], waiting=_quiet)
    assert [line.check for line in lines] == ["1", "2"]


def test_a_check_that_hangs_costs_its_own_line_only(never: threading.Event) -> None:
    def hangs() -> Iterator[Finding]:
        yield ok("before", "seen")
        never.wait()
        yield ok("never", "seen")

    began_s = time.monotonic()
    lines = examine(
        [_check("hung", hangs, deadline_s=0.3), _check("fine", lambda: [ok("fine", "seen")])],
        waiting=_quiet,
    )
    assert time.monotonic() - began_s < 5
    assert [(line.check, line.level) for line in lines] == [
        ("before", Level.OK),
        ("hung", Level.FAIL),
        ("fine", Level.OK),
    ]
    assert "no answer within 0.3 s" in lines[1].seen
    assert lines[1].fix


def test_a_check_that_breaks_says_so_and_the_others_hold() -> None:
    def breaks() -> Iterator[Finding]:
        yield ok("before", "")
        raise ZeroDivisionError("by zero")

    def refuses() -> Iterator[Finding]:
        raise RetryError("not there")
        yield

    lines = examine(
        [_check("a", breaks), _check("b", refuses), _check("c", lambda: [ok("c", "")])],
        waiting=_quiet,
    )
    assert [line.level for line in lines] == [Level.OK, Level.FAIL, Level.FAIL, Level.OK]
    assert lines[1].seen == "this check itself broke: ZeroDivisionError: by zero"
    assert lines[2].seen == "not there"


def test_checks_run_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def look() -> Iterator[Finding]:
        together.wait(10)  # breaks unless all three are here
        yield ok("met", "")

    lines = examine([_check(str(n), look) for n in range(3)], waiting=_quiet)
    assert [line.level for line in lines] == [Level.OK] * 3


def test_what_is_waited_for_is_told(never: threading.Event) -> None:
    told: list[list[str]] = []
    examine(
        [
            _check("slow", partial(_hang, never), deadline_s=0.3),
            _check("quick", list),
        ],
        waiting=lambda running: told.append([one.name for one in running]),
    )
    assert told[0] == ["slow", "quick"]
    assert told[-1] == ["slow"]


def test_only_checks_of_one_kind_stand_in_for_one_another() -> None:
    def broken() -> Iterable[Finding]:
        return [fail("x", "refused", fix="start it")]

    def fine() -> Iterable[Finding]:
        return [ok("y", "")]

    lines = examine(
        [
            _check("a", broken, spares="ws"),
            _check("b", fine, spares="ws"),
            _check("c", broken, spares="rest"),
            _check("d", broken),
            _check("e", fine),
        ],
        waiting=_quiet,
    )
    assert [line.level for line in lines] == [
        Level.WARN,
        Level.OK,
        Level.FAIL,
        Level.FAIL,
        Level.OK,
    ]
