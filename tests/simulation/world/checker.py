"""The judge: what the logs hold, read as any consumer would, against what the exchange traded.

Uses nothing of the product but the decoders of its records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from k2.kafka.encoding import SCHEMA_TEXT, decode_record, parse_schema, split_wire
from k2.kafka.topics import TopicNames
from simulation.world.exchange_ledger import Market, Row
from simulation.world.kafka_world import KafkaWorld
from simulation.world.log_reading import (
    committed,
    first_positions,
    from_json,
    last_position,
    last_positions,
    value_of,
    written_s,
)
from simulation.world.world import World

DECLARED_WITHIN_S = 120.0
"""A gap may be written this long after REST was found lacking it: Kafka may have been away."""

_SCHEMA = parse_schema(SCHEMA_TEXT)


class Declared(NamedTuple):
    """One gap record."""

    first_id: int
    last_id: int
    gap_class: str
    at_s: float
    """When it was written, in virtual time."""


@dataclass
class Verdict:
    """What was found. The promise holds if ``violations`` is empty."""

    violations: list[str] = field(default_factory=list)
    trades: dict[str, int] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)
    repaired: int = 0
    """Records of the repairs topic."""
    begins: dict[str, int] = field(default_factory=dict)
    """Where each symbol's capture began, as its first position says."""
    past: int = 0
    """Ids a backfill brought before the first trade that was captured."""
    behind: dict[str, int] = field(default_factory=dict)
    """Trades of the exchange after the tape's end, per symbol; none once all has healed."""

    @property
    def total(self) -> int:
        """Trades on all tapes."""
        return sum(self.trades.values())


def judge(world: World) -> Verdict:
    """Judge every symbol's tape."""
    return judge_logs(world.kafka, world.topics, world.exchange.markets)


def judge_logs(kafka: KafkaWorld, topics: TopicNames, markets: Mapping[str, Market]) -> Verdict:
    """Judge every symbol's tape, from the logs and the ledger alone."""
    verdict = Verdict()
    tapes: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in markets}
    gaps: dict[str, list[Declared]] = {symbol: [] for symbol in markets}
    starts: dict[str, int] = {}
    for partition in range(kafka.partitions_of(topics.trades)):
        for entry in committed(kafka.logs[topics.trades, partition]):
            record = decode_record(split_wire(value_of(entry))[1], _SCHEMA)
            tapes[record["symbol"]].append(record)
        for entry in committed(kafka.logs[topics.gaps, partition]):
            gap = from_json(value_of(entry))
            if gap.get("event", "declared") != "declared":
                continue  # that it was repaired later takes nothing back
            declared = Declared(gap["first_id"], gap["last_id"], gap["class"], written_s(entry))
            gaps[gap["symbol"]].append(declared)
        for symbol, next_id in first_positions(kafka.logs[topics.positions, partition]).items():
            starts.setdefault(symbol, next_id)
    verdict.begins = dict(starts)
    for symbol in markets:
        first = [record["source_sequence"] for record in tapes[symbol][:1]]
        first += [gap.first_id for gap in gaps[symbol]]
        if first:  # a tape may begin with a gap, in one transaction with its start
            verdict.begins.setdefault(symbol, min(first))
    for symbol, market in markets.items():
        _judge_tape(verdict, market, tapes[symbol], gaps[symbol], starts.get(symbol))
        _judge_gaps(verdict, market, gaps[symbol])
    positions = last_positions(kafka, topics)
    repaired = _judge_repairs(verdict, kafka, topics, markets)
    for symbol, ids in repaired.items():
        _judge_past(verdict, symbol, ids, tapes[symbol], gaps[symbol], positions.get(symbol))
    for symbol, where in positions.items():
        _judge_position(verdict, symbol, where, tapes.get(symbol, []), gaps.get(symbol, []))
    _judge_open_gaps(verdict, kafka, topics, gaps, repaired, markets)
    return verdict


def is_caught_up(world: World) -> bool:
    """Say whether every position is past the exchange's newest id: cheap, to be asked often."""
    position = last_positions(world.kafka, world.topics)
    return all(
        market.newest_id is None
        or (market.symbol in position and position[market.symbol]["next_id"] > market.newest_id)
        for market in world.exchange.markets.values()
    )


