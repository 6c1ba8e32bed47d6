"""One shard's writing side: placed trades in, committed transactions out.

The ring keeps what is not committed. A batch leaves it only when Kafka has it for certain: after
an unknown outcome the position is read back and decides.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import structlog

from k2.errors import ReconcileError, RetryError, StopError
from k2.kafka.encoding import TradeEncoder
from k2.kafka.gap_records import encode_gap
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    Identity,
    ShardRecord,
    SymbolPosition,
    encode_identity,
    encode_position,
)
from k2.kafka.positions import read_shard
from k2.kafka.topics import TopicNames
from k2.kafka.transaction import Record, ShardProducer
from k2.market import Gap, Origin
from k2.observability import metrics
from k2.tape.arbiter import Placed

RING_MAX = 200_000
"""Trades kept while Kafka is away; beyond it frames are not taken in and come back by REST."""

RETRY_DELAY_S = 0.5
DRAIN_DEADLINE_S = 5.0

_log = structlog.get_logger()

Item = Placed | Gap
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What a shard writer needs to know."""

    shard: int
    bootstrap: str
    names: TopicNames
    batch_size: int
    batch_timeout_s: float


class ShardWriter:
    """Commits one shard's ring, batch by batch. All Kafka calls run on one thread of its own."""

    def __init__(self, settings: ShardSettings) -> None:
        """Prepare; nothing is contacted before ``take_over``."""
        self.settings = settings
        self.position: dict[str, SymbolPosition] = {}
        """The last committed position."""
        self._ring: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._drain_until_s = float("inf")
        self._encoder: TradeEncoder | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"shard-{settings.shard}")
        self._producer = ShardProducer(
            bootstrap=settings.bootstrap,
            trades_topic=settings.names.trades,
            shard=settings.shard,
            keep_trying=lambda: time.monotonic() < self._drain_until_s,
        )

    @property
    def pending(self) -> int:
        """Items whose transaction has not committed."""
        return len(self._ring)

    @property
    def full(self) -> bool:
        """Whether the ring takes nothing more for now."""
        return len(self._ring) >= RING_MAX

    async def take_over(self) -> ShardRecord:
        """Fence whoever wrote before, then read what the shard's tape is and where it ends.

        Raises:
            RetryError: If Kafka cannot be reached.
            StopError: If ``.positions`` cannot be understood.
        """
        return await self._run(self._take_over)

    def glimpse(self) -> ShardRecord:
        """Return what the shard says now, fencing nobody (blocking)."""
        return read_shard(
            self.settings.bootstrap,
            positions_topic=self.settings.names.positions,
            shard=self.settings.shard,
            isolation="read_committed",
        )

    async def write_identity(self, identity: Identity, position: dict[str, SymbolPosition]) -> None:
        """Commit the identity, with the position as it stands, in one transaction."""
        records = [
            Record(self.settings.names.positions, IDENTITY_KEY, encode_identity(identity)),
            Record(self.settings.names.positions, POSITION_KEY, encode_position(position)),
        ]
        await self._run(lambda: self._producer.commit(records))
        self.position = dict(position)

    def use(self, encoder: TradeEncoder, position: dict[str, SymbolPosition]) -> None:
        """Start from a position, with this encoder."""
        self._encoder = encoder
        self.position = dict(position)

    def append(self, items: Iterable[Item]) -> None:
        """Queue items, in tape order, for the next transaction."""
        self._ring.extend(items)
        self._arrived.set()

    async def run(self) -> None:
        """Commit until ``close``, then commit what is left and end.

        Raises:
            StopError: If another process became the writer, or the position moved under us.
        """
        label = str(self.settings.shard)
        metrics.shard_writer.labels(label).set(1)
        try:
            while True:
                if not self._ring:
                    if self._closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                    await self._let_batch_grow()
                elif self._closing and time.monotonic() >= self._drain_until_s:
                    return
                await self._commit_once()
        finally:
            metrics.shard_writer.labels(label).set(0)
            # However we got here: a commit that waits for an absent broker waits no longer.
            self._drain_until_s = 0.0
            await self._run(self._producer.destroy)
            self._thread.shutdown(wait=False)

    def close(self) -> None:
        """Take nothing more; ``run`` ends when the ring is empty or the deadline has passed."""
        self._closing = True
        self._drain_until_s = time.monotonic() + DRAIN_DEADLINE_S
        self._arrived.set()

    async def _let_batch_grow(self) -> None:
        deadline_s = time.monotonic() + self.settings.batch_timeout_s
        while not self._closing and len(self._ring) < self.settings.batch_size:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, 0.01))

    async def _commit_once(self) -> None:
        # Not by index: a deque walks to each one.
        batch = list(islice(self._ring, self.settings.batch_size))
        if not batch:
            return
        after = position_after(self.position, batch)
        began_s = time.monotonic()
        try:
            await self._run(lambda: self._commit(batch, after))
        except RetryError as exc:
            self._count_failure("aborted")
            _log.warning("Failed to produce", shard=self.settings.shard, reason=str(exc))
            await asyncio.sleep(RETRY_DELAY_S)
            return
        except ReconcileError as exc:
            self._count_failure("unknown")
            _log.warning("transaction_outcome_unknown", shard=self.settings.shard, reason=str(exc))
            if not await self._reconcile(after):
                await asyncio.sleep(RETRY_DELAY_S)
                return
        self.position = after
        for _ in batch:
            self._ring.popleft()
        metrics.transaction_seconds.observe(time.monotonic() - began_s)
        self._count(batch)

    async def _reconcile(self, after: Mapping[str, SymbolPosition]) -> bool:
        """Say whether the batch landed, by reading the position back."""
        while time.monotonic() < self._drain_until_s:
            try:
                return await self._run(lambda: self._regain(self.position, after)) == after
            except RetryError as exc:
                _log.warning("position_read_waits", shard=self.settings.shard, reason=str(exc))
                await asyncio.sleep(RETRY_DELAY_S)
        return False

    def _regain(self, *expected: Mapping[str, SymbolPosition]) -> Mapping[str, SymbolPosition]:
        """Become the writer again, and return the position, which must be an expected one.

        A look comes first: had another process written meanwhile, fencing it would end a healthy
        writer for one that has lost its place.

        Raises:
            StopError: If the position is none of those.
        """
        for look in (self.glimpse, self._take_over):
            found = look().position or {}
            if found not in expected:
                raise self._moved()
        return found

    def _commit(self, batch: list[Item], after: Mapping[str, SymbolPosition]) -> None:
        if not self._producer.initialised:
            # While we had no producer another process may have written: its position says so.
            self._regain(self.position)
        names = self.settings.names
        records = [self._record(item) for item in batch]
        records.append(Record(names.positions, POSITION_KEY, encode_position(after)))
        self._producer.commit(records)

    def _record(self, item: Item) -> Record:
        if isinstance(item, Gap):
            return Record(
                self.settings.names.gaps,
                item.symbol.encode(),
                encode_gap(item, declared_ts_us=time.time_ns() // 1000),
            )
        if self._encoder is None:
            raise StopError("a shard writes before it has an encoder")
        key = item.trade.symbol.encode()
        return Record(self.settings.names.trades, key, self._encoder.encode(item))

    def _take_over(self) -> ShardRecord:
        self._producer.initialise()
        try:
            return read_shard(
                self.settings.bootstrap,
                positions_topic=self.settings.names.positions,
                shard=self.settings.shard,
            )
        except RetryError:
            # An initialised producer whose position nobody has read must not write.
            self._producer.destroy()
            raise

    def _count(self, batch: list[Item]) -> None:
        now_ns = time.time_ns()
        trades = [item.trade for item in batch if isinstance(item, Placed)]
        for trade in trades:
            if trade.origin is Origin.STREAM:
                metrics.message_latency.observe(max(0, now_ns - trade.recv_ts_ns) / 1e9)
            else:
                metrics.healed.labels(trade.symbol).inc()
        for item in batch:
            if isinstance(item, Gap):
                metrics.gaps_declared.labels(item.symbol, item.gap_class.value).inc()
        metrics.produced.labels(metrics.EXCHANGE, self.settings.names.trades).inc(len(trades))
        metrics.pending_trades.set(len(self._ring))

    def _moved(self) -> StopError:
        return StopError(
            f"shard {self.settings.shard}: the position moved while we were its writer; another "
            "process writes this tape. Look with `k2 positions show`, run one writer"
        )

    def _count_failure(self, error_type: str) -> None:
        topic = self.settings.names.trades
        metrics.produce_errors.labels(metrics.EXCHANGE, topic, error_type).inc()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def position_after(
    before: Mapping[str, SymbolPosition], batch: list[Item]
) -> dict[str, SymbolPosition]:
    """Return the position once ``batch``, in tape order, follows ``before``."""
    after = dict(before)
    for item in batch:
        if isinstance(item, Gap):
            was = after.get(item.symbol)
            after[item.symbol] = SymbolPosition(
                item.ids.last_id + 1, was.last_id if was is not None else None
            )
        else:
            trade = item.trade
            after[trade.symbol] = SymbolPosition(trade.source_id + 1, trade.source_id)
    return after
