import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2.binance.frames import (
    ErrorReply,
    Reply,
    ServerShutdown,
    frame_decoder,
    original_event,
)
from k2.errors import RejectError
from k2.market import Origin, Side, StreamKind, Trade

AGG = {
    "e": "aggTrade", "E": 1767225600123, "s": "BTCUSDT", "a": 3712345678,
    "p": "93712.01000000", "q": "0.01250000", "f": 5612345001, "l": 5612345004,
    "T": 1767225600122, "m": True, "M": True,
}  # fmt: skip
SINGLE = {
    "e": "trade", "E": 1767225600123, "s": "BTCUSDT", "t": 5612345001, "p": "93712.01000000",
    "q": "0.00500000", "T": 1767225600122, "m": False, "M": True,
}  # fmt: skip
RECV_TS_NS = 1_767_225_600_200_000_000
ERROR_TYPES = {"parse", "missing_field", "unexpected_type", "invalid_field", "void"}

agg = frame_decoder(StreamKind.AGG_TRADE)
single = frame_decoder(StreamKind.TRADE)


def _bytes(event: Any) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def _without(event: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != field}


def _wrapped(event: Any, stream: str = "btcusdt@aggTrade") -> dict[str, Any]:
    return {"stream": stream, "data": event}


def _refusal(payload: bytes) -> RejectError:
    with pytest.raises(RejectError) as caught:
        agg(payload, RECV_TS_NS)
    return caught.value


AGG_AS_TRADE = Trade(
    symbol="BTCUSDT",
    source_id=3712345678,
    price=Decimal("93712.01000000"),
    quantity=Decimal("0.01250000"),
    first_trade_id=5612345001,
    last_trade_id=5612345004,
    trade_ts_us=1767225600122000,
    event_ts_us=1767225600123000,
    recv_ts_ns=RECV_TS_NS,
    taker_side=Side.SELL,
    best_match=True,
    origin=Origin.STREAM,
)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(msgspec.json.encode(AGG), id="bare"),
        pytest.param(msgspec.json.encode(_wrapped(AGG)), id="wrapped"),
        pytest.param(_bytes(_wrapped(AGG)), id="wrapped, with spaces"),
        pytest.param(_bytes({"data": AGG, "stream": "btcusdt@aggTrade"}), id="data before stream"),
        pytest.param(_bytes({**AGG, "X": "MARKET", "nq": [1, {"y": None}]}), id="extra fields"),
        pytest.param(_bytes({**_wrapped(AGG), "extra": 1}), id="extra field of the wrapper"),
    ],
)
def test_an_aggregate_trade_is_read_in_every_shape(payload: bytes) -> None:
    assert agg(payload, RECV_TS_NS) == AGG_AS_TRADE


@pytest.mark.parametrize("shape", [lambda e: e, lambda e: _wrapped(e, "btcusdt@trade")])
def test_an_old_single_trade_keeps_its_own_id_beside_order_ids(shape: Any) -> None:
    trade = single(_bytes(shape({**SINGLE, "b": 11, "a": 22})), RECV_TS_NS)
    assert isinstance(trade, Trade)
    assert (trade.source_id, trade.first_trade_id, trade.last_trade_id) == (5612345001,) * 3
    assert trade.taker_side is Side.BUY


def test_a_symbol_need_not_be_ascii() -> None:
    trade = agg(_bytes({**AGG, "s": "币安人生USDT"}), RECV_TS_NS)
    assert isinstance(trade, Trade)
    assert trade.symbol == "币安人生USDT"


def test_microseconds_are_kept() -> None:
    trade = agg(_bytes({**AGG, "E": 1767225600123456, "T": 1767225600122334}), RECV_TS_NS)
    assert isinstance(trade, Trade)
    assert (trade.event_ts_us, trade.trade_ts_us) == (1767225600123456, 1767225600122334)


def test_a_missing_m_field_of_the_venue_is_unknown_not_false() -> None:
    trade = agg(_bytes(_without(AGG, "M")), RECV_TS_NS)
    assert isinstance(trade, Trade)
    assert trade.best_match is None


