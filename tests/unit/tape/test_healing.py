from decimal import Decimal

import msgspec

from k2.market import BadRow, Gap, GapClass, IdRange, Origin, Trade
from k2.tape.arbiter import Placed, SymbolTape
from k2.tape.healing import PAGE_ROWS, declare_missing, place_page
from unit.trades import trade


def _healed(source_id: int) -> Trade:
    return trade(source_id, origin=Origin.HEALED)


def _bad(source_id: int, error_type: str = "invalid_field") -> BadRow:
    return BadRow(source_id, error_type, "why", {"a": source_id})


def _gap(first_id: int, last_id: int, gap_class: GapClass, reason: str) -> Gap:
    return Gap("BTCUSDT", IdRange(first_id, last_id), gap_class, reason)


def test_a_page_fills_the_hole_and_frees_what_was_held() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    tape.offer(_healed(7))
    page = place_page(
        tape,
        [
            _healed(5),
            _healed(6),
            _healed(7),
            _healed(8),
        ],
    )
    assert page.items == [Placed(_healed(i), i - 1) for i in (5, 6, 7, 8)]
    assert (page.bad_rows, page.more, page.lacking) == ([], False, None)


def test_a_row_that_cannot_be_represented_is_declared_there_and_then() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    page = place_page(
        tape,
        [_healed(5), _bad(6), _bad(7, "void"), _healed(8)],
    )
    assert page.items == [
        Placed(_healed(5), 4),
        _gap(6, 6, GapClass.REJECTED, "why"),
        _gap(7, 7, GapClass.VOID, "why"),
        Placed(_healed(8), 5),
    ]
    assert page.bad_rows == [_bad(6), _bad(7, "void")]


def test_a_bad_row_of_an_id_the_stream_brought_whole_is_ignored() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(_healed(5))
    assert place_page(tape, [_bad(5)]).bad_rows == []
    tape.offer(_healed(7))
    page = place_page(tape, [_healed(6), _bad(7)])
    assert [item for item in page.items if isinstance(item, Gap)] == []
    assert tape.next_id == 8


def test_a_bad_row_beyond_a_hole_waits_until_its_turn() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    page = place_page(tape, [_bad(7)])
    assert (page.items, page.bad_rows, page.lacking) == ([], [], IdRange(5, 6))


def test_a_bad_row_can_be_the_first_of_a_tape() -> None:
    tape = SymbolTape("BTCUSDT", next_id=7)
    page = place_page(tape, [_bad(7), _healed(8)])
    assert page.items == [
        _gap(7, 7, GapClass.REJECTED, "why"),
        Placed(_healed(8), None),
    ]


def test_a_page_for_a_tape_whose_start_is_unknown_writes_nothing() -> None:
    tape = SymbolTape("BTCUSDT", next_id=None)
    page = place_page(tape, [_bad(7), _healed(8)])
    assert (page.items, page.bad_rows, page.lacking, tape.held) == ([], [], None, 1)


def test_what_rest_tells_of_a_held_trade_counts() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    tape.offer(msgspec.structs.replace(_healed(6), price=Decimal(9)))
    page = place_page(tape, [_healed(5), _healed(6)])
    assert [item.trade.price for item in page.items if isinstance(item, Placed)] == [1, 1]


def test_ids_a_page_skips_are_told_but_not_declared() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    page = place_page(tape, [_healed(9), _healed(10)])
    assert (page.items, page.lacking) == ([], IdRange(5, 8))
    assert tape.next_id == 5
    assert declare_missing(tape, IdRange(5, 8), waited_s=61.4) == [
        _gap(5, 8, GapClass.MISSING, "REST lacked it for 61 s"),
        Placed(_healed(9), 4),
        Placed(_healed(10), 9),
    ]


def test_ids_the_stream_brought_are_not_lacking_though_rest_skips_them() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5, previous_id=4)
    tape.offer(_healed(7))
    page = place_page(tape, [_healed(9)])
    assert page.lacking == IdRange(5, 6)
    declare_missing(tape, IdRange(5, 6), waited_s=60)
    assert tape.previous_id == 7
    assert place_page(tape, [_healed(9)]).lacking == IdRange(8, 8)


def test_an_empty_page_lacks_nothing_rest_may_only_trail() -> None:
    tape = SymbolTape("BTCUSDT", next_id=5)
    tape.offer(_healed(9))
    page = place_page(tape, [])
    assert (page.lacking, page.more) == (None, False)


def test_only_a_full_page_promises_more() -> None:
    tape = SymbolTape("BTCUSDT", next_id=0)
    assert place_page(tape, [_healed(i) for i in range(PAGE_ROWS)]).more
    assert not place_page(tape, [_healed(PAGE_ROWS)]).more