def backfills(world: World) -> dict[str, int]:
    """Return what of the past is still being fetched: symbol to the first id that is wanted."""
    running: dict[str, int] = {}
    for partition in range(world.kafka.partitions_of(world.topics.positions)):
        position = last_position(world.kafka.logs[world.topics.positions, partition])
        running |= position.get("backfills", {})
    return running


def _judge_tape(
    verdict: Verdict,
    market: Market,
    tape: list[dict[str, Any]],
    gaps: list[Declared],
    start: int | None,
) -> None:
    symbol = market.symbol
    complain = verdict.violations.append
    verdict.trades[symbol] = len(tape)
    verdict.declared[symbol] = sum(gap.last_id - gap.first_id + 1 for gap in gaps)
    declared = {i for gap in gaps for i in range(gap.first_id, gap.last_id + 1)}
    seen: set[int] = set()
    previous_id: int | None = None
    next_id = start if start is not None else (tape[0]["source_sequence"] if tape else None)
    for record in tape:
        source_id = record["source_sequence"]
        if source_id in seen:
            complain(f"{symbol}: {source_id} is on the tape twice")
            continue
        seen.add(source_id)
        if next_id is not None and source_id < next_id:
            complain(f"{symbol}: {source_id} comes after {previous_id}: out of order")
        elif next_id is not None:
            lost = [i for i in range(next_id, source_id) if i not in declared]
            if lost:
                complain(f"{symbol}: {lost[0]}..{lost[-1]} lost ({len(lost)} ids)")
        if source_id in declared:
            complain(f"{symbol}: {source_id} is declared a gap and on the tape")
        if record["previous_id"] != previous_id:
            complain(
                f"{symbol}: {source_id} says {record['previous_id']} is before it, "
                f"the tape says {previous_id}"
            )
        row = market.row(source_id)
        if row is None:
            complain(f"{symbol}: {source_id} was never traded")
        elif difference := _difference(record, row):
            complain(f"{symbol}: {source_id} differs from the exchange: {difference}")
        previous_id, next_id = source_id, source_id + 1
    if next_id is not None:
        newest_id = market.newest_id
        after = range(next_id, (newest_id if newest_id is not None else -1) + 1)
        verdict.behind[symbol] = sum(1 for i in after if i not in declared)


def _judge_gaps(verdict: Verdict, market: Market, gaps: list[Declared]) -> None:
    known: set[int] = set()
    for gap in gaps:
        for source_id in range(gap.first_id, gap.last_id + 1):
            row = market.row(source_id)
            if source_id in known:
                verdict.violations.append(f"{market.symbol}: {source_id} is declared twice")
            known.add(source_id)
            if row is None:
                problem = "was never traded"
            elif gap.gap_class == "void":
                problem = "" if row.void else "is not void"
            elif gap.gap_class == "missing":
                lacked = market.lacked(
                    source_id, from_s=gap.at_s - DECLARED_WITHIN_S, to_s=gap.at_s
                )
                problem = "" if lacked else "is with REST"
            else:
                problem = "is a row anybody can represent"
            if problem:
                verdict.violations.append(
                    f"{market.symbol}: {source_id} is declared {gap.gap_class} but {problem}"
                )


def _judge_repairs(
    verdict: Verdict, kafka: KafkaWorld, topics: TopicNames, markets: Mapping[str, Market]
) -> dict[str, set[int]]:
    """Return what is in the repairs topic: each id once, as the exchange traded it."""
    repaired: dict[str, set[int]] = {symbol: set() for symbol in markets}
    for partition in range(kafka.partitions_of(topics.repairs)):
        for entry in committed(kafka.logs[topics.repairs, partition]):
            record = decode_record(split_wire(value_of(entry))[1], _SCHEMA)
            symbol, source_id = record["symbol"], record["source_sequence"]
            row = markets[symbol].row(source_id)
            if source_id in repaired[symbol]:
                verdict.violations.append(f"{symbol}: {source_id} is repaired twice")
            repaired[symbol].add(source_id)
            if row is None or _difference(record, row):
                verdict.violations.append(f"{symbol}: the repair of {source_id} differs")
            if record["previous_id"] not in (None, source_id - 1):
                verdict.violations.append(f"{symbol}: the repair of {source_id} follows wrongly")
    verdict.repaired = sum(len(ids) for ids in repaired.values())
    return repaired


