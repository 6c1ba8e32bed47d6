"""A shard without Kafka: a log that lands, aborts and loses what the test says, on virtual time."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from k2.binance.rest import UnknownSymbolError
from k2.errors import ReconcileError, RetryError
from k2.ingestion.host import Host
from k2.ingestion.shard import Shard
from k2.ingestion.shard_log import ShardSettings
from k2.ingestion.spill import Spill
from k2.kafka.connection import KafkaConnection
from k2.kafka.position import (
    NOTHING_RECORDED,
    Identity,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
)
from k2.kafka.topics import TopicNames
from k2.kafka.transaction import FencedError, Record
from k2.market import BadRow, Origin, Symbol, Trade
from k2.tape.arbiter import Hold, Placed
from simulation.world.node import EPOCH_NS
from simulation.world.virtual_time import virtual_time
from unit.trades import trade

T = TypeVar("T")

NAMES = TopicNames.of("market.crypto.trades")
IDENTITY = Identity("binance", "simulated", "aggTrade", {}, 1, ["BTCUSDT"])
UPTIME_S = 1000.0
"""A machine's clock is not at 0 when a process starts on it."""


def virtually(story: Coroutine[Any, Any, T]) -> T:
    """Run a story on virtual time: a day passes at once, a deadlock fails at once."""
    with virtual_time() as loop:
        result = loop.run_until_complete(story)
        assert loop.complaints == []
        return result


def virtual_host() -> Host:
    """Return the host whose clock is the running loop's."""

    def now_s() -> float:
        return asyncio.get_running_loop().time()

    return Host(lambda: now_s() + UPTIME_S, lambda: EPOCH_NS + round(now_s() * 1e9), lambda: 0.5)


