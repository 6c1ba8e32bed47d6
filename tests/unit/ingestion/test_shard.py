import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from k2.errors import ReconcileError, RetryError, StopError
from k2.ingestion import shard as shard_module
from k2.ingestion.shard import ShardSettings, ShardWriter, position_after
from k2.kafka.encoding import TradeEncoder
from k2.kafka.position import ShardRecord, SymbolPosition
from k2.kafka.topics import TopicNames
from k2.kafka.transaction import Record
from k2.market import Gap, GapClass, IdRange, StreamKind, Symbol, Trade
from k2.tape.arbiter import Placed

TradeOf = Callable[..., Trade]
NAMES = TopicNames.of("market.crypto.trades")


class WaitUntil(Protocol):
    async def __call__(self, condition: Callable[[], bool], *, within_s: float = 10.0) -> None: ...


@dataclass
class Kafka:
    """What is committed, and what the next calls come to."""

    records: list[Record] = field(default_factory=list)
    position: dict[str, SymbolPosition] | None = None
    outcomes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    initialised: int = 0

    def land(self, records: list[Record]) -> None:
        self.records += records
        self.transactions.append(len(records))
        for record in records:
            if record.key == b"position":
                told = json.loads(record.value)["symbols"]
                self.position = {name: SymbolPosition(**where) for name, where in told.items()}

    def read_shard(self, _bootstrap: str, **_more: Any) -> ShardRecord:
        step = self.reads.pop(0) if self.reads else "answers"
        if step == "away":
            raise RetryError("Kafka did not tell the end")
        if step == "moved":
            self.position = {"BTCUSDT": SymbolPosition(5_000, 4_999)}
        return ShardRecord(None, self.position)

    @property
    def ids(self) -> list[str]:
        return [r.value.decode() for r in self.records if r.topic == NAMES.trades]


