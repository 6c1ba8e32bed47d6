import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from k2.binance.frames import original_event
from k2.binance.rows import decode_rows
from k2.ingestion.dlq_judging import ARCHIVE, Outcome, SymbolTape, Tapes, judge, read_again
from k2.kafka.letter_reading import Letter
from k2.market import BadRow, IdRange, Origin, StreamKind, Trade

X = "BTCUSDT"
AT = datetime(2026, 1, 14, 12, 0, 0, 250_000, tzinfo=UTC)
TAPES = Tapes(
    "t.binance",
    StreamKind.AGG_TRADE,
    {X: SymbolTape(100, 200, [IdRange(150, 152)])},
    frozenset([X]),
)
EVENT = {
    "e": "aggTrade", "E": 1767225600123, "s": X, "a": 150, "p": "93712.01", "q": "1",
    "f": 1, "l": 2, "T": 1767225600122, "m": True,
}  # fmt: skip
ROW = {"a": 150, "p": "93712.01", "q": "1", "f": 1, "l": 2, "T": 1767225600122, "m": True, "s": X}


def letter(original: dict[str, Any], **how: Any) -> Letter:
    said: dict[str, Any] = {"topic": "t.binance", "symbol": original.get("s"), "connection_id": "c"}
    said |= how
    return Letter(
        timestamp=AT, error="e", error_type="parse", sequence=1, schema_version="v2",
        original_message=original, **said,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("original", "outcome"),
    [
        (EVENT, Outcome.REPAIRABLE),
        (ROW, Outcome.REPAIRABLE),
        ({"_raw": json.dumps({"stream": "x", "data": EVENT})}, Outcome.REPAIRABLE),
        (EVENT | {"a": 100}, Outcome.RECORDED),
        (EVENT | {"a": 199}, Outcome.RECORDED),
        (EVENT | {"a": 99}, Outcome.OUTSIDE),
        (EVENT | {"a": 200}, Outcome.OUTSIDE),
        (EVENT | {"s": "ETHUSDT"}, Outcome.OUTSIDE),
        (EVENT | {"p": "x"}, Outcome.STILL_BAD),
        (EVENT | {"p": "x", "a": 120}, Outcome.RECORDED),
        (EVENT | {"p": "x", "a": 99}, Outcome.STILL_BAD),
        (EVENT | {"a": "150"}, Outcome.STILL_BAD),
        (EVENT | {"a": True}, Outcome.STILL_BAD),
        (ROW | {"p": 3}, Outcome.STILL_BAD),
        (ROW | {"p": "0", "q": "0", "f": -1, "l": -1}, Outcome.STILL_BAD),
        ({"s": X}, Outcome.STILL_BAD),
        ({"_raw": "{oops"}, Outcome.STILL_BAD),
        ({"_raw": 7}, Outcome.STILL_BAD),
        ({"result": None, "id": 3}, Outcome.STILL_BAD),
        ({"source_id": 150, "s": X}, Outcome.STILL_BAD),
        ({"source_id": 120, "s": X}, Outcome.RECORDED),
    ],
)  # fmt: skip
def test_what_a_letter_is_today(original: dict[str, Any], outcome: Outcome) -> None:
    verdict = judge(letter(original), TAPES)
    assert verdict.outcome is outcome, verdict
    assert (verdict.trade is not None) == (outcome is Outcome.REPAIRABLE)
    assert (verdict.reason == "") == (outcome in (Outcome.REPAIRABLE, Outcome.RECORDED))


def test_what_is_missing_of_a_symbol_that_left_waits_until_it_is_recorded_again() -> None:
    verdict = judge(letter(EVENT), TAPES._replace(active=frozenset()))
    assert (verdict.outcome, verdict.trade) == (Outcome.REPAIRABLE, None)
    assert "k2 symbols add BTCUSDT" in verdict.reason
    assert judge(letter(EVENT | {"a": 120}), TAPES._replace(active=frozenset())).reason == ""


def test_letters_of_other_topics_and_of_the_archive_are_left_alone() -> None:
    other = judge(letter(EVENT, topic="sim.binance"), TAPES)
    assert (other.outcome, other.reason) == (Outcome.OTHER_TAPE, "sim.binance")
    record = judge(letter({"_raw": '{"test": "message"}'}, connection_id=ARCHIVE), TAPES)
    assert record.outcome is Outcome.STILL_BAD


def test_a_letter_reads_as_the_decoder_reads_it_with_the_letters_time() -> None:
    frame = read_again(letter(EVENT), StreamKind.AGG_TRADE)
    assert isinstance(frame, Trade)
    assert (frame.source_id, frame.price, frame.origin) == (150, Decimal("93712.01"), Origin.STREAM)
    assert frame.recv_ts_ns == 1_768_392_000_250_000_000
    row = read_again(letter(ROW), StreamKind.AGG_TRADE)
    assert isinstance(row, Trade)
    assert (row.symbol, row.source_id, row.origin) == (X, 150, Origin.HEALED)


def test_single_fills_are_known_by_their_own_id() -> None:
    tapes = TAPES._replace(kind=StreamKind.TRADE)
    event = {
        "e": "trade",
        "E": 1,
        "s": X,
        "t": 120,
        "a": 150,
        "p": "x",
        "q": "1",
        "T": 1,
        "m": True,
    }
    verdict = judge(letter(event), tapes)
    assert (verdict.source_id, verdict.outcome) == (120, Outcome.RECORDED)
    row = {"id": 150, "price": "1", "qty": "1", "time": 1767225600122, "isBuyerMaker": True, "s": X}
    assert judge(letter(row), tapes).outcome is Outcome.REPAIRABLE


def test_a_row_that_rest_gave_in_a_wrong_type_can_be_found_again() -> None:
    body = b'[{"a":150,"p":3,"q":"1","f":1,"l":2,"T":1767225600122,"m":true}]'
    (row,) = decode_rows(body, kind=StreamKind.AGG_TRADE, symbol=X, recv_ts_ns=1)
    assert isinstance(row, BadRow)
    verdict = judge(letter(row.original), TAPES)
    assert (verdict.symbol, verdict.source_id) == (X, 150)


def test_what_is_kept_of_a_frame_reads_as_the_frame_did() -> None:
    wrapped = b'{"stream":"x","data":{"e":"aggTrade","s":"BTCUSDT","a":150}}'
    verdict = judge(letter(original_event(wrapped)), TAPES)
    assert "Missing" in verdict.reason
    assert verdict.source_id == 150
