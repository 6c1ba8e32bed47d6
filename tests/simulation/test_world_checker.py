import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from k2.kafka.encoding import TradeEncoder
from k2.market import Origin, Side, StreamKind, Symbol, Trade
from k2.tape.arbiter import Placed
from simulation.world.checker import is_caught_up, judge
from simulation.world.exchange_ledger import Row
from simulation.world.kafka_log import Outcome, Transaction
from simulation.world.world import simulated_world

COUNT = 10


class Tape:
    """A complete tape of ten trades, written by hand; spoilt by each test."""

    def __init__(self) -> None:
        self.context = simulated_world(1, rates_per_s={"BTCUSDT": 1})
        self.world = self.context.__enter__()
        self.market = self.world.exchange.markets["BTCUSDT"]
        for _ in range(COUNT):
            self.market.trade(self.world.rng, now_s=0)
        self.first = self.market.first_id
        self.encoder = TradeEncoder(
            schema_id=1,
            kind=StreamKind.AGG_TRADE,
            environment="simulated",
            symbols={"BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT")},
        )

    def put(self, topic: str, key: bytes, value: bytes) -> None:
        kafka, log = self.world.kafka, self.world.kafka.logs[topic, 0]
        log.append([kafka.record(None, key, value)], None)

    def trade(self, number: int, *, previous: int | None = -1, **changed: Any) -> None:
        row = self.market.row(self.first + number)
        assert row is not None
        before = number - 1 if previous == -1 else previous
        previous_id = None if before is None or before < 0 else self.first + before
        value = self.encoder.encode(Placed(self._trade(row, **changed), previous_id))
        self.put(self.world.topics.trades, b"BTCUSDT", value)

    def repair(self, number: int) -> None:
        row = self.market.row(self.first + number)
        assert row is not None
        value = self.encoder.encode(Placed(self._trade(row), None))
        self.put(self.world.topics.repairs, b"BTCUSDT", value)

    def gap(
        self, first: int, last: int, gap_class: str = "missing", event: str = "declared"
    ) -> None:
        value = {
            "symbol": "BTCUSDT",
            "first_id": self.first + first,
            "last_id": self.first + last,
            "class": gap_class,
            "event": event,
        }
        self.put(self.world.topics.gaps, b"BTCUSDT", json.dumps(value).encode())

    def hide(self, first: int, last: int) -> None:
        self.market.hide(
            first_id=self.first + first, last_id=self.first + last, from_s=-100, until_s=100
        )

    def position(
        self,
        next_number: int,
        last_number: int | None = None,
        *,
        first_number: int | None = None,
        open_gaps: list[tuple[int, int]] | None = None,
    ) -> None:
        last_id = None if last_number is None else self.first + last_number
        where = {"next_id": self.first + next_number, "last_id": last_id}
        if first_number is not None:
            where["first_id"] = self.first + first_number
        gaps = [
            {
                "symbol": "BTCUSDT",
                "ids": {"first_id": self.first + first, "last_id": self.first + last},
            }
            for first, last in open_gaps or []
        ]
        value = json.dumps({"symbols": {"BTCUSDT": where}, "open_gaps": gaps}).encode()
        self.put(self.world.topics.positions, b"position", value)

    def complaints(self) -> str:
        text = "\n".join(judge(self.world).violations)
        for number in range(COUNT + 1):
            text = text.replace(str(self.first + number), f"#{number}")
        return text

    def _trade(self, row: Row, **changed: Any) -> Trade:
        told: dict[str, Any] = {
            "symbol": "BTCUSDT",
            "source_id": row.agg_id,
            "price": Decimal("1" if row.void else row.price),
            "quantity": Decimal("1" if row.void else row.quantity),
            "first_trade_id": row.first_fill,
            "last_trade_id": row.last_fill,
            "trade_ts_us": row.traded_us,
            "event_ts_us": None,
            "recv_ts_ns": 1,
            "taker_side": Side.SELL if row.buyer_is_maker else Side.BUY,
            "best_match": True,
            "origin": Origin.STREAM,
        }
        return Trade(**(told | changed))


@pytest.fixture
def tape() -> Iterator[Tape]:
    made = Tape()
    yield made
    made.context.__exit__(None, None, None)


def test_a_complete_tape_is_fine(tape: Tape) -> None:
    tape.position(0)
    assert not is_caught_up(tape.world)
    for number in range(COUNT):
        tape.trade(number)
    tape.position(COUNT, COUNT - 1)
    verdict = judge(tape.world)
    assert (verdict.violations, verdict.total, verdict.behind) == ([], COUNT, {"BTCUSDT": 0})
    assert is_caught_up(tape.world)


def test_a_tape_may_be_behind_without_being_wrong(tape: Tape) -> None:
    for number in range(4):
        tape.trade(number)
    verdict = judge(tape.world)
    assert (verdict.violations, verdict.behind) == ([], {"BTCUSDT": 6})


def test_a_double_is_found(tape: Tape) -> None:
    for number in (0, 1, 1, 2):
        tape.trade(number)
    assert tape.complaints() == "BTCUSDT: #1 is on the tape twice"


