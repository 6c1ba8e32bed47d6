import pytest

from k2.simulator.rest_rules import (
    EARLIEST_TS_US,
    RestError,
    RowsRequest,
    agg_trades_request,
    exchange_info_symbols,
    fills_request,
)

LISTED = {"BTCUSDT": "TRADING", "这是测试币456": "TRADING", "FTTUSDT": "HALT"}
NOW_US = 1_770_000_000_000_000
MS = 1_760_000_000_000


def _agg(**values: str) -> RowsRequest:
    return agg_trades_request(list(values.items()), listed=LISTED, now_us=NOW_US)


def test_defaults_and_the_silent_clamp() -> None:
    assert _agg(symbol="BTCUSDT") == RowsRequest(symbol="BTCUSDT", limit=500)
    assert _agg(symbol="BTCUSDT", limit="1000").limit == 1000
    assert _agg(symbol="BTCUSDT", limit="5000").limit == 1000
    assert _agg(symbol="BTCUSDT", fromId="0").from_id == 0
    assert _agg(symbol="这是测试币456").symbol == "这是测试币456"


def test_times_are_taken_in_either_unit_and_both_ends_are_inclusive() -> None:
    asked = _agg(symbol="BTCUSDT", startTime=str(MS), endTime=str(MS))
    assert (asked.start_ts_us, asked.end_ts_us) == (MS * 1000, MS * 1000 + 999)
    asked = _agg(symbol="BTCUSDT", startTime=f"{MS}001", endTime=f"{MS}002")
    assert (asked.start_ts_us, asked.end_ts_us) == (MS * 1000 + 1, MS * 1000 + 2)


def test_times_out_of_range_are_adjusted_not_refused() -> None:
    asked = _agg(symbol="BTCUSDT", startTime="0", endTime="9999999999999")
    assert (asked.start_ts_us, asked.end_ts_us) == (EARLIEST_TS_US, NOW_US + 10_000_000)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, -1102),
        ({"symbol": ""}, -1102),
        ({"symbol": "NOPEUSDT"}, -1121),
        ({"symbol": "btcusdt"}, -1100),
        ({"symbol": "BTC/USDT"}, -1100),
        ({"symbol": "B" * 51}, -1100),
        ({"symbol": "BTCUSDT", "fromId": "1", "startTime": str(MS)}, -1128),
        ({"symbol": "BTCUSDT", "fromId": "1", "endTime": str(MS)}, -1128),
        ({"symbol": "BTCUSDT", "fromId": "-1"}, -1100),
        ({"symbol": "BTCUSDT", "fromId": "abc"}, -1100),
        ({"symbol": "BTCUSDT", "fromId": str(2**63)}, -1130),
        ({"symbol": "BTCUSDT", "fromId": ""}, -1105),
        ({"symbol": "BTCUSDT", "limit": "0"}, -1130),
        ({"symbol": "BTCUSDT", "limit": "ten"}, -1100),
        ({"symbol": "BTCUSDT", "from_id": "1"}, -1104),
    ],
)
def test_bad_parameters_have_the_venues_code(values: dict[str, str], code: int) -> None:
    with pytest.raises(RestError) as refused:
        _agg(**values)
    assert refused.value.code == code


def test_a_parameter_sent_twice_is_refused() -> None:
    with pytest.raises(RestError) as refused:
        agg_trades_request([("symbol", "BTCUSDT")] * 2, listed=LISTED, now_us=NOW_US)
    assert refused.value.code == -1101


def test_trades_knows_no_from_id_but_historical_trades_does() -> None:
    pairs = [("symbol", "BTCUSDT"), ("fromId", "5")]
    known = ("symbol", "fromId", "limit")
    assert fills_request(pairs, listed=LISTED, known=known).from_id == 5
    with pytest.raises(RestError) as refused:
        fills_request(pairs, listed=LISTED, known=("symbol", "limit"))
    assert refused.value.code == -1104


@pytest.mark.parametrize(
    ("pairs", "symbols"),
    [
        ([], list(LISTED)),
        ([("symbol", "FTTUSDT")], ["FTTUSDT"]),
        ([("symbols", '["BTCUSDT","这是测试币456"]')], ["BTCUSDT", "这是测试币456"]),
        ([("symbolStatus", "HALT")], ["FTTUSDT"]),
        ([("permissions", "SPOT")], list(LISTED)),
    ],
)
def test_exchange_info_selects(pairs: list[tuple[str, str]], symbols: list[str]) -> None:
    assert exchange_info_symbols(pairs, LISTED) == symbols


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([("symbol", "BTCUSDT"), ("symbols", '["BTCUSDT"]')], -1128),
        ([("symbol", "BTCUSDT"), ("symbolStatus", "TRADING")], -1128),
        ([("symbols", "BTCUSDT")], -1100),
        ([("symbols", '["BTCUSDT",1]')], -1100),
        ([("symbols", '["NOPEUSDT"]')], -1121),
        ([("symbol", "NOPEUSDT")], -1121),
    ],
)
def test_exchange_info_refuses(pairs: list[tuple[str, str]], code: int) -> None:
    with pytest.raises(RestError) as refused:
        exchange_info_symbols(pairs, LISTED)
    assert refused.value.code == code