def _judge_past(
    verdict: Verdict,
    symbol: str,
    repaired: set[int],
    tape: list[dict[str, Any]],
    gaps: list[Declared],
    where: Mapping[str, Any] | None,
) -> None:
    """Whatever is repaired was declared, or is of the past: that is complete from its first id."""
    declared = {i for gap in gaps for i in range(gap.first_id, gap.last_id + 1)}
    past = range(0)
    if where is not None and where.get("first_id") is not None:
        end = tape[0]["source_sequence"] if tape else where["next_id"]
        past = range(where["first_id"], end)
    for source_id in sorted(repaired - declared):
        if source_id not in past:
            verdict.violations.append(f"{symbol}: {source_id} is repaired, not declared")
    lost = [i for i in past if i not in repaired and i not in declared]
    if lost:
        verdict.violations.append(f"{symbol}: {lost[0]}..{lost[-1]} of the past lost ({len(lost)})")
    verdict.past += len(past)


def _judge_position(
    verdict: Verdict,
    symbol: str,
    where: Mapping[str, Any],
    tape: list[dict[str, Any]],
    gaps: list[Declared],
) -> None:
    """The last position of each shard says where its tapes end."""
    if not tape:
        return
    ends = [tape[-1]["source_sequence"], *(gap.last_id for gap in gaps)]
    if where["next_id"] != max(ends) + 1:
        verdict.violations.append(
            f"{symbol}: the position says {where['next_id']}, the tape ends at {max(ends)}"
        )


def _is_void(market: Market, source_id: int) -> bool:
    row = market.row(source_id)
    return row is not None and row.void


def _judge_open_gaps(
    verdict: Verdict,
    kafka: KafkaWorld,
    topics: TopicNames,
    gaps: Mapping[str, list[Declared]],
    repaired: Mapping[str, set[int]],
    markets: Mapping[str, Market],
) -> None:
    """What is declared missing and not repaired is tracked, and nothing else.

    A row that came late and is void is looked for no more: nothing better will come.
    """
    tracked: dict[str, set[int]] = {symbol: set() for symbol in gaps}
    for partition in range(kafka.partitions_of(topics.positions)):
        for gap in last_position(kafka.logs[topics.positions, partition]).get("open_gaps", []):
            ids = gap["ids"]
            tracked[gap["symbol"]] |= set(range(ids["first_id"], ids["last_id"] + 1))
    for symbol, declared in gaps.items():
        missing = {
            i
            for gap in declared
            if gap.gap_class == "missing"
            for i in range(gap.first_id, gap.last_id + 1)
        }
        differing = tracked[symbol] ^ (missing - repaired[symbol])
        odd = sorted(
            i for i in differing if i in tracked[symbol] or not _is_void(markets[symbol], i)
        )
        if odd:
            verdict.violations.append(f"{symbol}: open gaps are wrong about {odd[:5]}")


def _difference(record: Mapping[str, Any], row: Row) -> str:
    if row.void:
        return "the exchange voided it"
    told = {
        "price": (record["price"], Decimal(row.price)),
        "quantity": (record["quantity"], Decimal(row.quantity)),
        "first_trade_id": (record["first_trade_id"], row.first_fill),
        "last_trade_id": (record["last_trade_id"], row.last_fill),
        "trade_ts_us": (_microseconds(record["trade_ts_us"]), row.traded_us),
        "taker_side": (record["taker_side"], "SELL" if row.buyer_is_maker else "BUY"),
    }
    return ", ".join(
        f"{name} {ours} not {its}" for name, (ours, its) in told.items() if ours != its
    )


def _microseconds(value: Any) -> int:
    return value if isinstance(value, int) else round(value.timestamp() * 1e6)
