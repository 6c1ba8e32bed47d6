from collections.abc import Callable
from decimal import Decimal

import msgspec
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
from k2.market import BadRow, Gap, IdRange, Origin, Trade
from k2.tape.arbiter import Hold, Placed, SymbolTape
from k2.tape.healing import declare_missing, place_page
from unit.trades import trade


def _ids(placed: list[Placed]) -> list[int]:
    return [one.trade.source_id for one in placed]


def test_trades_in_order_go_straight_through_with_the_id_before_them() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=3)
    assert [tape.offer(trade(i)) for i in (5, 6)] == [
        [Placed(trade(5), 3)],
        [Placed(trade(6), 5)],
    ]
    assert tape.hole is None


def test_a_tape_whose_start_is_unknown_holds_everything_until_it_begins() -> None:
    tape = SymbolTape("BTCUSDT", next_id=None)
    assert tape.offer(trade(70)) == tape.offer(trade(69)) == tape.offer(trade(60)) == []
    assert (tape.next_id, tape.hole, tape.held) == (None, None, 3)
    assert tape.begin(69) == [Placed(trade(69), None), Placed(trade(70), 69)]
    assert (tape.next_id, tape.previous_id, tape.held) == (71, 70, 0)
    assert tape.offer(trade(60)) == []
    assert tape.duplicates == 1


def test_a_tape_begun_in_vain_is_unknown_again_and_keeps_what_it_holds() -> None:
    tape = SymbolTape("BTCUSDT", next_id=None)
    tape.begin(5)
    tape.offer(trade(5))
    tape.offer(trade(8))
    tape.unknown()
    assert tape.offer(trade(5)) == tape.offer(trade(6)) == []
    assert (tape.hole, tape.held) == (None, 3)
    assert tape.begin(5) == [Placed(trade(5), None), Placed(trade(6), 5)]
    assert tape.hole == IdRange(7, 7)


def test_a_copy_is_counted_and_dropped() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(trade(5))
    tape.offer(trade(8))
    assert tape.offer(trade(5)) == tape.offer(trade(4)) == tape.offer(trade(8)) == []
    assert (tape.duplicates, tape.held) == (3, 1)


def test_a_hole_holds_back_what_follows_until_it_is_filled() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    assert tape.offer(trade(8)) == tape.offer(trade(7)) == []
    assert tape.hole == IdRange(5, 6)
    assert _ids(tape.offer(trade(5))) == [5]
    assert tape.hole == IdRange(6, 6)
    assert _ids(tape.offer(trade(6))) == [6, 7, 8]
    assert tape.held == 0
    assert tape.next_id == 9


def test_a_full_hold_lets_go_of_what_rest_can_bring_back() -> None:
    tape = SymbolTape("BTCUSDT", next_id=0, hold=Hold(2))
    for source_id in (2, 3, 4, 5):
        assert tape.offer(trade(source_id)) == []
    assert (tape.held, tape.released) == (2, 2)
    assert _ids(tape.offer(trade(0))) == [0]
    assert _ids(tape.offer(trade(1))) == [1, 2, 3]
    assert _ids(tape.offer(trade(4))) == [4]


def test_a_declared_range_frees_what_waited_behind_it() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    for source_id in (6, 8, 9):
        tape.offer(trade(source_id))
    assert tape.declare(IdRange(5, 7)) == [Placed(trade(8), 4), Placed(trade(9), 8)]
    assert tape.held == 0  # the copy of 6 went with the declaration
    assert tape.hole is None
    assert tape.offer(trade(6)) == []
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
        tape.offer(trade(source_id))
    assert tape.disbelieve(above_id=100) == [trade(10**15)]
    assert (tape.held, tape.hole) == (2, IdRange(5, 6))
    assert tape.disbelieve(above_id=6) == [trade(7), trade(100)]
    assert tape.hole is None


def test_one_hold_is_shared_by_all_tapes_of_a_process() -> None:
    hold = Hold(3)
    one = SymbolTape("BTCUSDT", next_id=0, hold=hold)
    other = SymbolTape("ETHUSDT", next_id=0, hold=hold)
    for source_id in (1, 2):
        one.offer(trade(source_id))
        other.offer(trade(source_id))
    assert (one.held, other.held, hold.taken) == (2, 1, 3)
    assert (one.released, other.released) == (0, 1)
    one.offer(trade(0))
    assert (one.next_id, hold.taken) == (3, 1)
    other.offer(trade(2))
    assert (other.held, hold.taken) == (2, 2)


