import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.binance.rows import decode_rows, decode_symbols
from k2.errors import RetryError
from k2.market import BadRow, Origin, Side, StreamKind, Symbol, Trade

AGG_ROW: dict[str, Any] = {
    "a": 26129, "p": "0.01633102", "q": "4.70443515", "f": 27781, "l": 27783,
    "T": 1498793709153, "m": True, "M": True,
}  # fmt: skip
FILL_ROW: dict[str, Any] = {
    "id": 28457, "price": "4.00000100", "qty": "12.00000000", "quoteQty": "48.000012",
    "time": 1499865549590, "isBuyerMaker": False, "isBestMatch": True,
}  # fmt: skip


def _body(rows: Any) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


def _agg(body: bytes) -> list[Trade | BadRow]:
    return decode_rows(body, kind=StreamKind.AGG_TRADE, symbol="BNBBTC", recv_ts_ns=7)


def _fills(body: bytes) -> list[Trade | BadRow]:
    return decode_rows(body, kind=StreamKind.TRADE, symbol="BNBBTC", recv_ts_ns=7)


def _ids_around(bad: bytes) -> list[int]:
    """Decode a page with a bad row, id 26130, in its middle."""
    before, after = _body(AGG_ROW), _body({**AGG_ROW, "a": 26131})
    found = _agg(b"[" + b",".join([before, bad, after]) + b"]")
    assert [type(row) for row in found] == [Trade, BadRow, Trade]
    return [row.source_id for row in found]


def test_an_aggregate_row_becomes_a_healed_trade_without_event_time() -> None:
    assert _agg(_body([AGG_ROW])) == [
        Trade(
            symbol="BNBBTC",
            source_id=26129,
            price=Decimal("0.01633102"),
            quantity=Decimal("4.70443515"),
            first_trade_id=27781,
            last_trade_id=27783,
            trade_ts_us=1498793709153000,
            event_ts_us=None,
            recv_ts_ns=7,
            taker_side=Side.SELL,
            best_match=True,
            origin=Origin.HEALED,
        )
    ]


def test_a_historical_trade_row_becomes_a_healed_trade_of_one_fill() -> None:
    (row,) = _fills(_body([{**FILL_ROW, "time": 1767225600122334}]))
    assert isinstance(row, Trade)
    assert (row.source_id, row.first_trade_id, row.last_trade_id) == (28457, 28457, 28457)
    assert (row.price, row.quantity) == (Decimal("4.00000100"), Decimal(12))
    assert (row.trade_ts_us, row.taker_side) == (1767225600122334, Side.BUY)


def test_an_empty_page_is_no_rows() -> None:
    assert _agg(b"[]") == []


@pytest.mark.parametrize(
    "change",
    [
        {"p": 1.5},
        {"p": "-1"},
        {"q": "0.00000000001"},
        {"T": 0},
        {"f": -2},
        {"f": 9, "l": 8},
        {"m": None},
        {"m": "true"},
    ],
)
def test_a_bad_row_keeps_its_id_and_costs_its_neighbours_nothing(change: dict[str, Any]) -> None:
    assert _ids_around(_body({**AGG_ROW, "a": 26130, **change})) == [26129, 26130, 26131]


@pytest.mark.parametrize(
    "value",
    [b'"\xff"', b"[" * 3000 + b"]" * 3000, b"9" * 5000],
    ids=["bytes that are no text", "deep nesting", "an endless number"],
)
def test_bytes_that_cannot_be_decoded_cost_one_row(value: bytes) -> None:
    bad = _body({**AGG_ROW, "a": 26130}).replace(b'"0.01633102"', value)
    before, after = _body(AGG_ROW), _body({**AGG_ROW, "a": 26131})
    try:
        found = _agg(b"[" + b",".join([before, bad, after]) + b"]")
    except RetryError:
        assert value.startswith(b"[")  # nesting that the scanner itself refuses
        return
    assert [row.source_id for row in found] == [26129, 26130, 26131]
    assert isinstance(found[1], BadRow)
    assert "_raw" in found[1].original


def test_a_row_the_exchange_voided_is_told_apart() -> None:
    void = {**AGG_ROW, "p": "0", "q": "0", "f": -1, "l": -1}
    (row,) = _agg(_body([void]))
    assert isinstance(row, BadRow)
    assert (row.error_type, row.source_id) == ("void", 26129)
    assert row.original == {**void, "s": "BNBBTC"}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>502 Bad Gateway</html>", b"{}", b'{"code":-1003,"msg":"x"}', b"null", b"[1]",
     b'[{"p":"1"}]', b'[{"a":"1"}]', b'[{"a":true}]', b'[{"a":1}', b'["\xff"]', b"[" * 5000,
     b"\xff\xfe"],
)  # fmt: skip
def test_what_is_no_page_of_rows_with_ids_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(RetryError):
        _agg(body)


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda b: b'[{"a":1,"p":"' + b + b'"}]'))
def test_whatever_the_bytes_rows_come_out_or_a_retry(body: bytes) -> None:
    for decode in (_agg, _fills):
        try:
            rows = decode(body)
        except RetryError:
            continue
        assert all(isinstance(row, Trade | BadRow) for row in rows)
    try:
        decode_symbols(body, names=["X"])
    except RetryError:
        return


def test_assets_are_what_the_exchange_states_never_a_suffix() -> None:
    listings = [
        {"symbol": "USDTTRY", "baseAsset": "USDT", "quoteAsset": "TRY", "status": "TRADING"},
        {"symbol": "币安人生USDT", "baseAsset": "币安人生", "quoteAsset": "USDT", "filters": []},
        {"symbol": "OTHER", "baseAsset": "O", "quoteAsset": "THER"},
    ]
    found = decode_symbols(
        _body({"timezone": "UTC", "symbols": listings}), names=["USDTTRY", "币安人生USDT", "NONE"]
    )
    assert found == {
        "USDTTRY": Symbol("USDTTRY", "USDT", "TRY"),
        "币安人生USDT": Symbol("币安人生USDT", "币安人生", "USDT"),
    }


def test_a_listing_without_assets_is_asked_for_again() -> None:
    for body in (b"{}", b"[]", b'{"symbols":[{"symbol":"X"}]}', b'{"symbols":[{"symbol":"\xff"}]}'):
        with pytest.raises(RetryError, match="not exchangeInfo"):
            decode_symbols(body, names=["X"])


def test_every_symbol_of_a_real_listing_keeps_its_stated_assets() -> None:
    name = "binance-spot-exchange-info-20211012.json.gz"
    path = Path(__file__).resolve().parents[4] / "shared" / "data" / name
    if not path.exists():
        absent = f"the recorded data beside the checkout is absent: {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)  # there it is part of the machine: a missing part fails
        pytest.skip(absent)
    body = gzip.decompress(path.read_bytes())
    stated = {
        row["symbol"]: Symbol(row["symbol"], row["baseAsset"], row["quoteAsset"])
        for row in json.loads(body)["symbols"]
    }
    assert len(stated) == 1695
    assert decode_symbols(body, names=list(stated)) == stated
    assert decode_symbols(body, names=["BTCUSDT"]) == {"BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT")}
