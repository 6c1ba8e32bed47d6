import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import RejectError
from k2.kafka.gap_records import decode_gap, encode_gap
from k2.market import Gap, GapClass, IdRange


@given(st.text(max_size=9), st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 99)))
def test_a_gap_comes_back_as_it_was_declared(symbol: str, ids: tuple[int, int]) -> None:
    gap = Gap(symbol, IdRange(ids[0], ids[0] + ids[1]), GapClass.VOID, "the exchange voided it")
    assert decode_gap(encode_gap(gap, declared_ts_us=1_767_225_600_000_000)) == (symbol, gap.ids)


def test_a_gap_record_says_what_why_and_when() -> None:
    gap = Gap("X", IdRange(3, 5), GapClass.REJECTED, "Invalid price format: 'x'")
    record = json.loads(encode_gap(gap, declared_ts_us=1_767_225_600_000_000))
    assert record.pop("declared_ts_us") > 1_700_000_000_000_000
    assert record == {
        "symbol": "X",
        "first_id": 3,
        "last_id": 5,
        "class": "rejected",
        "reason": "Invalid price format: 'x'",
    }


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
