import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import RejectError
from k2.kafka.position import (
    NOTHING_RECORDED,
    OPEN_GAPS_MAX,
    POSITION_KEY,
    BackfillRequest,
    OpenGap,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    decode_identity,
    decode_position,
    decode_request,
    encode_position,
    encode_request,
    position_after,
    position_after_backfill,
    position_after_repair,
    position_with_backfill,
    request_key,
)
from k2.market import Gap, GapClass, IdRange
from k2.tape.arbiter import Placed
from unit.trades import trade

SYMBOLS = st.sampled_from(["X", "Y", "币安人生USDT"])
IDS = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda at: IdRange(at[0], sum(at)))
OPEN_GAPS = st.lists(st.builds(OpenGap, SYMBOLS, IDS, st.integers(0, 9)), max_size=8).map(tuple)
POSITIONS = st.builds(
    ShardPosition,
    st.dictionaries(
        SYMBOLS,
        st.builds(
            SymbolPosition,
            st.integers(0, 2**63),
            st.none() | st.integers(0, 2**63 - 1),
            st.none() | st.integers(0, 2**63 - 1),
        ),
    ),
    OPEN_GAPS,
    st.dictionaries(SYMBOLS, st.integers(0, 99)),
)
EMPTY = ShardPosition({})


def placed(source_id: int, *, symbol: str = "X") -> Placed:
    return Placed(trade(source_id, symbol, trade_ts_us=1), None)


def gap(first_id: int, last_id: int, *, gap_class: GapClass = GapClass.MISSING) -> Gap:
    return Gap("X", IdRange(first_id, last_id), gap_class, "no source had it")


def open_ids(position: ShardPosition, symbol: str) -> Iterator[tuple[int, int]]:
    """Yield each open id with the time of its declaration."""
    for one in position.open_gaps:
        if one.symbol == symbol:
            ids = range(one.ids.first_id, one.ids.last_id + 1)
            yield from ((source_id, one.declared_ts_us) for source_id in ids)


@given(POSITIONS)
def test_a_position_comes_back_as_it_was_written(position: ShardPosition) -> None:
    assert decode_position(encode_position(position)) == position


def test_a_position_is_json_an_operator_can_read() -> None:
    symbols = {"X": SymbolPosition(5, None), "A": SymbolPosition(9, 8, 2)}
    position = ShardPosition(symbols, (OpenGap("A", IdRange(3, 4), 77),), {"A": 1})
    assert json.loads(encode_position(position)) == {
        "symbols": {
            "A": {"next_id": 9, "last_id": 8, "first_id": 2},
            "X": {"next_id": 5, "last_id": None},
        },
        "open_gaps": [{"symbol": "A", "ids": {"first_id": 3, "last_id": 4}, "declared_ts_us": 77}],
        "backfills": {"A": 1},
    }
    again = ShardPosition(dict(reversed(symbols.items())), position.open_gaps, {"A": 1})
    assert encode_position(again) == encode_position(position)


def test_a_position_of_the_first_version_is_still_one() -> None:
    value = b'{"symbols":{"X":{"last_id":4,"next_id":5}}}'
    assert decode_position(value) == ShardPosition({"X": SymbolPosition(5, 4)})
    assert encode_position(decode_position(value)) == value


@given(st.none() | st.binary(max_size=40))
def test_whatever_the_bytes_a_refusal_comes_out(value: bytes | None) -> None:
    for decode in (decode_position, decode_identity, decode_request):
        with pytest.raises(RejectError):
            decode(value)


def test_json_that_is_nested_too_deeply_is_a_refusal_too() -> None:
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for decode in (decode_position, decode_identity, decode_request):
        with pytest.raises(RejectError):
            decode(deep)


def test_trades_move_the_end_and_the_first_one_sets_the_beginning() -> None:
    one = position_after(EMPTY, [placed(7), placed(8)], declared_ts_us=0)
    assert one == ShardPosition({"X": SymbolPosition(9, 8, 7, 1)})
    two = position_after(one, [placed(9), placed(3, symbol="Y")], declared_ts_us=0)
    assert two == ShardPosition({"X": SymbolPosition(10, 9, 7, 1), "Y": SymbolPosition(4, 3, 3, 1)})