async def beside(work: Coroutine[Any, Any, Any], story: Coroutine[Any, Any, T]) -> T:
    """Return what a story comes to while some work goes on for ever; the work must not fail."""
    working, telling = asyncio.ensure_future(work), asyncio.ensure_future(story)
    try:
        await asyncio.wait({working, telling}, return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            working.result()
        return await telling
    finally:
        for task in (working, telling):
            task.cancel()
        await asyncio.gather(working, telling, return_exceptions=True)


async def until(condition: Callable[[], bool], *, within_s: float = 1000.0) -> None:
    """Let virtual time pass until something is true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 any condition, not only an event
            await asyncio.sleep(0.01)


class FakeRest:
    """REST with these rows; ``newest`` is how far its database has come."""

    def __init__(self, *, page_rows: int = 1000) -> None:
        self.newest = -1
        self.first = 0
        self.lost: set[int] = set()
        self.bad: dict[int, str] = {}
        self.failures = 0
        self.asked: list[int] = []
        self.asked_newest: list[str] = []
        self.asked_symbols: list[list[str]] = []
        self.trading: set[str] = set()
        self.unlisted: set[str] = set()
        self.away_for_symbols = False
        self.most_at_once = 0
        self.way_s = 0.02
        self._at_once = 0
        self._page_rows = page_rows

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        self.asked.append(from_id)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._answer()
        finally:
            self._at_once -= 1
        if symbol in self.unlisted:
            raise UnknownSymbolError("-1121")
        ids = [i for i in range(max(from_id, self.first), self.newest + 1) if i not in self.lost]
        return [
            BadRow(i, self.bad[i], "why", {"a": i, "s": symbol})
            if i in self.bad
            else trade(i, symbol, Origin.HEALED)
            for i in ids[: self._page_rows]
        ]

    async def newest_id(self, symbol: str) -> int | None:
        self.asked_newest.append(symbol)
        await self._answer()
        return self.newest if self.newest >= 0 else None

    async def symbols(self, names: Sequence[str]) -> dict[str, Symbol]:
        self.asked_symbols.append(list(names))
        await self._answer()
        if self.away_for_symbols:
            raise RetryError("503")
        return {n: Symbol(n, n[:3], n[3:]) for n in names if n not in self.unlisted}

    async def quoted_in(self, quotes: Iterable[str]) -> set[str]:
        await self._answer()
        return {name for name in self.trading if name.endswith(tuple(quotes))}

    async def _answer(self) -> None:
        await asyncio.sleep(self.way_s)
        if self.failures:
            self.failures -= 1
            raise RetryError("503")


class FakeLog:
    """What is committed, what of it was followed, and what the next calls come to.

    ``outcomes`` of commits: lands, aborted, fenced, resumed; unknown: landed, lost, moved.
    """

    def __init__(self) -> None:
        self.unread = ""
        self.committed: ShardRecord = NOTHING_RECORDED
        self.record: ShardRecord = NOTHING_RECORDED
        self.records: list[Record] = []
        self.transactions: list[list[Record]] = []
        self.outcomes: list[str] = []
        self.away = 0
        """How many of the next looks and take-overs find no Kafka."""
        self.away_s = 0.0
        self.calls: list[str] = []
        self.initialised = False
        self.recalls = 0
        self.last_written_ms: int | None = None
        self.trades_tail: tuple[bool, dict[str, int]] = (False, {})

    def stand_at(self, next_id: int, symbol: str = "BTCUSDT") -> None:
        """Let a symbol's tape end before an id, as another writer would have it."""
        position = self.committed.position or ShardPosition({})
        first_id = 0 if next_id else None
        where = SymbolPosition(next_id, next_id - 1 if next_id else None, first_id)
        symbols = {**position.symbols, symbol: where}
        self.say(ShardPosition(symbols, position.open_gaps, position.backfills))

    def say(self, position: ShardPosition) -> None:
        self.committed = ShardRecord(
            self.committed.identity or IDENTITY, position, self.committed.requests
        )

    async def warm(self) -> None:
        self.calls.append("warm")

    async def look(self) -> ShardRecord:
        self.calls.append("look")
        return await self._read()

    async def take_over(self) -> ShardRecord:
        self.calls.append("take_over")
        self.initialised = True
        return await self._read()

    async def read_to_end(self) -> ShardRecord:
        self.calls.append("read_to_end")
        return await self._read()

    async def release(self) -> None:
        self.calls.append("release")
        self.initialised = False

    async def tail(self, _records: int) -> tuple[bool, dict[str, int]]:
        self.calls.append("tail")
        return self.trades_tail

    async def commit(self, records: Callable[[], Iterable[Record]]) -> None:
        assert self.initialised, "only the writer commits"
        made = list(records())
        await asyncio.sleep(0.01)
        outcome = self.outcomes.pop(0) if self.outcomes else "lands"
        if outcome in ("lands", "resumed", "landed"):
            self._land(made)
        if outcome == "moved":
            self.stand_at(5_000)
        if outcome in ("resumed", "landed", "lost", "moved", "fenced"):
            self.initialised = False
        if outcome == "aborted":
            raise RetryError("transaction aborted")
        if outcome == "fenced":
            raise FencedError("another process became the writer")
        if outcome in ("landed", "lost", "moved"):
            raise ReconcileError("commit outcome unknown")

    async def _read(self) -> ShardRecord:
        await asyncio.sleep(0.01)
        if self.away:
            self.away -= 1
            raise RetryError("Kafka did not tell the end")
        self.record = self.committed
        return self.record

    def _land(self, records: list[Record]) -> None:
        self.records += records
        self.transactions.append(records)
        for record in records:
            if record.topic == NAMES.positions:
                self.committed = self.committed.taken_in(record.key, record.value)


class IdEncoder:
    """Encodes a trade as its id and the one before, so that a test can read the topic."""

    def encode(self, placed: Placed) -> bytes:
        return f"{placed.previous_id}>{placed.trade.source_id}".encode()


class ShardWorld:
    """One shard, its log, and what was admitted. Make it inside the running loop."""

    def __init__(
        self, *, batch_size: int = 100, next_id: int | None = 5, spill_max_bytes: int = 0
    ) -> None:
        self.log = FakeLog()
        self.admitted: list[bool] = []
        self.holes: list[str] = []
        self.losses: list[str] = []
        self.shard = Shard(
            ShardSettings(0, KafkaConnection("kafka:9092"), NAMES, batch_size, 0.05, 0.25),
            self.log,  # type: ignore[arg-type] # what a shard uses of ShardLog
            encoder=IdEncoder(),  # type: ignore[arg-type] # what a shard uses of TradeEncoder
            hold=Hold(),
            spill=Spill(Path("nowhere"), max_bytes=spill_max_bytes, open_file=lambda _: BytesIO()),
            host=virtual_host(),
            admit=self._admit,
        )
        self.shard.on_hole = self.holes.append
        self.shard.on_loss = self.losses.append
        if next_id is not None:
            self.log.stand_at(next_id)
        self.log.record = self.log.committed
        self.shard.start()
        self.shard.carry("BTCUSDT")

    def stream(self, first: int, last: int, symbol: str = "BTCUSDT") -> None:
        """Let trades arrive."""
        for source_id in range(first, last + 1):
            self.shard.offer(trade(source_id, symbol))

    def follow(self) -> None:
        """Let the shard hear what is committed."""
        self.log.record = self.log.committed
        self.shard.followed()

    async def write_all(self) -> None:
        """Write until nothing waits."""
        ended = asyncio.Event()

        async def story() -> None:
            await until(lambda: not self.shard.pending and not self.shard._extras)
            ended.set()
            self.shard.wake()
            await writing

        writing = asyncio.create_task(self.shard.write(ended))
        await beside(_of(writing), story())

    @property
    def written(self) -> list[str]:
        """The trades topic: each id with the one before."""
        return [self.text(r) for r in self.log.records if r.topic == NAMES.trades]

    @property
    def ids(self) -> list[int]:
        """The ids in the trades topic."""
        return [int(text.partition(">")[2]) for text in self.written]

    @property
    def repaired(self) -> list[int]:
        """The ids in the repairs topic."""
        texts = [self.text(r) for r in self.log.records if r.topic == NAMES.repairs]
        return [int(text.partition(">")[2]) for text in texts]

    @property
    def stands_at(self) -> tuple[int, int | None, int | None]:
        """Next, last and first id of BTCUSDT, as the shard believes them committed."""
        where = self.shard.told.position.symbols["BTCUSDT"]
        return where.next_id, where.last_id, where.first_id

    @staticmethod
    def text(record: Record) -> str:
        return (record.value or b"").decode()

    async def _admit(self, shard: Shard) -> None:
        self.admitted.append(shard.seen_writing)


async def _of(task: "asyncio.Task[None]") -> None:
    await asyncio.shield(task)
