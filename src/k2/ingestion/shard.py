"""One shard: its tapes and its ring, hot while standing by, committed while writing.

Whoever may write it or not, a process puts every trade on the shard's tapes. The ring keeps what
the tape has placed and the log does not have yet: the writer commits from it, a standby drops from
it what the writer has committed, and a successor goes on with exactly what is left.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from itertools import islice

import msgspec
import structlog

from k2.ingestion.commits import Commits, Extra, Told, batch_of
from k2.ingestion.host import Host
from k2.ingestion.own_past import OwnPast
from k2.ingestion.ring import Item, Ring, symbol_of
from k2.ingestion.shard_log import ShardLog, ShardSettings
from k2.ingestion.spill import Spill
from k2.ingestion.supervision import until_it_works
from k2.kafka.encoding import TradeEncoder
from k2.kafka.position import (
    NEVER_TRADED,
    ShardPosition,
    position_after,
)
from k2.kafka.transaction import Record
from k2.market import Trade
from k2.observability import metrics
from k2.tape.account import Account
from k2.tape.arbiter import Hold, Placed, SymbolTape

UNSPILL_AT_ONCE = 1_000

_log = structlog.get_logger()


class Role(Enum):
    """What a process is to a shard."""

    STANDBY = "standby"
    TAKING_OVER = "taking_over"
    WRITER = "writer"


class Offer(Enum):
    """What became of a trade that was offered."""

    FIRST = "first"
    """The first copy: on the tape, or held back for its turn."""
    COPY = "copy"
    LET_GO = "let_go"
    """There was no room: it comes back by REST."""


class Shard:
    """One partition's tapes, ring and role. One event loop, no locks."""

    def __init__(
        self,
        settings: ShardSettings,
        log: ShardLog,
        *,
        encoder: TradeEncoder,
        hold: Hold,
        spill: Spill,
        host: Host,
        admit: Callable[["Shard"], Awaitable[None]],
    ) -> None:
        """Prepare. ``admit`` refuses (``StopError``) what must not be written on."""
        self.settings = settings
        self.role = Role.STANDBY
        self.tapes: dict[str, SymbolTape] = {}
        self.told = Told(None, ShardPosition({}))
        """The last committed state, by us as the writer, as followed while standing by."""
        self.seen_writing = False
        """Whether another process was seen to write since we last did, or started."""
        self.log = log
        self.takeovers = 0
        self.last_takeover_s = 0.0
        """From the lease to the first possible commit of our last term."""
        self.last_pause_s = 0.0
        """From the last commit before our term, by its writer's clock, to our first one."""
        self.heard = 0
        """Trades of the streams that were put to a tape."""
        self.turned_away = 0
        """Trades of the streams that a full ring kept from theirs."""
        self.took_over_ns = 0
        self.followed_s = 0.0
        """When another process was last seen to write."""
        self._resumes_ns: int | None = None
        self.last_commit_s = 0.0
        self.waits_since_s: float | None = None
        """Since when the writer has had something to commit, without a commit; None: nothing."""
        self._own_past = OwnPast()
        self.on_hole: Callable[[str], None] = _nobody
        """Told of each symbol whose trades wait for missing ids."""
        self.on_loss: Callable[[str], None] = _nobody
        """Told of each symbol a trade of which was not taken in."""
        self.on_identity: Callable[[], None] = _nobody
        """Told when the writer has recorded another active set."""
        self.news = asyncio.Event()
        """Set whenever the log has told something."""
        self._host = host
        self._hold = hold
        self._spill = spill
        self._commits = Commits(settings, log, encoder=encoder, host=host)
        self._admit = admit
        self._ring = Ring(rings=settings.shards)
        self._gone = Account()
        """Of tapes carried no more."""
        self._extras: deque[Extra] = deque()
        self._arrived = asyncio.Event()

    # The tape.

    @property
    def pending(self) -> int:
        """Items of the ring: not committed by us, or not yet seen committed by the writer."""
        return len(self._ring)

    @property
    def full(self) -> bool:
        """Whether the ring takes nothing more for now."""
        return self._ring.full

    @property
    def account(self) -> Account:
        """What became of every trade offered to the tapes, from the streams or elsewhere."""
        account = msgspec.structs.replace(self._gone)
        for tape in self.tapes.values():
            account.add(tape)
        return account

    @property
    def ring(self) -> Ring:
        """What waits, to be looked at."""
        return self._ring

    @property
    def pending_bytes(self) -> int:
        """About how large the records of what waits will be."""
        return round(len(self._ring) * self._commits.record_bytes)

    def carry(self, symbol: str) -> SymbolTape:
        """Carry a symbol from now on; its tape goes on after its position and what waits here."""
        told = self.told.position
        waiting = self._ring.waiting(symbol, told.symbols)  # of a time when it was carried before
        where = position_after(told, waiting, declared_ts_us=0).stands(symbol)
        tape = SymbolTape(
            symbol,
            next_id=where.next_id if where else None,
            previous_id=where.last_id if where else None,
            hold=self._hold,
        )
        self.tapes[symbol] = tape
        return tape

    def drop(self, symbol: str) -> None:
        """Carry a symbol no more; what is in a writer's ring is still written."""
        tape = self.tapes.pop(symbol)
        tape.let_go()
        self._gone.add(tape)
        self._spill.forget(symbol)
        if self.role is Role.STANDBY:
            self._ring.keep(lambda item: symbol_of(item) != symbol)

    def offer(self, trade: Trade) -> Offer:
        """Put a trade on its symbol's tape."""
        tape = self.tapes[trade.symbol]
        if self.full and self.role is Role.WRITER:
            self.turned_away += 1
            self.on_loss(trade.symbol)
            return Offer.LET_GO
        offered, duplicates, released = tape.offered, tape.duplicates, tape.released
        placed = tape.offer(trade)
        self.heard += tape.offered - offered  # by the tape's own word
        if placed:
            self.append(placed)
            return Offer.FIRST
        if tape.duplicates > duplicates:
            return Offer.COPY
        if tape.released > released:
            self.on_loss(trade.symbol)  # nothing is held that would show the hole
            if self._spill.holds(trade):
                return Offer.COPY
            return Offer.FIRST if self._spill.put(trade) else Offer.LET_GO
        self.on_hole(trade.symbol)
        return Offer.FIRST

    def spilled(self, symbol: str) -> int:
        """Return how many trades of a symbol wait in the spill file."""
        return self._spill.count(symbol)

    def unspill(self, symbol: str) -> bool:
        """Put spilled trades back on a tape whose hole is closed; say whether there were any."""
        tape = self.tapes[symbol]
        spilled = self._spill.count(symbol)
        if tape.hole is not None or self.full or not spilled:
            return False
        trades = self._spill.take(symbol, UNSPILL_AT_ONCE)
        for trade in trades:
            self.append(tape.offer(trade))
        if self._spill.count(symbol) + len(trades) < spilled:
            self.on_loss(symbol)  # the disk did not give it back
        return True

    def append(self, items: Iterable[Item]) -> None:
        """Queue items, in tape order, for the next transaction."""
        self._ring.put(items)
        if self.role is Role.WRITER:
            self._something_waits()
        else:
            self._ring.let_go_of_oldest()  # what a successor then lacks comes by REST

    # Standing by.

    def start(self) -> None:
        """Stand where the log, as read so far, ends."""
        self.seen_writing = False  # what was read until now is the past
        self._learn()

    def followed(self) -> None:
        """The log has told something new: a standby keeps up with the writer."""
        self.news.set()
        if self.role is not Role.STANDBY:
            return
        followed = Told.by(self.log.record)
        if self._own_past.holds(followed.position, self._host.monotonic_s()):
            return
        before, self.told = self.told, followed
        if before.position.symbols and before.position != self.told.position:
            self.seen_writing = True
            self.followed_s = self._host.monotonic_s()
        if before.identity != self.told.identity:
            self.on_identity()
        for symbol, where in self.told.position.symbols.items():
            tape = self.tapes.get(symbol) if where != NEVER_TRADED else None
            if tape is not None and (tape.next_id is None or tape.next_id < where.next_id):
                self.append(tape.go_to(where.next_id, where.last_id))
            self._spill.forget_written(symbol, where.next_id)
        self._ring.drop_written(self.told.position.symbols, carried=self.tapes)

    # Writing.

    async def take_over(self) -> None:
        """Become the writer: fence, read where the tape stands, go on from there.

        Raises:
            FencedError: If a successor was faster.
            StopError: If writing on could corrupt the tape.
        """
        began_s = self._host.monotonic_s()
        self.role = Role.TAKING_OVER
        what = f"shard {self.settings.shard} in Kafka"
        await until_it_works(what, self.log.take_over, draw=self._host.draw)
        self._own_past.end()
        self._learn()
        await self._admit(self)
        self._go_on()
        self.role = Role.WRITER
        self.waits_since_s = self._host.monotonic_s() if self._ring else None
        self.takeovers += 1
        self.took_over_ns = self._host.wall_ns()
        self.last_takeover_s = self._host.monotonic_s() - began_s
        # The log's own last word, not when we heard it: Kafka itself may have stood still.
        written_ms = self.log.last_written_ms
        self._resumes_ns = self.took_over_ns if written_ms is None else written_ms * 10**6
        self._arrived.set()

    def do(
        self, records: Callable[[], Iterable[Record]], change: Callable[[Told], Told | None]
    ) -> "asyncio.Future[bool]":
        """Have something else committed beside the tape; the future tells when it was."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._extras.append(Extra(records, change, done))
        self._something_waits()
        return done

    async def write(self, until: asyncio.Event) -> None:
        """Commit until ``until`` is set, then what is there by then, and end.

        Raises:
            FencedError: If another process became the writer.
        """
        while not until.is_set():
            if not self._ring and not self._extras:
                self._arrived.clear()
                await self._arrived.wait()
                await self._let_batch_grow(until)
            await self._commit_once()
        left = len(self._ring)
        while left > 0 and self._ring:
            left -= await self._commit_once()

    def encode(self, placed: Placed) -> bytes:
        """Return the record value of a trade."""
        return self._commits.encode(placed)

    def wake(self) -> None:
        """Have ``write`` look again."""
        self._arrived.set()

    def stop_writing(self) -> None:
        """Follow the log from now on, which may yet have to tell what we wrote."""
        self.role = Role.STANDBY
        self.waits_since_s = None
        self._own_past.begin(self.told.position, self._host.monotonic_s())

    async def step_down(self) -> None:
        """Write no more; stay hot."""
        if self.role is Role.WRITER:
            self.stop_writing()
        self.role = Role.STANDBY
        self.seen_writing = False
        for extra in self._extras:
            extra.done.cancel()
        self._extras.clear()
        await self.log.release()
        self._ring.keep(lambda item: isinstance(item, Placed))
        self.followed()

    # How.

    def _something_waits(self) -> None:
        if self.waits_since_s is None:
            self.waits_since_s = self._host.monotonic_s()
        self._arrived.set()

    def _learn(self) -> None:
        self.told = Told.by(self.log.record)

    def _go_on(self) -> None:
        """Let every tape stand where the log ends, and put our own trades on it again."""
        ring = self._ring.empty()
        for symbol, tape in self.tapes.items():
            where = self.told.position.stands(symbol)
            if where is None:
                tape.unknown()
            else:
                self._ring.put(tape.go_to(where.next_id, where.last_id))
        for item in ring:
            if isinstance(item, Placed) and item.trade.symbol in self.tapes:
                self._ring.put(self.tapes[item.trade.symbol].offer(item.trade))

    async def _let_batch_grow(self, until: asyncio.Event) -> None:
        deadline_s = self._host.monotonic_s() + self.settings.batch_timeout_s
        while not until.is_set() and len(self._ring) < self.settings.batch_size:
            left_s = deadline_s - self._host.monotonic_s()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, self.settings.batch_timeout_s / 4))

    async def _commit_once(self) -> int:
        """Commit a batch; return how many items of the ring that was."""
        # Not by index: a deque walks to each one.
        items = list(islice(self._ring, self.settings.batch_size))
        extra = self._extras[0] if self._extras else None
        if not items and extra is None:
            return 0
        batch = batch_of(items, extra, before=self.told, now_us=self._host.wall_ns() // 1000)
        if batch is None:
            self._extras.popleft().settle(landed=False)
            if not self._ring and not self._extras:
                self.waits_since_s = None
            return 0
        if not await self._commits.land(batch):
            return 0
        self.told = batch.after
        self._ring.landed(len(items))
        if extra is not None:
            self._extras.popleft()
            extra.settle(landed=True)
        self.last_commit_s = self._host.monotonic_s()
        self.waits_since_s = self.last_commit_s if self._ring or self._extras else None
        if self._resumes_ns is not None:
            self.last_pause_s = max(0.0, (self._host.wall_ns() - self._resumes_ns) / 1e9)
            self._resumes_ns = None
            metrics.takeover_seconds.labels(str(self.settings.shard)).observe(self.last_pause_s)
            _log.info(
                "tape_resumed", shard=self.settings.shard, pause_s=round(self.last_pause_s, 3)
            )
        return len(items)


def _nobody(*_symbol: str) -> None:
    """Nobody to tell: a standby's holes cost no REST."""