def test_a_tape_older_than_low_water_marks_does_not_get_a_false_one() -> None:
    before = ShardPosition({"X": SymbolPosition(7, 6)})
    after = position_after(before, [placed(7)], declared_ts_us=0)
    assert after.symbols["X"] == SymbolPosition(8, 7, None, 1)


def test_a_tape_that_was_filled_backwards_first_keeps_its_beginning() -> None:
    before = ShardPosition({"X": SymbolPosition(7, None, 3)})
    assert position_after(before, [placed(7)], declared_ts_us=0).symbols["X"].first_id == 3


def test_a_gap_moves_the_next_id_only_and_is_open_while_a_source_may_have_it() -> None:
    before = ShardPosition({"X": SymbolPosition(7, 6, 1)})
    after = position_after(before, [gap(7, 9), placed(10)], declared_ts_us=55)
    assert after.symbols["X"] == SymbolPosition(11, 10, 1, 1)
    assert after.open_gaps == (OpenGap("X", IdRange(7, 9), 55),)
    for gap_class in (GapClass.REJECTED, GapClass.VOID):
        declared = position_after(before, [gap(7, 9, gap_class=gap_class)], declared_ts_us=55)
        assert declared == ShardPosition({"X": SymbolPosition(10, 6, 1)})
    begins_with_it = position_after(EMPTY, [gap(7, 9)], declared_ts_us=1).symbols["X"]
    assert begins_with_it == SymbolPosition(10, None, 7), "a backfill must not declare it again"


def test_a_gap_a_backfill_met_does_not_move_the_tape_back() -> None:
    before = ShardPosition({"X": SymbolPosition(70, 69, 50)})
    after = position_after(before, [gap(40, 45)], declared_ts_us=5)
    assert after.symbols == before.symbols
    assert after.open_gaps == (OpenGap("X", IdRange(40, 45), 5),)


def test_beyond_the_bound_the_oldest_gap_is_no_longer_tracked() -> None:
    gaps = [gap(i * 3, i * 3 + 2) for i in range(OPEN_GAPS_MAX + 2)]
    after = position_after(EMPTY, gaps[:-1], declared_ts_us=0)
    after = position_after(after, gaps[-1:], declared_ts_us=0)
    assert len(after.open_gaps) == OPEN_GAPS_MAX
    assert after.open_gaps[0].ids == gaps[2].ids
    split = position_after_repair(after, "X", [after.open_gaps[-1].ids.first_id + 1])
    assert len(split.open_gaps) == OPEN_GAPS_MAX
    assert split.open_gaps[0].ids == gaps[3].ids


@given(POSITIONS, SYMBOLS, st.lists(st.integers(0, 80), max_size=40))
def test_a_repair_closes_just_the_repaired_ids(
    before: ShardPosition, symbol: str, repaired: list[int]
) -> None:
    after = position_after_repair(before, symbol, repaired)
    assert (after.symbols, after.backfills) == (before.symbols, before.backfills)
    for name in ("X", "Y", "币安人生USDT"):
        taken = set(repaired) if name == symbol else set()
        left = [one for one in open_ids(before, name) if one[0] not in taken]
        assert list(open_ids(after, name)) == left
    untouched = [g for g in before.open_gaps if g.symbol != symbol]
    assert [g for g in after.open_gaps if g.symbol != symbol] == untouched


def test_an_open_gap_shrinks_splits_and_closes() -> None:
    before = ShardPosition({}, (OpenGap("X", IdRange(3, 9), 5),))
    assert position_after_repair(before, "X", [3, 4]).open_gaps == (OpenGap("X", IdRange(5, 9), 5),)
    assert position_after_repair(before, "X", [6]).open_gaps == (
        OpenGap("X", IdRange(3, 5), 5),
        OpenGap("X", IdRange(7, 9), 5),
    )
    assert position_after_repair(before, "X", range(3, 10)).open_gaps == ()


