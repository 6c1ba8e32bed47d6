"""The independent judge: the topic as anybody may read it, against the exchange's ledger.

Nothing of the product's own decoding, positions or proof is used.
"""

import io
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from k2.market import StreamKind
from k2.simulator import Ledger, TapeRow

READ_DEADLINE_S = 60.0
PAGE_ROWS = 10_000
LATE_S = 1.0
"""A trade written later than this after it happened is not live."""


class Written(NamedTuple):
    """One record of the tape."""

    produced_s: float
    traded_s: float
    partition: int
    source_id: int
    previous_id: int | None
    healed: bool
    told: tuple[object, ...]


@dataclass
class Tape:
    """Everything a topic prefix holds, committed records only."""

    trades: dict[str, list[Written]] = field(default_factory=lambda: defaultdict(list))
    declared: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    repaired: dict[str, list[Written]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Verdict:
    """What the comparison came to."""

    records: int = 0
    healed: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    different: int = 0
    declared: int = 0
    repaired: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.doubled or self.out_of_order or self.different)


def read_tape(bootstrap: str, prefix: str) -> Tape:
    """Read the trades, what was declared and what was repaired."""
    tape = Tape()
    for message in _messages(bootstrap, f"{prefix}.binance"):
        symbol, written = _written(message)
        tape.trades[symbol].append(written)
    for message in _messages(bootstrap, f"{prefix}.binance.repairs"):
        symbol, written = _written(message)
        tape.repaired[symbol].append(written)
    for message in _messages(bootstrap, f"{prefix}.binance.gaps"):
        gap = json.loads(message.value() or b"{}")
        if gap.get("event", "declared") == "declared":
            ids = range(gap["first_id"], gap["last_id"] + 1)
            tape.declared[gap["symbol"]] |= set(ids)
    return tape


def judge(
    tape: Tape, data_dir: Path, newest: Mapping[str, int], *, fault_began_s: float
) -> Verdict:
    """Compare with the ledger, symbol by symbol, from the tape's first id up to ``newest``.

    Trades that REST brought are counted from the beginning of the fault on.
    """
    verdict = Verdict(
        records=sum(map(len, tape.trades.values())),
        healed=sum(
            one.healed and one.produced_s >= fault_began_s
            for written in tape.trades.values()
            for one in written
        ),
        declared=sum(map(len, tape.declared.values())),
        repaired=sum(map(len, tape.repaired.values())),
    )
    with Ledger.read(data_dir) as ledger:
        for symbol, newest_id in newest.items():
            _judge_symbol(verdict, tape, symbol, newest_id, ledger)
    return verdict


def worst_pause_s(tape: Tape, *, start_s: float, end_s: float) -> float:
    """Return the longest time without a record, of any partition that ever had one."""
    worst = 0.0
    for stamps in _stamps(tape).values():
        during = [start_s, *(stamp for stamp in stamps if start_s < stamp < end_s), end_s]
        worst = max(worst, *(b - a for a, b in pairwise(during)))
    return worst


def reached_s(tape: Tape, ids: Mapping[str, int]) -> float:
    """Return when the tape held all of these ids, or later ones."""
    return max(
        (
            min((w.produced_s for w in tape.trades[symbol] if w.source_id >= wanted), default=9e9)
            for symbol, wanted in ids.items()
        ),
        default=0.0,
    )


def last_late_s(tape: Tape) -> float:
    """Return when the last trade was written that was late: from then on the tape is live."""
    return max(
        (
            one.produced_s
            for written in tape.trades.values()
            for one in written
            if one.produced_s - one.traded_s > LATE_S
        ),
        default=0.0,
    )


def _stamps(tape: Tape) -> Mapping[int, list[float]]:
    by_partition: dict[int, set[float]] = defaultdict(set)
    for written in tape.trades.values():
        for one in written:
            by_partition[one.partition].add(one.produced_s)
    return {partition: sorted(stamps) for partition, stamps in by_partition.items()}