def test_a_loss_is_found_within_the_tape_and_at_its_start(tape: Tape) -> None:
    tape.position(0)
    for number in (2, 3, 6):
        tape.trade(number, previous=None if number == 2 else number - 1 if number == 3 else 3)
    assert tape.complaints().splitlines() == [
        "BTCUSDT: #0..#1 lost (2 ids)",
        "BTCUSDT: #4..#5 lost (2 ids)",
        "BTCUSDT: the position says #0, the tape ends at #6",
    ]


def test_disorder_and_wrong_previous_ids_are_found(tape: Tape) -> None:
    tape.trade(1, previous=None)
    tape.trade(0, previous=None)
    assert "#0 comes after #1: out of order" in tape.complaints()
    assert "#0 says None is before it, the tape says #1" in tape.complaints()


@pytest.mark.parametrize(
    "changed",
    [
        {"price": Decimal("1.5")},
        {"quantity": Decimal(77)},
        {"first_trade_id": 5},
        {"trade_ts_us": 1_767_225_600_000_001},
        {"taker_side": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_content_than_the_exchanges_is_found(tape: Tape, changed: dict[str, Any]) -> None:
    row = tape.market.rows[0]
    if "taker_side" in changed:
        changed = {"taker_side": Side.BUY if row.buyer_is_maker else Side.SELL}
    tape.trade(0, **changed)
    assert f"differs from the exchange: {next(iter(changed))}" in tape.complaints()


def test_what_was_never_traded_is_found(tape: Tape) -> None:
    tape.trade(0)
    row = tape.market.row(tape.first)
    assert row is not None
    ghost = row._replace(agg_id=tape.first + COUNT)
    value = tape.encoder.encode(Placed(tape._trade(ghost), tape.first))
    tape.put(tape.world.topics.trades, b"BTCUSDT", value)
    assert "#10 was never traded" in tape.complaints()


def test_a_declared_gap_stands_for_its_ids_where_rest_lacked_them(tape: Tape) -> None:
    tape.hide(1, 2)
    tape.trade(0)
    tape.gap(1, 2)
    tape.trade(3, previous=0)
    tape.position(4, 3, open_gaps=[(1, 2)])
    assert tape.complaints() == ""
    tape.gap(1, 2, event="repaired")
    tape.repair(1)
    assert tape.complaints() == "BTCUSDT: open gaps are wrong about [#1]"
    tape.position(4, 3, open_gaps=[(2, 2)])
    assert tape.complaints() == ""
    assert judge(tape.world).repaired == 1


def test_a_gap_where_rest_has_the_rows_is_a_loss(tape: Tape) -> None:
    tape.trade(0)
    tape.gap(1, 2)
    tape.trade(3, previous=0)
    tape.position(4, 3, open_gaps=[(1, 2)])
    assert tape.complaints().splitlines() == [
        "BTCUSDT: #1 is declared missing but is with REST",
        "BTCUSDT: #2 is declared missing but is with REST",
    ]


def test_gaps_that_contradict_the_tape_or_one_another_are_found(tape: Tape) -> None:
    tape.hide(0, 9)
    tape.trade(0)
    tape.gap(0, 1)
    tape.gap(1, 1)
    tape.gap(2, 2, "void")
    tape.position(3, 0, open_gaps=[(0, 1)])
    assert tape.complaints().splitlines() == [
        "BTCUSDT: #0 is declared a gap and on the tape",
        "BTCUSDT: #1 is declared twice",
        "BTCUSDT: #2 is declared void but is not void",
    ]


def test_repairs_of_what_was_not_declared_or_twice_are_found(tape: Tape) -> None:
    tape.hide(1, 1)
    tape.gap(1, 1)
    for number in (1, 1, 2):
        tape.repair(number)
    assert tape.complaints().splitlines() == [
        "BTCUSDT: #1 is repaired twice",
        "BTCUSDT: #2 is repaired, not declared",
    ]


def test_the_past_is_complete_from_the_first_id_on(tape: Tape) -> None:
    tape.hide(3, 3)
    tape.trade(5, previous=None)
    for number in (2, 4):
        tape.repair(number)
    tape.position(6, 5, first_number=2)
    assert tape.complaints() == "BTCUSDT: #3..#3 of the past lost (1)"
    tape.gap(3, 3)
    tape.position(6, 5, first_number=2, open_gaps=[(3, 3)])
    assert tape.complaints() == ""
    tape.repair(1)
    assert tape.complaints() == "BTCUSDT: #1 is repaired, not declared"


def test_a_position_that_disagrees_with_the_tape_is_found(tape: Tape) -> None:
    tape.trade(0)
    tape.position(3, 0)
    assert tape.complaints() == "BTCUSDT: the position says #3, the tape ends at #0"


def test_aborted_records_are_not_on_the_tape(tape: Tape) -> None:
    tape.trade(0)
    log = tape.world.kafka.logs[tape.world.topics.trades, 0]
    transaction = Transaction(0)
    log.append([tape.world.kafka.record(None, b"k", b"not even a trade")], transaction)
    transaction.outcome = Outcome.ABORTED
    log.mark(transaction)
    tape.trade(1)
    assert tape.complaints() == ""
