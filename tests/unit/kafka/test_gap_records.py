import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import RejectError
from k2.kafka.gap_records import GapEvent, GapRecord, decode_gap, encode_gap, encode_repaired
from k2.lake.decoding import GapDecoder
from k2.market import Gap, GapClass, IdRange
from k2.tape.coverage import Coverage

TS_US = 1_767_225_600_000_000


@given(st.text(max_size=9), st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 99)))
def test_a_gap_comes_back_as_it_was_declared(symbol: str, ids: tuple[int, int]) -> None:
    gap = Gap(symbol, IdRange(ids[0], ids[0] + ids[1]), GapClass.VOID, "the exchange voided it")
    assert decode_gap(encode_gap(gap, declared_ts_us=TS_US)) == GapRecord(
        GapEvent.DECLARED, symbol, gap.ids, GapClass.VOID, "the exchange voided it", TS_US, None
    )


def test_a_gap_record_says_what_why_and_when() -> None:
    gap = Gap("X", IdRange(3, 5), GapClass.REJECTED, "Invalid price format: 'x'")
    record = json.loads(encode_gap(gap, declared_ts_us=1_767_225_600_000_000))
    assert record.pop("declared_ts_us") > 1_700_000_000_000_000
    assert record == {
        "symbol": "X",
        "first_id": 3,
        "last_id": 5,
        "event": "declared",
        "class": "rejected",
        "reason": "Invalid price format: 'x'",
    }


def test_a_record_from_before_there_were_repairs_is_a_declaration() -> None:
    value = (
        b'{"symbol":"X","first_id":3,"last_id":5,"class":"missing","reason":"r","declared_ts_us":7}'
    )
    assert decode_gap(value) == GapRecord(
        GapEvent.DECLARED, "X", IdRange(3, 5), GapClass.MISSING, "r", 7, None
    )


def test_a_repair_says_which_ids_and_when_and_when_they_were_declared() -> None:
    found = decode_gap(
        encode_repaired("X", IdRange(4, 5), repaired_ts_us=TS_US + 9, declared_ts_us=TS_US)
    )
    assert (found.event, found.symbol, found.ids) == (GapEvent.REPAIRED, "X", IdRange(4, 5))
    assert (found.declared_ts_us, found.repaired_ts_us) == (TS_US, TS_US + 9)
    unknown = decode_gap(encode_repaired("X", IdRange(4, 5), repaired_ts_us=TS_US))
    assert (unknown.declared_ts_us, unknown.repaired_ts_us) == (TS_US, TS_US)


def test_the_lake_can_read_a_repair_without_knowing_of_repairs() -> None:
    value = encode_repaired("X", IdRange(4, 5), repaired_ts_us=TS_US)
    decoded = GapDecoder().decode([value], Coverage())
    assert decoded.undecodable == []
    assert decoded.rows.num_rows == 1


@pytest.mark.parametrize("first_id", [6, -1])
def test_what_is_no_range_is_no_gap(first_id: int) -> None:
    value = encode_gap(
        Gap("X", IdRange(3, 5), GapClass.VOID, ""), declared_ts_us=1_767_225_600_000_000
    )
    with pytest.raises(RejectError):
        decode_gap(value.replace(b'"first_id":3', b'"first_id":%d' % first_id))


@given(st.none() | st.binary(max_size=40))
def test_whatever_the_bytes_a_refusal_comes_out(value: bytes | None) -> None:
    with pytest.raises(RejectError):
        decode_gap(value)


def test_json_that_is_nested_too_deeply_is_a_refusal_too() -> None:
    with pytest.raises(RejectError):
        decode_gap(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