@pytest.mark.parametrize("result", [None, [], ["btcusdt@aggTrade"], True, False])
def test_a_reply_carries_its_result(result: Any) -> None:
    assert agg(_bytes({"result": result, "id": 3}), 0) == Reply(3, result)


def test_a_reply_may_have_a_text_id_or_none() -> None:
    assert agg(b'{"result":null,"id":"abc"}', 0) == Reply("abc", None)
    assert agg(b'{"id":null,"result":null}', 0) == Reply(None, None)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"code":2,"msg":"Invalid request"}', ErrorReply(2, "Invalid request", None)),
        (b'{"code":0,"msg":"Unknown property","id":4}', ErrorReply(0, "Unknown property", 4)),
        (b'{"error":{"code":3,"msg":"Invalid JSON"},"id":7}', ErrorReply(3, "Invalid JSON", 7)),
        (b'{"error":{"code":3,"msg":"Invalid JSON"}}', ErrorReply(3, "Invalid JSON", None)),
    ],
)
def test_both_forms_of_errors_are_read(payload: bytes, expected: ErrorReply) -> None:
    assert agg(payload, 0) == expected


@pytest.mark.parametrize(
    "event",
    [
        {"e": "serverShutdown", "E": 1770123456789},
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1770123456789}},
        {"e": "serverShutdown", "E": 1770123456789000},
    ],
)
def test_a_server_shutdown_is_read_in_both_shapes(event: Any) -> None:
    for decode in (agg, single):
        assert decode(_bytes(event), 0) == ServerShutdown(1770123456789000)
        assert decode(msgspec.json.encode(event), 0) == ServerShutdown(1770123456789000)


@pytest.mark.parametrize(
    ("payload", "error_type", "words"),
    [
        (b"", "parse", "Failed to parse message"),
        (b"pong", "parse", "Failed to parse message"),
        (_bytes(AGG)[:-4], "parse", "Failed to parse message"),
        (b'{"e":"aggTrade","s":"\xff"}', "parse", "Failed to parse message"),
        (b'{"e":"aggTrade","s":"\\ud800"}', "parse", "Failed to parse message"),
        (b'{"a":' + b"9" * 5000 + b"}", "parse", "Failed to parse message"),
        (b"[" * 100_000, "parse", "Failed to parse message"),
        (b"[1]", "unexpected_type", "a JSON object was expected"),
        (b"null", "unexpected_type", "a JSON object was expected"),
        (b'{"stream":"x","data":[]}', "unexpected_type", "a JSON object was expected"),
        (b"{}", "missing_field", "Missing field"),
        (_bytes(_without(AGG, "p")), "missing_field", "Missing price in message"),
        (_bytes(_wrapped(_without(AGG, "p"))), "missing_field", "Missing price in message"),
        (_bytes(_without(AGG, "q")), "missing_field", "Missing quantity in message"),
        (_bytes(_without(AGG, "a")), "missing_field", "Missing field a in message"),
        (_bytes({**AGG, "p": 93712.01}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "p": None}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "a": "3712345678"}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "a": 1.5}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "m": "true"}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "s": 7}), "unexpected_type", "Invalid field"),
        (_bytes({**AGG, "p": "-1"}), "invalid_field", "Invalid price format: '-1'"),
        (_bytes({**AGG, "p": "NaN"}), "invalid_field", "Invalid price format: 'NaN'"),
        (_bytes({**AGG, "p": "Infinity"}), "invalid_field", "Invalid price format: 'Infinity'"),
        (_bytes({**AGG, "p": "0.00000000"}), "invalid_field", "Invalid price format"),
        (_bytes({**AGG, "q": "1E5"}), "invalid_field", "Invalid quantity format: '1E5'"),
        (_bytes({**AGG, "a": -1}), "invalid_field", "Invalid field: a=-1"),
        (_bytes({**AGG, "a": 2**63}), "invalid_field", "Invalid field: a="),
        (_bytes({**AGG, "f": 9, "l": 8}), "invalid_field", "Invalid field: f=9 is after l=8"),
        (_bytes({**AGG, "T": 0}), "invalid_field", "Invalid field: T=0"),
        (_bytes({**AGG, "E": 10**17}), "invalid_field", "Invalid field: E="),
        (_bytes({**AGG, "s": ""}), "invalid_field", "Invalid field: s="),
        (_bytes({**AGG, "s": "X" * 65}), "invalid_field", "Invalid field: s="),
        (_bytes({**AGG, "p": "0", "q": "0", "f": -1, "l": -1}), "void", "voided"),
        (_bytes(SINGLE), "unexpected_type", "Unknown event: e='trade'"),
        (_bytes({**AGG, "e": "blockTrade"}), "unexpected_type", "Unknown event: e='blockTrade'"),
        (_bytes({"e": ["x"], "E": 1}), "unexpected_type", "Unknown event"),
        (b'{"e":"serverShutdown"}', "unexpected_type", "Unknown event"),
    ],
)
def test_bad_input_is_refused_with_a_type_and_the_words_the_runbooks_grep(
    payload: bytes, error_type: str, words: str
) -> None:
    refusal = _refusal(payload)
    assert refusal.error_type == error_type
    assert words in str(refusal)


