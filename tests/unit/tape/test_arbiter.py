from decimal import Decimal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from k2.errors import RejectError
from k2.market import BadRow, Gap, IdRange, Origin, Side, Trade
from k2.tape.arbiter import Placed, SymbolTape
from k2.tape.healing import declare_missing, place_page


def _trade(source_id: int, origin: Origin = Origin.STREAM) -> Trade:
    return Trade(
        symbol="BTCUSDT",
        source_id=source_id,
        price=Decimal(1),
        quantity=Decimal(1),
        first_trade_id=source_id,
        last_trade_id=source_id,
        trade_ts_us=1,
        event_ts_us=None,
        recv_ts_ns=1,
        taker_side=Side.BUY,
        best_match=None,
        origin=origin,
    )


def _ids(placed: list[Placed]) -> list[int]:
    return [one.trade.source_id for one in placed]


def test_trades_in_order_go_straight_through_with_the_id_before_them() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=3)
    assert [tape.offer(_trade(i)) for i in (5, 6)] == [
        [Placed(_trade(5), 3)],
        [Placed(_trade(6), 5)],
    ]
    assert tape.hole is None


def test_the_first_trade_starts_a_tape_that_has_no_position() -> None:
    tape = SymbolTape("BTCUSDT", next_id=None)
    assert tape.offer(_trade(70)) == [Placed(_trade(70), None)]
    assert (tape.next_id, tape.previous_id) == (71, 70)


def test_a_copy_is_counted_and_dropped() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(_trade(5))
    tape.offer(_trade(8))
    assert tape.offer(_trade(5)) == tape.offer(_trade(4)) == tape.offer(_trade(8)) == []
    assert (tape.duplicates, tape.held) == (3, 1)


def test_a_hole_holds_back_what_follows_until_it_is_filled() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    assert tape.offer(_trade(8)) == tape.offer(_trade(7)) == []
    assert tape.hole == IdRange(5, 6)
    assert _ids(tape.offer(_trade(5))) == [5]
    assert tape.hole == IdRange(6, 6)
    assert _ids(tape.offer(_trade(6))) == [6, 7, 8]
    assert tape.held == 0
    assert tape.next_id == 9


def test_a_full_hold_lets_go_of_what_rest_can_bring_back() -> None:
    tape = SymbolTape("BTCUSDT", next_id=0, held_max=2)
    for source_id in (2, 3, 4, 5):
        assert tape.offer(_trade(source_id)) == []
    assert (tape.held, tape.released) == (2, 2)
    assert _ids(tape.offer(_trade(0))) == [0]
    assert _ids(tape.offer(_trade(1))) == [1, 2, 3]
    assert _ids(tape.offer(_trade(4))) == [4]


def test_a_declared_range_frees_what_waited_behind_it() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    for source_id in (6, 8, 9):
        tape.offer(_trade(source_id))
    assert tape.declare(IdRange(5, 7)) == [Placed(_trade(8), 4), Placed(_trade(9), 8)]
    assert tape.held == 0  # the copy of 6 went with the declaration
    assert tape.hole is None
    assert tape.offer(_trade(6)) == []
    assert tape.duplicates == 1


def test_declaring_ids_that_may_still_come_is_refused() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    for ids in (IdRange(4, 5), IdRange(6, 7)):
        with pytest.raises(RejectError, match="the next id is 5"):
            tape.declare(ids)
    assert tape.next_id == 5
    with pytest.raises(RejectError):
        SymbolTape("BTCUSDT", next_id=None).declare(IdRange(0, 0))


def test_ids_the_exchange_does_not_have_yet_are_taken_back() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    for source_id in (7, 100, 10**15):
        tape.offer(_trade(source_id))
    assert tape.disbelieve(above_id=100) == [_trade(10**15)]
    assert (tape.held, tape.hole) == (2, IdRange(5, 6))
    assert tape.disbelieve(above_id=6) == [_trade(7), _trade(100)]
    assert tape.hole is None


class TapeMachine(RuleBasedStateMachine):
    """The exchange has ids 0..N; whatever is delivered and lost, the tape stays consecutive."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Placed | Gap] = []
        self.newest = -1
        self.streamed: set[int] = set()
        self.lost: set[int] = set()

    @initialize(start=st.integers(0, 3), held_max=st.integers(1, 6))
    def begin(self, start: int, held_max: int) -> None:
        self.start = start
        self.newest = start - 1
        self.tape = SymbolTape(
            "BTCUSDT", next_id=start, previous_id=start - 1 if start else None, held_max=held_max
        )

    @rule(count=st.integers(1, 4), lost_by_rest=st.booleans())
    def trade(self, count: int, lost_by_rest: bool) -> None:
        for _ in range(count):
            self.newest += 1
            if lost_by_rest:
                self.lost.add(self.newest)

    @precondition(lambda self: self.newest >= self.start)
    @rule(data=st.data())
    def stream(self, data: st.DataObject) -> None:
        source_id = data.draw(st.integers(max(self.start, self.newest - 8), self.newest))
        self.streamed.add(source_id)
        self.items += self.tape.offer(_trade(source_id))

    @rule(rows=st.integers(0, 5), bad=st.sets(st.integers(0, 4)))
    def page(self, rows: int, bad: set[int]) -> None:
        next_id = self.tape.next_id or 0
        ids = [i for i in range(next_id, self.newest + 1) if i not in self.lost][:rows]
        page = place_page(
            self.tape,
            [
                BadRow(source_id, "invalid_field", "bad", {})
                if at in bad
                else _trade(source_id, Origin.HEALED)
                for at, source_id in enumerate(ids)
            ],
        )
        self.items += page.items
        if page.lacking is not None:
            lacking = set(range(page.lacking.first_id, page.lacking.last_id + 1))
            assert lacking <= self.lost
            # A copy held back is a source: only what nobody has may be declared.
            assert self.tape.released or not lacking & self.streamed
            self.items += declare_missing(self.tape, page.lacking, waited_s=60)

    @invariant()
    def strictly_consecutive_but_for_declared_ranges(self) -> None:
        if not hasattr(self, "tape"):
            return
        next_id, last = self.start, self.start - 1 if self.start else None
        for item in self.items:
            if isinstance(item, Gap):
                assert item.ids.first_id == next_id
                next_id = item.ids.last_id + 1
                continue
            assert item.trade.source_id == next_id
            assert item.previous_id == last
            last, next_id = next_id, next_id + 1
        assert (self.tape.next_id, self.tape.previous_id) == (next_id, last)
        assert next_id <= self.newest + 1


TestAnyInterleaving = TapeMachine.TestCase
TestAnyInterleaving.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
