import json
from decimal import Decimal

import pytest

from k2.market import StreamKind
from k2.simulator.frames import event_json, ping_frame, rest_row, stream_name, text_frame
from k2.simulator.rows import TapeRow

AGGREGATE = TapeRow(
    symbol="BTCUSDT",
    kind=StreamKind.AGG_TRADE,
    row_id=3712345678,
    price="93712.01000000",
    quantity="0.01250000",
    first_trade_id=5612345001,
    last_trade_id=5612345004,
    trade_ts_us=1767225600122334,
    event_ts_us=1767225600123456,
    buyer_is_maker=True,
)
FILL = TapeRow(
    symbol="BTCUSDT",
    kind=StreamKind.TRADE,
    row_id=5612345001,
    price="93712.01000000",
    quantity="0.00500000",
    first_trade_id=5612345001,
    last_trade_id=5612345001,
    trade_ts_us=1767225600122334,
    event_ts_us=1767225600123456,
    buyer_is_maker=False,
)


def test_an_aggregate_looks_as_documented() -> None:
    assert event_json(AGGREGATE, combined=False, microseconds=False) == (
        '{"e":"aggTrade","E":1767225600123,"s":"BTCUSDT","a":3712345678,"p":"93712.01000000",'
        '"q":"0.01250000","f":5612345001,"l":5612345004,"T":1767225600122,"m":true,"M":true}'
    )


def test_a_fill_looks_as_documented_since_june_2024() -> None:
    assert event_json(FILL, combined=False, microseconds=False) == (
        '{"e":"trade","E":1767225600123,"s":"BTCUSDT","t":5612345001,"p":"93712.01000000",'
        '"q":"0.00500000","T":1767225600122,"m":false,"M":true}'
    )


def test_the_wrapper_repeats_the_lowercase_name_and_microseconds_have_16_digits() -> None:
    frame = json.loads(event_json(AGGREGATE, combined=True, microseconds=True))
    assert frame["stream"] == stream_name(AGGREGATE) == "btcusdt@aggTrade"
    assert (frame["data"]["E"], frame["data"]["T"]) == (1767225600123456, 1767225600122334)


def test_rest_rows_have_their_own_fields() -> None:
    assert rest_row(AGGREGATE, microseconds=False) == {
        "a": 3712345678,
        "p": "93712.01000000",
        "q": "0.01250000",
        "f": 5612345001,
        "l": 5612345004,
        "T": 1767225600122,
        "m": True,
        "M": True,
    }
    fill = rest_row(FILL, microseconds=True)
    assert list(fill) == [
        "id",
        "price",
        "qty",
        "quoteQty",
        "time",
        "isBuyerMaker",
        "isBestMatch",
    ]
    assert Decimal(str(fill["quoteQty"])) == Decimal(FILL.price) * Decimal(FILL.quantity)
    assert fill["time"] == 1767225600122334


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_frame_lengths_are_written_as_rfc_6455_says(length: int) -> None:
    frame = text_frame(b"x" * length)
    assert frame[0] == 0x81
    if length < 126:
        assert (frame[1], frame[2:]) == (length, b"x" * length)
    elif length < 65536:
        assert (frame[1], int.from_bytes(frame[2:4], "big")) == (126, length)
        assert len(frame) == 4 + length
    else:
        assert (frame[1], int.from_bytes(frame[2:10], "big")) == (127, length)
        assert len(frame) == 10 + length


def test_a_ping_carries_its_payload() -> None:
    assert ping_frame(b"1770000000000") == b"\x89\x0d1770000000000"
