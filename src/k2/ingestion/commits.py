"""One batch of a shard in one Kafka transaction: what is in it, and what follows its failure."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog

from k2.errors import ReconcileError, RetryError, StopError
from k2.ingestion.host import Host
from k2.ingestion.ring import Item
from k2.ingestion.shard_log import ShardLog, ShardSettings
from k2.ingestion.supervision import until_it_works
from k2.kafka.encoding import TradeEncoder
from k2.kafka.gap_records import encode_gap
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    Identity,
    ShardPosition,
    ShardRecord,
    encode_identity,
    encode_position,
    position_after,
)
from k2.kafka.refusals import check_position
from k2.kafka.transaction import FencedError, Record
from k2.market import Gap, Origin
from k2.observability import metrics
from k2.tape.arbiter import Placed

RETRY_DELAY_S = 0.5
REFUSED_TAIL_RECORDS = 200
"""Looked at after a transaction that did not end well; a take-over looks at more."""

_log = structlog.get_logger()


class Told(NamedTuple):
    """What a shard's two records say: what it is a tape of, and where it stands."""

    identity: Identity | None
    position: ShardPosition

    @classmethod
    def by(cls, record: ShardRecord) -> "Told":
        """Return what was read; without a position it stands nowhere."""
        return cls(record.identity, record.position or ShardPosition({}))


class Extra(NamedTuple):
    """What goes into a transaction beside the tape: a repair, a backfilled page, a new symbol."""

    records: Callable[[], Iterable[Record]]
    change: Callable[[Told], Told | None]
    """Returns what follows from the present state, or None when this is out of date."""
    done: "asyncio.Future[bool]"
    """True once committed, False if it was out of date."""

    def settle(self, *, landed: bool) -> None:
        """Tell whoever waits what became of it."""
        if not self.done.done():
            self.done.set_result(landed)


class Batch(NamedTuple):
    """What one transaction writes, and the state it leads to."""

    items: Sequence[Item]
    extra: Extra | None
    before: Told
    after: Told
    declared_ts_us: int
    """When its gaps are declared."""


def batch_of(
    items: Sequence[Item], extra: Extra | None, *, before: Told, now_us: int
) -> Batch | None:
    """Return what to commit next; None if the extra is out of date."""
    changed = before if extra is None else extra.change(before)
    if changed is None:
        return None
    position = position_after(changed.position, items, declared_ts_us=now_us)
    return Batch(items, extra, before, changed._replace(position=position), now_us)