@pytest.mark.parametrize(
    ("leave", "left"),
    [
        (lambda tape: tape.let_go(), 0),
        (lambda tape: tape.disbelieve(above_id=8), 2),
        (lambda tape: tape.go_to(9, 8), 1),
        (lambda tape: tape.go_to(7, 6), 0),
        (lambda tape: tape.declare(IdRange(5, 7)), 0),
        (lambda tape: tape.unknown(), 3),
    ],
)
def test_whatever_leaves_the_hold_makes_room(
    leave: Callable[[SymbolTape], object], left: int
) -> None:
    hold = Hold()
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4, hold=hold)
    for source_id in (7, 8, 10) if left == 1 else (7, 8, 9):
        tape.offer(trade(source_id))
    leave(tape)
    assert (tape.held, hold.taken) == (left, left)


def test_going_forward_forgets_what_the_writer_has_written_and_places_the_rest() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    for source_id in (7, 8, 10, 11, 13):
        tape.offer(trade(source_id))
    assert tape.go_to(10, 9) == [Placed(trade(10), 9), Placed(trade(11), 10)]
    assert (tape.next_id, tape.previous_id, tape.hole) == (12, 11, IdRange(12, 12))


def test_going_back_places_again_what_has_to_be_written_again() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    for source_id in (5, 6, 7, 9):
        tape.offer(trade(source_id))
    assert tape.go_to(6, 5) == []
    assert (tape.hole, tape.held) == (IdRange(6, 8), 1)
    assert tape.offer(trade(6)) == [Placed(trade(6), 5)]
    assert _ids(tape.offer(trade(7))) == [7]
    assert _ids(tape.offer(trade(8))) == [8, 9]


def test_the_exchanges_own_record_replaces_a_held_copy_that_tells_otherwise() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    mangled = msgspec.structs.replace(trade(7), price=Decimal(2))
    tape.offer(mangled)
    tape.offer(trade(8))
    for source_id in (7, 8, 9):
        tape.correct(trade(source_id, origin=Origin.HEALED))
    freed = tape.go_to(7, 6)
    assert [placed.trade.price for placed in freed] == [1, 1]
    assert [placed.trade.origin for placed in freed] == [Origin.HEALED, Origin.STREAM]


def _filling(source_id: int, first: int, last: int) -> Trade:
    return msgspec.structs.replace(trade(source_id), first_trade_id=first, last_trade_id=last)


def test_fills_that_do_not_follow_one_another_are_counted_and_written() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    placed = [
        *tape.offer(_filling(5, 50, 52)),  # what came before it is not known
        *tape.offer(_filling(6, 53, 53)),
        *tape.offer(_filling(8, 60, 61)),
        *tape.offer(_filling(7, 55, 59)),
    ]
    assert _ids(placed) == [5, 6, 7, 8]
    assert tape.fill_breaks == 1
    tape.go_to(20, 19)
    tape.offer(_filling(20, 900, 900))
    assert tape.fill_breaks == 1, "nobody saw the fills of 19"
    tape.declare(IdRange(21, 22))
    tape.offer(_filling(23, 999, 999))
    assert tape.fill_breaks == 1, "nobody saw the fills of the gap"