def _judge_symbol(
    verdict: Verdict, tape: Tape, symbol: str, newest_id: int, ledger: Ledger
) -> None:
    written, declared = tape.trades.get(symbol, []), tape.declared.get(symbol, set())
    if not written:
        verdict.lost += 1
        verdict.examples.append(f"{symbol}: nothing was written, the exchange is at {newest_id}")
        return
    verdict.out_of_order += sum(b.source_id < a.source_id for a, b in pairwise(written))
    verdict.out_of_order += sum(b.previous_id != a.source_id for a, b in pairwise(written))
    by_id: dict[int, Written] = {one.source_id: one for one in written}
    verdict.doubled += len(written) - len(by_id)
    verdict.doubled += len(declared & by_id.keys())
    for one in tape.repaired.get(symbol, []):
        verdict.doubled += one.source_id in by_id
        by_id[one.source_id] = one
    first_id = min(by_id.keys() | declared)
    for row in _published(ledger, symbol, first_id, newest_id):
        found = by_id.pop(row.row_id, None)
        if found is None:
            if row.row_id not in declared:
                verdict.lost += 1
                _say(verdict, f"{symbol}: {row.row_id} was lost")
        elif found.told != _told(row):
            verdict.different += 1
            _say(verdict, f"{symbol}: {row.row_id} is {found.told}, not {_told(row)}")
    for source_id in by_id:  # the exchange never published these
        verdict.different += 1
        _say(verdict, f"{symbol}: {source_id} was never published")


def _say(verdict: Verdict, text: str) -> None:
    if len(verdict.examples) < 5:
        verdict.examples.append(text)


def _published(ledger: Ledger, symbol: str, first_id: int, last_id: int) -> Iterator[TapeRow]:
    while first_id <= last_id:
        rows = ledger.rows(symbol, StreamKind.AGG_TRADE, first_id, PAGE_ROWS, last_id=last_id)
        if not rows:
            return
        yield from rows
        first_id = rows[-1].row_id + 1


def _told(row: TapeRow) -> tuple[object, ...]:
    return (
        Decimal(row.price),
        Decimal(row.quantity),
        row.first_trade_id,
        row.last_trade_id,
        "SELL" if row.buyer_is_maker else "BUY",
        row.trade_ts_us // 1000,
    )


def _written(message: Message) -> tuple[str, Written]:
    record = fastavro.schemaless_reader(io.BytesIO((message.value() or b"")[5:]), _SCHEMA, None)
    assert isinstance(record, dict)
    told = (
        record["price"],
        record["quantity"],
        record["first_trade_id"],
        record["last_trade_id"],
        record["taker_side"],
        record["trade_ts_us"] // 1000,
    )
    return record["symbol"], Written(
        produced_s=message.timestamp()[1] / 1000,
        traded_s=record["trade_ts_us"] / 1e6,
        partition=message.partition() or 0,
        source_id=record["source_sequence"],
        previous_id=record["previous_id"],
        healed=record["origin"] == "HEALED",
        told=told,
    )


def _messages(bootstrap: str, topic: str) -> Iterator[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "faults",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, partition, 0)])
            ended, deadline_s = False, time.monotonic() + READ_DEADLINE_S
            while not ended:
                # ``consume`` waits until it has them all: a short wait, and a deadline of our own.
                messages = consumer.consume(1000, 0.1)
                assert messages or time.monotonic() < deadline_s, f"{topic}: no end in sight"
                for message in messages:
                    deadline_s = time.monotonic() + READ_DEADLINE_S
                    problem = message.error()
                    if problem is None:
                        yield message
                    else:
                        assert problem.code() == KafkaError._PARTITION_EOF, problem
                        ended = True
    finally:
        consumer.close()


def _schema() -> Any:
    path = Path(__file__).parents[2] / "src" / "k2" / "kafka" / "trade_v2.avsc"
    plain = json.loads(path.read_text(encoding="utf-8"), object_hook=_without_timestamps)
    return fastavro.parse_schema(plain)


def _without_timestamps(value: dict[str, Any]) -> dict[str, Any]:
    """Times are compared as numbers."""
    if value.get("logicalType") == "timestamp-micros":
        return {"type": value["type"]}
    return value


_SCHEMA = _schema()