class Commits:
    """The transactions of a shard's writer."""

    def __init__(
        self, settings: ShardSettings, log: ShardLog, *, encoder: TradeEncoder, host: Host
    ) -> None:
        """Join a shard's log with what its records look like."""
        self.log = log
        self._settings = settings
        self._encoder = encoder
        self._host = host
        self.record_bytes = 0.0
        """Mean size of the last batch's records."""
        self._latency = metrics.message_latency.labels()
        self._labels = (metrics.EXCHANGE, settings.names.trades)

    def encode(self, placed: Placed) -> bytes:
        """Return the record value of a trade."""
        return self._encoder.encode(placed)

    async def land(self, batch: Batch) -> bool:
        """Commit a batch; say whether it is in the log. If not, nothing of it is.

        Raises:
            FencedError: If another process became the writer.
        """
        began_s, shard = self._host.monotonic_s(), self._settings.shard
        try:
            await self._commit(batch)
        except RetryError as exc:
            self._count_failure("aborted")
            _log.warning("Failed to produce", shard=shard, reason=str(exc))
            await asyncio.sleep(RETRY_DELAY_S)
            metrics.produce_retries.labels(*self._labels, "aborted").inc()
            return False
        except FencedError:
            self._count_failure("fenced")
            raise
        except ReconcileError as exc:
            self._count_failure("unknown")
            _log.warning("transaction_outcome_unknown", shard=shard, reason=str(exc))
            metrics.produce_retries_exceeded.labels(*self._labels, "unknown").inc()
            if await self._regain(batch.before, batch.after) == batch.before:
                metrics.produce_retries.labels(*self._labels, "unknown").inc()
                return False
        took_s = self._host.monotonic_s() - began_s
        metrics.transaction_seconds.observe(took_s)
        self._count(batch.items, took_s)
        return True

    async def _commit(self, batch: Batch) -> None:
        if not self.log.initialised:
            # While we had no producer another process may have written: its position says so.
            await self._regain(batch.before)
        await self.log.commit(lambda: self._records(batch))

    async def _regain(self, *expected: Told) -> Told:
        """Become the writer again, and return the state, which must be an expected one.

        A look comes first: had another process written meanwhile, fencing it would end a healthy
        writer for one that has lost its place.

        Raises:
            FencedError: If the state is none of those: another process writes this shard.
        """
        shard = self._settings.shard
        found = expected[0]
        for ask in (self.log.look, self.log.take_over):
            found = Told.by(
                await until_it_works(f"shard {shard} in Kafka", ask, draw=self._host.draw)
            )
            if found not in expected:
                raise FencedError(f"shard {shard}: the position moved while we were its writer")
        await self._check_tail(found)
        return found

    async def _check_tail(self, found: Told) -> None:
        """Compare the end of the trades with the position: a disk may have lost one of the two.

        Raises:
            FencedError: If they differ; whoever takes over next refuses, and names the repair.
        """
        shard = self._settings.shard
        has_records, tail = await until_it_works(
            f"shard {shard} in Kafka",
            lambda: self.log.tail(REFUSED_TAIL_RECORDS),
            draw=self._host.draw,
        )
        try:
            check_position(found.position, topic_has_records=has_records, tail=tail)
        except StopError as exc:
            raise FencedError(f"shard {shard}: {exc}") from exc

    def _records(self, batch: Batch) -> Iterable[Record]:
        positions, after = self._settings.names.positions, batch.after
        size = 0
        for item in batch.items:
            record = self._record(item, batch.declared_ts_us)
            size += len(record.value or b"")
            yield record
        if batch.items:
            self.record_bytes = size / len(batch.items)
        if batch.extra is not None:
            yield from batch.extra.records()
        if after.identity is not None and after.identity != batch.before.identity:
            yield Record(positions, IDENTITY_KEY, encode_identity(after.identity))
        yield Record(positions, POSITION_KEY, encode_position(after.position))

    def _record(self, item: Item, now_us: int) -> Record:
        names = self._settings.names
        if isinstance(item, Gap):
            return Record(names.gaps, item.symbol.encode(), encode_gap(item, declared_ts_us=now_us))
        return Record(names.trades, item.trade.symbol.encode(), self._encoder.encode(item))

    def _count(self, items: Iterable[Item], took_s: float) -> None:
        now_ns = self._host.wall_ns()
        trades, healed = 0, Counter[str]()
        unclear = set_back_ns = 0
        for item in items:
            if isinstance(item, Gap):
                self._count_gap(item)
                continue
            trades += 1
            trade = item.trade
            if trade.origin is not Origin.STREAM:
                healed[trade.symbol] += 1
            elif now_ns >= trade.recv_ts_ns:
                self._latency.observe((now_ns - trade.recv_ts_ns) / 1e9)
            else:
                unclear += 1
                set_back_ns = max(set_back_ns, trade.recv_ts_ns - now_ns)
        if unclear:
            # One clock, and it ran backwards in between: a 0 would be made up, and below 0 the
            # histogram's sum would fall, which reads as a restart.
            _log.warning("clock_set_back", trades=unclear, at_least_s=set_back_ns / 1e9)
        for symbol, count in healed.items():
            metrics.healed.labels(symbol).inc(count)
        metrics.produced.labels(*self._labels).inc(trades)
        metrics.produce_duration.labels(*self._labels).observe(took_s, trades)

    def _count_gap(self, gap: Gap) -> None:
        metrics.gaps_declared.labels(gap.symbol, gap.gap_class.value).inc()
        metrics.ids_declared.labels(gap.symbol).inc(len(gap.ids))
        severity = metrics.severity(len(gap.ids))
        metrics.sequence_gaps.labels(metrics.EXCHANGE, gap.symbol, severity).inc()

    def _count_failure(self, error_type: str) -> None:
        metrics.produce_errors.labels(*self._labels, error_type).inc()
