"""What an operator's signals do; they are sent to this very process."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from k2.binance.leg import MANUAL
from k2.ingestion import signals
from k2.ingestion.host import MACHINE
from k2.ingestion.membership import Wish
from k2.ingestion.signals import Signals
from unit.ingestion.conftest import WaitUntil

Story = Callable[[Signals], Coroutine[Any, Any, None]]


class FakeLeg:
    """A leg that has something to replace, or not."""

    def __init__(self, name: str, *, replaces: bool = True) -> None:
        self.name = name
        self.asked: list[str] = []
        self._replaces = replaces

    def rotate(self, reason: str, _now_s: float) -> bool:
        self.asked.append(reason)
        return self._replaces


class FakeCapture:
    """Legs, and a membership that is told of roles."""

    def __init__(self, *legs: FakeLeg) -> None:
        self.legs = self
        self.membership = SimpleNamespace(wish=Wish.AUTO, become=self._become)
        self._legs = legs

    def each(self, call: Callable[[Any], object]) -> None:
        for leg in self._legs:
            call(leg)

    def _become(self, wish: Wish) -> None:
        self.membership.wish = wish


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(story: Story, *, terminal: bool = False) -> None:
        monkeypatch.setattr(signals, "has_terminal", lambda: terminal)

        async def scenario() -> None:
            await story(Signals(Wish.AUTO, host=MACHINE))

        asyncio.run(scenario())

    return run


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_sighup_asks_every_leg_for_a_new_connection_and_says_which_begin(
    tell: Callable[..., None], wait_until: WaitUntil
) -> None:
    legs = FakeLeg("a"), FakeLeg("b", replaces=False)

    async def story(heard: Signals) -> None:
        heard.rule(FakeCapture(*legs))  # type: ignore[arg-type]  # what it uses of one
        _send(signal.SIGHUP)
        await wait_until(lambda: bool(logged))

    with capture_logs() as logged:
        tell(story)
    assert [leg.asked for leg in legs] == [[MANUAL], [MANUAL]]
    assert logged == [
        {
            "event": "rotation_requested",
            "log_level": "info",
            "by": "SIGHUP",
            "legs": ["a"],
            "left_alone": ["b"],
        }
    ]


def test_sighup_before_there_is_a_connection_ends_nothing(
    tell: Callable[..., None], wait_until: WaitUntil
) -> None:
    async def story(_heard: Signals) -> None:
        _send(signal.SIGHUP)
        await wait_until(lambda: bool(logged))

    with capture_logs() as logged:
        tell(story)
    assert (logged[0]["legs"], logged[0]["left_alone"]) == ([], [])


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])  # the second by `nohup`
def test_in_a_terminal_sighup_stays_what_it_was(
    tell: Callable[..., None], inherited: signal.Handlers
) -> None:
    before = signal.signal(signal.SIGHUP, inherited)
    found: list[Any] = []

    async def story(_heard: Signals) -> None:
        found.append(signal.getsignal(signal.SIGHUP))

    try:
        tell(story, terminal=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert found == [inherited]


def test_a_role_asked_for_during_the_start_is_passed_on_once_there_is_a_capture(
    tell: Callable[..., None], wait_until: WaitUntil
) -> None:
    capture = FakeCapture()

    async def story(heard: Signals) -> None:
        _send(signal.SIGUSR2)
        await wait_until(lambda: heard._wish is Wish.OBSERVER)
        heard.rule(capture)  # type: ignore[arg-type]  # what it uses of one
        assert capture.membership.wish is Wish.OBSERVER
        _send(signal.SIGUSR1)
        await wait_until(lambda: capture.membership.wish is Wish.AUTO)

    tell(story)