@given(st.integers(0, 99), st.lists(st.integers(0, 120), max_size=12))
def test_a_backfill_runs_until_the_tape_begins_where_it_was_wanted(
    wanted: int, reached: list[int]
) -> None:
    position = position_with_backfill(
        ShardPosition({"X": SymbolPosition(200, 199, 100)}), "X", wanted
    )
    lowest = 100
    for first_id in reached:
        assert position.backfills == ({"X": wanted} if wanted < lowest else {})
        lowest = min(lowest, first_id)
        position = position_after_backfill(position, "X", first_id=first_id)
        assert position.symbols == {"X": SymbolPosition(200, 199, lowest)}
    assert position.backfills == ({"X": wanted} if wanted < lowest else {})


def test_of_two_wishes_the_one_further_back_counts() -> None:
    before = ShardPosition({"X": SymbolPosition(200, 199, 100)})
    one = position_with_backfill(before, "X", 50)
    assert position_with_backfill(one, "X", 70).backfills == {"X": 50}
    assert position_with_backfill(one, "X", 20).backfills == {"X": 20}
    assert position_with_backfill(before, "X", 100) == before


def test_a_backfill_of_a_tape_without_trades_ends_if_its_first_trade_is_early_enough() -> None:
    before = ShardPosition({"X": SymbolPosition(50, None)})
    waiting = position_with_backfill(before, "X", 50)
    assert waiting.backfills == {"X": 50}
    assert position_after(waiting, [placed(50)], declared_ts_us=0).backfills == {}
    begins_with_a_gap = position_after(waiting, [gap(50, 52), placed(53)], declared_ts_us=0)
    assert begins_with_a_gap.backfills == {}, "its ids are declared, not to be filled again"


def test_a_symbol_without_tape_cannot_begin_earlier() -> None:
    with pytest.raises(RejectError, match="no tape"):
        position_with_backfill(EMPTY, "X", 5)
    with pytest.raises(RejectError, match="no tape"):
        position_after_backfill(EMPTY, "X", first_id=5)


def test_requests_are_kept_in_order_until_they_are_taken_back() -> None:
    one, two = BackfillRequest("X", 5, "r1"), BackfillRequest("Y", 0, "r2")
    record = NOTHING_RECORDED
    for request in (one, two):
        record = record.taken_in(request_key(request.request_id), encode_request(request))
    assert record == ShardRecord(None, None, (one, two))
    record = record.taken_in(POSITION_KEY, encode_position(EMPTY))
    assert record.taken_in(request_key("r1"), None) == ShardRecord(None, EMPTY, (two,))
    changed = BackfillRequest("X", 4, "r1")
    assert record.taken_in(request_key("r1"), encode_request(changed)).requests == (two, changed)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (request_key("r1"), b"{}"),
        (request_key("r1"), b'{"symbol":"X","from_id":-1,"request_id":"r1"}'),
        (request_key("r1"), encode_request(BackfillRequest("X", 5, "another"))),
        (POSITION_KEY, None),
    ],
)
def test_a_record_that_is_not_what_its_key_says_is_refused(key: bytes, value: bytes | None) -> None:
    with pytest.raises(RejectError):
        NOTHING_RECORDED.taken_in(key, value)


def test_records_under_other_keys_are_passed_over() -> None:
    assert NOTHING_RECORDED.taken_in(b"another", b"\xff") is NOTHING_RECORDED
    assert NOTHING_RECORDED.taken_in(None, b"\xff") is NOTHING_RECORDED


def test_what_an_operator_accepted_stays_accepted() -> None:
    before = ShardPosition({"X": SymbolPosition(70, 69, 50)}, accepted_to=9)
    afters = [
        position_after(before, [placed(70)], declared_ts_us=0),
        position_after_repair(before, "X", [3]),
        position_with_backfill(before, "X", 10),
        position_after_backfill(before, "X", first_id=10),
    ]
    assert [after.accepted_to for after in afters] == [9] * 4