class FakeShardProducer:
    """A producer whose commits come to what the Kafka's script says."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.initialised = False

    def initialise(self) -> None:
        self._kafka.initialised += 1
        self.initialised = True

    def destroy(self) -> None:
        self.initialised = False

    def commit(self, records: list[Record]) -> None:
        assert self.initialised
        outcome = self._kafka.outcomes.pop(0) if self._kafka.outcomes else "lands"
        if outcome == "aborted":
            raise RetryError("transaction aborted")
        if outcome == "fenced":
            raise StopError("another process became the writer")
        if outcome in ("lands", "unknown, landed", "resumed"):
            self._kafka.land(records)
        if outcome != "lands":
            self.destroy()
        if outcome.startswith("unknown"):
            raise ReconcileError("commit outcome unknown")


class IdEncoder:
    """Encodes a trade as its id, so that a test can read the topic."""

    def encode(self, placed: Placed) -> bytes:
        return str(placed.trade.source_id).encode()


Start = Callable[..., ShardWriter]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(shard_module, "ShardProducer", lambda **_more: FakeShardProducer(kafka))
    monkeypatch.setattr(shard_module, "read_shard", kafka.read_shard)
    monkeypatch.setattr(shard_module, "RETRY_DELAY_S", 0.001)
    return kafka


@pytest.fixture
def start(kafka: Kafka) -> Start:
    def begin(*, batch_size: int = 100) -> ShardWriter:
        writer = ShardWriter(
            ShardSettings(
                shard=0,
                bootstrap="kafka:9092",
                names=NAMES,
                batch_size=batch_size,
                batch_timeout_s=0.0,
            )
        )
        kafka.position = {"BTCUSDT": SymbolPosition(1, None)}
        writer._producer.initialise()
        writer.use(IdEncoder(), dict(kafka.position))  # type: ignore[arg-type]
        return writer

    return begin


def _placed(trade_of: TradeOf, first: int, last: int) -> list[Placed | Gap]:
    return [Placed(trade_of(i), i - 1 or None) for i in range(first, last + 1)]


def _run(writer: ShardWriter, story: Callable[[], Any] | None = None) -> None:
    """Run the writer through a story, then close it and let it drain."""

    async def run() -> None:
        writing = asyncio.create_task(writer.run())
        if story is not None:
            await story()
        writer.close()
        await writing

    asyncio.run(asyncio.wait_for(run(), 20))


def test_the_position_follows_trades_and_declared_gaps(trade_of: TradeOf) -> None:
    before = {"BTCUSDT": SymbolPosition(5, 4), "ADAUSDT": SymbolPosition(9, 8)}
    batch: list[Placed | Gap] = [
        Placed(trade_of(5), 4),
        Gap("BTCUSDT", IdRange(6, 8), GapClass.MISSING, ""),
        Gap("NEWUSDT", IdRange(3, 3), GapClass.VOID, ""),
        Placed(trade_of(70, "BNBUSDT"), None),
    ]
    assert position_after(before, batch) == {
        "ADAUSDT": SymbolPosition(9, 8),
        "BTCUSDT": SymbolPosition(9, 5),
        "NEWUSDT": SymbolPosition(4, None),
        "BNBUSDT": SymbolPosition(71, 70),
    }
    assert before["BTCUSDT"] == SymbolPosition(5, 4)


def test_trades_gaps_and_position_go_in_one_transaction(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start()
    gap = Gap("BTCUSDT", IdRange(2, 3), GapClass.MISSING, "")
    writer.append([Placed(trade_of(1), None), gap, Placed(trade_of(4), 1)])
    _run(writer)
    assert kafka.transactions == [4]
    assert [(r.topic, r.key) for r in kafka.records] == [
        (NAMES.trades, b"BTCUSDT"),
        (NAMES.gaps, b"BTCUSDT"),
        (NAMES.trades, b"BTCUSDT"),
        (NAMES.positions, b"position"),
    ]
    assert kafka.position == writer.position == {"BTCUSDT": SymbolPosition(5, 4)}


def test_close_drains_in_order_and_in_batches(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start(batch_size=10)
    writer.append(_placed(trade_of, 1, 95))
    assert writer.pending == 95
    _run(writer)
    assert kafka.ids == [str(i) for i in range(1, 96)]
    assert kafka.transactions == [11] * 9 + [6]
    assert writer.pending == 0


def test_what_arrives_while_it_runs_is_written_too(
    kafka: Kafka, start: Start, trade_of: TradeOf, wait_until: WaitUntil
) -> None:
    writer = start()

    async def story() -> None:
        for first in (1, 11, 21):
            writer.append(_placed(trade_of, first, first + 9))
            await wait_until(lambda: writer.pending == 0)

    _run(writer, story)
    assert kafka.ids == [str(i) for i in range(1, 31)]


def test_an_aborted_batch_is_written_again_whole(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start(batch_size=10)
    kafka.outcomes = ["lands", "aborted", "aborted"]
    writer.append(_placed(trade_of, 1, 25))
    _run(writer)
    assert kafka.ids == [str(i) for i in range(1, 26)]
    assert kafka.transactions == [11, 11, 6]


def test_an_unknown_outcome_that_landed_is_not_written_again(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start(batch_size=10)
    kafka.outcomes = ["lands", "unknown, landed"]
    writer.append(_placed(trade_of, 1, 25))
    _run(writer)
    assert kafka.ids == [str(i) for i in range(1, 26)]
    assert writer.position == {"BTCUSDT": SymbolPosition(26, 25)}


def test_an_unknown_outcome_that_did_not_land_is_written_again(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start(batch_size=10)
    kafka.outcomes = ["lands", "unknown, lost", "unknown, lost"]
    writer.append(_placed(trade_of, 1, 25))
    _run(writer)
    assert kafka.ids == [str(i) for i in range(1, 26)]


def test_a_writer_that_lost_its_place_does_not_fence_the_one_that_took_it(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start()
    kafka.outcomes = ["unknown, lost"]
    kafka.reads = ["moved"]
    writer.append(_placed(trade_of, 1, 3))
    with pytest.raises(StopError, match="position moved"):
        _run(writer)
    assert kafka.initialised == 1, "only where the test began"
    assert kafka.ids == []


def test_a_position_that_cannot_be_read_is_asked_for_until_it_can(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start()
    kafka.outcomes, kafka.reads = ["unknown, landed"], ["away", "away", "answers"]
    writer.append(_placed(trade_of, 1, 5))
    _run(writer)
    assert kafka.ids == ["1", "2", "3", "4", "5"]
    assert kafka.reads == []


def _stops(writer: ShardWriter) -> None:
    with pytest.raises(StopError):
        _run(writer)


def test_a_position_that_moved_under_an_unknown_outcome_stops(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start()
    kafka.outcomes, kafka.reads = ["unknown, lost"], ["moved"]
    writer.append(_placed(trade_of, 1, 5))
    _stops(writer)
    assert kafka.ids == []


def test_a_fenced_writer_stops(kafka: Kafka, start: Start, trade_of: TradeOf) -> None:
    writer = start()
    kafka.outcomes = ["fenced"]
    writer.append(_placed(trade_of, 1, 5))
    _stops(writer)
    assert writer.pending == 5


def test_after_a_resumed_commit_a_new_producer_goes_on(
    kafka: Kafka, start: Start, trade_of: TradeOf
) -> None:
    writer = start(batch_size=10)
    kafka.outcomes = ["resumed"]
    writer.append(_placed(trade_of, 1, 15))
    _run(writer)
    assert kafka.ids == [str(i) for i in range(1, 16)]
    assert kafka.initialised == 2


@pytest.mark.parametrize("reads", [["moved"], ["away", "moved"]])
def test_another_writer_between_two_producers_of_ours_stops_us(
    kafka: Kafka, start: Start, trade_of: TradeOf, reads: list[str]
) -> None:
    """A resumed commit leaves us without a producer: whoever wrote meanwhile must be seen."""
    writer = start(batch_size=10)
    kafka.outcomes, kafka.reads = ["resumed"], reads
    writer.append(_placed(trade_of, 1, 15))
    _stops(writer)
    assert kafka.ids == [str(i) for i in range(1, 11)]


def test_a_kafka_that_stays_away_ends_the_draining_at_its_deadline(
    kafka: Kafka, start: Start, trade_of: TradeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_module, "DRAIN_DEADLINE_S", 0.05)
    writer = start()
    kafka.outcomes, kafka.reads = ["aborted"] * 10_000, ["away"] * 10_000
    writer.append(_placed(trade_of, 1, 5))
    _run(writer)
    assert writer.pending == 5
    assert kafka.ids == []


def test_the_same_with_an_outcome_nobody_can_tell(
    kafka: Kafka, start: Start, trade_of: TradeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_module, "DRAIN_DEADLINE_S", 0.05)
    writer = start()
    kafka.outcomes, kafka.reads = ["unknown, landed"], ["away"] * 10_000
    writer.append(_placed(trade_of, 1, 5))
    _run(writer)
    assert writer.pending == 5


def test_taking_over_fences_first_and_reads_then(kafka: Kafka, start: Start) -> None:
    writer = start()
    before = kafka.initialised
    found = asyncio.run(writer.take_over())
    assert found.position == {"BTCUSDT": SymbolPosition(1, None)}
    assert kafka.initialised == before + 1
    assert writer.glimpse() == found
    assert kafka.initialised == before + 1


def test_batches_of_real_records_are_committed_in_order(kafka: Kafka, trade_of: TradeOf) -> None:
    writer = ShardWriter(
        ShardSettings(shard=0, bootstrap="k", names=NAMES, batch_size=2, batch_timeout_s=0.0)
    )
    writer._producer.initialise()
    encoder = TradeEncoder(
        schema_id=1,
        kind=StreamKind.AGG_TRADE,
        environment="simulated",
        symbols={"BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT")},
    )
    kafka.position = {}
    writer.use(encoder, {})
    kafka.outcomes = ["aborted"]
    items = _placed(trade_of, 1, 3)
    writer.append(items)
    _run(writer)
    told = [record.value for record in kafka.records if record.topic == NAMES.trades]
    assert told == [encoder.encode(item) for item in items if isinstance(item, Placed)]
    assert kafka.transactions == [2 + 1, 1 + 1], "each with its position"
