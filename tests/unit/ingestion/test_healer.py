import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from k2.errors import RetryError
from k2.ingestion import healer as healer_module
from k2.ingestion.healer import FAR_AHEAD, SymbolHealer
from k2.market import BadRow, Gap, GapClass, IdRange, Origin, Trade
from k2.tape.arbiter import Placed, SymbolTape

TradeOf = Callable[..., Trade]


class WaitUntil(Protocol):
    async def __call__(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None: ...


class FakeRest:
    """REST with these rows; ``newest`` is how far its database has come."""

    def __init__(self, trade_of: TradeOf, *, page_rows: int = 1000) -> None:
        self._trade_of = trade_of
        self._page_rows = page_rows
        self.newest = -1
        self.lost: set[int] = set()
        self.bad: dict[int, str] = {}
        self.failures = 0
        self.asked: list[int] = []

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        await asyncio.sleep(0)
        self.asked.append(from_id)
        if self.failures:
            self.failures -= 1
            raise RetryError("503")
        ids = [i for i in range(from_id, self.newest + 1) if i not in self.lost]
        return [
            BadRow(i, self.bad[i], "why", {"a": i})
            if i in self.bad
            else self._trade_of(i, symbol, Origin.HEALED)
            for i in ids[: self._page_rows]
        ]


class Scene:
    """One symbol's tape at id 100, healed by a fake REST into a list."""

    def __init__(self, trade_of: TradeOf, *, heal_wait_max_s: float, page_rows: int = 1000) -> None:
        self.tape = SymbolTape("BTCUSDT", next_id=100, previous_id=99)
        self.rest = FakeRest(trade_of, page_rows=page_rows)
        self.written: list[Placed | Gap] = []
        self.rejected_rows: list[BadRow] = []
        self.rejected_trades: list[Trade] = []
        self.room = True
        self.healer = SymbolHealer(
            self.tape,
            self.rest,
            write=self.written.extend,
            room=lambda: self.room,
            reject_row=self.rejected_rows.append,
            reject_trade=self.rejected_trades.append,
            heal_wait_max_s=heal_wait_max_s,
        )
        self._trade_of = trade_of

    def stream(self, *ids: int) -> None:
        for source_id in ids:
            self.written += self.tape.offer(self._trade_of(source_id))
        self.healer.wake()

    @property
    def ids(self) -> list[int]:
        return [item.trade.source_id for item in self.written if isinstance(item, Placed)]

    @property
    def gaps(self) -> list[tuple[GapClass, IdRange]]:
        return [(item.gap_class, item.ids) for item in self.written if isinstance(item, Gap)]

    def play(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            healing = asyncio.create_task(self.healer.run())
            try:
                await story()
            finally:
                healing.cancel()
                await asyncio.gather(healing, return_exceptions=True)

        asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healer_module, "POLL_DELAY_S", 0.001)
    monkeypatch.setattr(healer_module, "FAILED_DELAY_S", 0.001)


def test_a_hole_is_filled_by_rest(trade_of: TradeOf, wait_until: WaitUntil) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest = 105

    async def story() -> None:
        scene.stream(104, 105)
        await wait_until(lambda: scene.tape.next_id == 106)

    scene.play(story)
    assert scene.ids == [100, 101, 102, 103, 104, 105]
    assert scene.gaps == []


def test_a_rest_that_trails_the_stream_is_waited_for(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=0)  # nothing may be declared: nobody lacks anything

    async def story() -> None:
        scene.stream(104)
        await wait_until(lambda: len(scene.rest.asked) > 3)
        scene.rest.newest = 101
        await wait_until(lambda: scene.tape.next_id == 102)
        scene.rest.newest = 103
        await wait_until(lambda: scene.tape.next_id == 105)

    scene.play(story)
    assert scene.ids == [100, 101, 102, 103, 104]
    assert scene.gaps == []


def test_many_pages_and_failures_are_one_catching_up(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest, scene.rest.failures = 3_499, 2

    async def story() -> None:
        scene.healer.wake()
        await wait_until(lambda: scene.tape.next_id == 3_500)

    scene.play(story)
    assert scene.ids == list(range(100, 3_500))
    assert scene.rest.asked[:3] == [100, 100, 100]


def test_rows_nobody_can_use_become_gaps_with_their_class(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest = 104
    scene.rest.bad = {101: "invalid_field", 103: "void"}

    async def story() -> None:
        scene.healer.wake()
        await wait_until(lambda: scene.tape.next_id == 105)

    scene.play(story)
    assert scene.ids == [100, 102, 104]
    assert scene.gaps == [
        (GapClass.REJECTED, IdRange(101, 101)),
        (GapClass.VOID, IdRange(103, 103)),
    ]
    assert [row.source_id for row in scene.rejected_rows] == [101, 103]


def test_ids_rest_skips_are_declared_missing_only_when_the_wait_is_over(
    trade_of: TradeOf, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(healer_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest, scene.rest.lost = 105, {101, 102}

    async def story() -> None:
        nonlocal now_s
        scene.stream(105)
        await wait_until(lambda: len(scene.rest.asked) > 5)
        now_s += 59
        asked = len(scene.rest.asked)
        await wait_until(lambda: len(scene.rest.asked) > asked + 3)
        assert scene.gaps == []
        now_s += 1
        await wait_until(lambda: scene.tape.next_id == 106)

    scene.play(story)
    assert scene.ids == [100, 103, 104, 105]
    assert scene.gaps == [(GapClass.MISSING, IdRange(101, 102))]


def test_ids_that_come_late_but_in_time_are_no_gap(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest, scene.rest.lost = 105, {101, 102}

    async def story() -> None:
        scene.stream(105)
        await wait_until(lambda: len(scene.rest.asked) > 5)
        scene.rest.lost = {102}
        await wait_until(lambda: scene.tape.next_id == 102)
        scene.rest.lost = set()
        await wait_until(lambda: scene.tape.next_id == 106)

    scene.play(story)
    assert scene.ids == list(range(100, 106))
    assert scene.gaps == []


def test_ids_rest_skips_are_declared_though_a_full_page_follows_them(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=0)
    scene.rest.newest, scene.rest.lost = 5_000, {101, 102}

    async def story() -> None:
        scene.healer.wake()
        await wait_until(lambda: scene.tape.next_id == 5_001, within_s=5)

    scene.play(story)
    assert scene.gaps == [(GapClass.MISSING, IdRange(101, 102))]


def test_an_absurd_id_far_ahead_does_not_silence_the_symbol(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest = 99
    absurd = 99 + FAR_AHEAD + 1

    async def story() -> None:
        scene.stream(absurd)
        await wait_until(lambda: scene.rejected_trades != [])
        scene.stream(100, 101)
        await wait_until(lambda: scene.tape.next_id == 102)

    scene.play(story)
    assert [trade.source_id for trade in scene.rejected_trades] == [absurd]
    assert scene.ids == [100, 101]
    assert scene.tape.held == 0


def test_nothing_is_fetched_while_the_ring_is_full(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.rest.newest, scene.room = 101, False
    looked = 0

    def room() -> bool:
        nonlocal looked
        looked += 1
        return scene.room

    scene.healer._room = room

    async def story() -> None:
        scene.healer.wake()
        await wait_until(lambda: looked > 3)
        assert scene.rest.asked == []
        scene.room = True
        await wait_until(lambda: scene.tape.next_id == 102)

    scene.play(story)


def test_a_tape_that_has_not_begun_is_left_to_its_first_trade(
    trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    scene = Scene(trade_of, heal_wait_max_s=60)
    scene.tape.next_id, scene.tape.previous_id = None, None

    async def story() -> None:
        scene.healer.wake()
        await wait_until(lambda: not scene.healer._wake.is_set())
        scene.stream(7)
        await wait_until(lambda: scene.rest.asked != [])

    scene.play(story)
    assert scene.ids == [7]
    assert set(scene.rest.asked) == {8}