class TapeMachine(RuleBasedStateMachine):
    """The exchange has ids 0..N; whatever is delivered and lost, the tape stays consecutive."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Placed | Gap] = []
        self.newest = -1
        self.lost: set[int] = set()

    @initialize(start=st.integers(0, 3), limit=st.integers(1, 6), known=st.booleans())
    def begin(self, start: int, limit: int, known: bool) -> None:
        self.start = start
        self.newest = start - 1
        self.hold = Hold(limit)
        previous_id = start - 1 if start else None
        self.tape = SymbolTape(
            "BTCUSDT",
            next_id=start if known else None,
            previous_id=previous_id if known else None,
            hold=self.hold,
        )
        self.previous_id = previous_id if known else None

    @precondition(lambda self: self.tape.next_id is None)
    @rule()
    def begin_tape(self) -> None:
        self.items += self.tape.begin(self.start)

    @precondition(lambda self: self.tape.next_id is not None and self.items)
    @rule(data=st.data())
    def lose_the_end(self, data: st.DataObject) -> None:
        """The log ends earlier: what follows its end is written again."""
        kept = data.draw(st.integers(0, len(self.items)))
        self.items = self.items[:kept]
        self._stand_at_the_end()

    @precondition(lambda self: self.tape.next_id is not None)
    @rule(count=st.integers(1, 6))
    def another_writes(self, count: int) -> None:
        """The log ends later: somebody else had what we had not."""
        first_id, previous_id = self.tape.next_id, self.tape.previous_id
        assert first_id is not None
        for source_id in range(first_id, min(first_id + count, self.newest + 1)):
            self.items.append(Placed(trade(source_id), previous_id))
            previous_id = source_id
        self._stand_at_the_end()

    def _stand_at_the_end(self) -> None:
        next_id, previous_id = self.start, self.previous_id
        for item in self.items:
            if isinstance(item, Gap):
                next_id = item.ids.last_id + 1
            else:
                next_id, previous_id = item.trade.source_id + 1, item.trade.source_id
        self.items += self.tape.go_to(next_id, previous_id)

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
        self.items += self.tape.offer(trade(source_id))

    @precondition(lambda self: self.tape.next_id is not None)
    @rule(rows=st.integers(0, 5), bad=st.sets(st.integers(0, 4)))
    def page(self, rows: int, bad: set[int]) -> None:
        next_id = self.tape.next_id or 0
        ids = [i for i in range(next_id, self.newest + 1) if i not in self.lost][:rows]
        page = place_page(
            self.tape,
            [
                BadRow(source_id, "invalid_field", "bad", {})
                if at in bad
                else trade(source_id, origin=Origin.HEALED)
                for at, source_id in enumerate(ids)
            ],
        )
        self.items += page.items
        if page.lacking is not None:
            lacking = set(range(page.lacking.first_id, page.lacking.last_id + 1))
            assert lacking <= self.lost
            # A copy held back is a source: only what nobody has may be declared.
            assert not lacking & self.tape._held.keys()
            self.items += declare_missing(self.tape, page.lacking, waited_s=60)

    @invariant()
    def strictly_consecutive_but_for_declared_ranges(self) -> None:
        if not hasattr(self, "tape"):
            return
        next_id, last = self.start, self.previous_id
        for item in self.items:
            if isinstance(item, Gap):
                assert item.ids.first_id == next_id
                next_id = item.ids.last_id + 1
                continue
            assert item.trade.source_id == next_id
            assert item.previous_id == last
            last, next_id = next_id, next_id + 1
        assert self.hold.taken == self.tape.held <= self.hold.limit
        assert self.tape.balances
        if self.tape.next_id is None:
            assert self.items == []
            return
        assert (self.tape.next_id, self.tape.previous_id) == (next_id, last)
        assert next_id <= self.newest + 1
        assert not self.tape.held or self.tape.next_id < min(self.tape._held)


TestAnyInterleaving = TapeMachine.TestCase
TestAnyInterleaving.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_a_trade_held_under_a_mangled_id_does_not_take_the_place_of_the_right_one() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(_filling(5, 50, 50))
    mangled = _filling(8, 51, 51)  # it is 6, says what it fills
    assert tape.offer(mangled) == []
    right = [
        _filling(6, 51, 51),
        _filling(7, 52, 52),
        _filling(8, 53, 54),
        _filling(9, 55, 55),
    ]
    placed = [one for trade in right for one in tape.offer(trade)]
    assert [one.trade for one in placed] == right
    assert tape.disputed == 1
    assert tape.balances


def test_two_held_copies_that_tell_otherwise_are_both_let_go() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(trade(7))
    tape.offer(msgspec.structs.replace(trade(7), price=Decimal(2)))
    assert (tape.held, tape.disputed) == (0, 1)
    tape.offer(trade(7))
    tape.offer(trade(7))
    assert (tape.held, tape.duplicates) == (1, 2)
    assert tape.balances


def test_what_rest_says_is_taken_though_its_fills_do_not_follow() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(_filling(5, 50, 50))
    tape.offer(_filling(7, 90, 90))
    place_page(tape, [_filling(6, 70, 70)])
    assert tape.next_id == 7, "the held one is not believed on its own word"
    place_page(tape, [_filling(7, 90, 90)])
    assert (tape.next_id, tape.fill_breaks) == (8, 2)