def test_an_aggregate_trade_on_a_single_trade_tape_is_refused() -> None:
    with pytest.raises(RejectError, match="Unknown event: e='aggTrade'"):
        single(_bytes(AGG), 0)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from(["aggTrade", "trade", "serverShutdown", "1.5", "0", "-1"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from("eEsapqflTmMtbXid") | st.sampled_from(
            ["id", "result", "code", "msg", "error", "stream", "data"]
        ) | st.text(max_size=3),
        inner,
        max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    event: Any = dict(draw(st.sampled_from([AGG, SINGLE])))
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from(sorted(event)))
        if draw(st.booleans()):
            event.pop(field)
        else:
            event[field] = draw(JSON)
        if not event:
            break
    if draw(st.booleans()):
        event = _wrapped(event)
    text = json.dumps(event, ensure_ascii=draw(st.booleans()))
    payload = text.encode("utf-8", errors="surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, max(0, len(payload) - 1)))
        payload = payload[:at] + draw(st.binary(max_size=3)) + payload[at + 1 :]
    return payload


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), JSON.map(lambda v: json.dumps(v).encode()), mutated()))
@example(b'{"code":1,"msg":' + b"[" * 900 + b"]" * 900 + b"}")
@example(b'{"e":' + b"[" * 960 + b"]" * 960 + b"}")
@example(b'{"e":' + b"9" * 5000 + b"}")
@example(b'{"e":"aggTrade","e":"trade"}')
@example(b'"\xed\xa0\x80"')
@example(b"\xef\xbb\xbf{}")
def test_whatever_the_bytes_a_frame_comes_out_or_a_refusal(payload: bytes) -> None:
    for decode in (agg, single):
        try:
            frame: object = decode(payload, 1)
        except RejectError as exc:
            frame = exc
        assert isinstance(frame, Trade | Reply | ErrorReply | ServerShutdown | RejectError)
        assert getattr(frame, "error_type", "parse") in ERROR_TYPES
        original = original_event(payload)
        assert isinstance(original, dict)
        msgspec.json.encode(original)


def test_a_frame_nested_just_below_any_limit_is_no_crash() -> None:
    for depth in range(900, 1000):
        nest = b"[" * depth + b"]" * depth
        for payload in (b'{"code":1,"msg":' + nest + b"}", b'{"e":' + nest + b"}", nest):
            original_event(payload)
            try:
                agg(payload, 1)
            except RejectError:
                continue


def test_a_dead_letter_holds_the_event_without_its_wrapper_or_the_raw_text() -> None:
    assert original_event(_bytes(_wrapped(AGG))) == AGG
    assert original_event(_bytes(AGG)) == AGG
    assert original_event(b"not json") == {"_raw": "not json"}
    assert original_event(b"[1,2]") == {"_raw": "[1,2]"}
    assert original_event(b'{"s":"\xff"}') == {"_raw": '{"s":"\ufffd"}'}
