"""The shipped code with one guard taken away at a time: then some seed must show it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from k2.binance.leg import Leg, LegAction
from k2.ingestion import ring
from k2.ingestion.active_set import ActiveSet
from k2.ingestion.admission import recorded_symbols
from k2.ingestion.commits import Commits, Told
from k2.ingestion.shard import Shard
from k2.ingestion.shard_log import ShardLog
from k2.kafka.position import POSITION_KEY
from k2.kafka.shard_reader import EndAsker, ShardFollower
from k2.kafka.transaction import FencedError, Record, ShardProducer
from k2.market import Trade
from k2.tape.arbiter import Placed, SymbolTape
from simulation.world.node import current_node

Mutation = Callable[[], AbstractContextManager[object]]


def nobody_is_fenced() -> AbstractContextManager[object]:
    """Every instance has a transactional id of its own."""
    return patch(
        "k2.kafka.transaction.transactional_id",
        lambda topic, shard: f"{topic}-{shard}-{current_node().name}",
    )


def position_apart() -> AbstractContextManager[object]:
    """The position is committed after the trades, in a transaction of its own."""
    shipped = ShardLog.commit

    async def commit(self: ShardLog, records: Callable[[], Iterable[Record]]) -> None:
        made = list(records())
        trades = [record for record in made if record.key != POSITION_KEY]
        if trades:
            await shipped(self, lambda: trades)
        if self.initialised:
            await shipped(self, lambda: [r for r in made if r.key == POSITION_KEY])

    return patch.object(ShardLog, "commit", commit)


def unknown_taken_for_aborted() -> AbstractContextManager[object]:
    """After an unknown outcome the position is not looked at: nothing happened, it is said."""

    async def regain(self: Commits, *expected: Told) -> Told:
        await self.log.take_over()
        return expected[0]

    return patch.object(Commits, "_regain", regain)


def producer_kept_after_resumed_commit() -> AbstractContextManager[object]:
    """A producer whose commit took a second call gets a next transaction."""
    shipped = ShardProducer._resolve

    def resolve(self: ShardProducer, producer: Any) -> bool:
        shipped(self, producer)
        return False

    return patch.object(ShardProducer, "_resolve", resolve)


def stable_offset_for_watermark() -> AbstractContextManager[object]:
    """Whoever takes over reads up to the last stable offset."""
    return patch.object(EndAsker, "high_watermark", EndAsker.last_stable_offset)


def copies_are_placed() -> AbstractContextManager[object]:
    """The second copy of a trade is put on the tape as well."""
    shipped = SymbolTape.offer

    def offer(self: SymbolTape, trade: Trade) -> list[Placed]:
        if self.next_id is not None and trade.source_id == self.next_id - 1:
            return [Placed(trade, self.previous_id)]
        return shipped(self, trade)

    return patch.object(SymbolTape, "offer", offer)


def holes_are_passed_over() -> AbstractContextManager[object]:
    """A trade above the next id is put on the tape at once."""
    shipped = SymbolTape.offer

    def offer(self: SymbolTape, trade: Trade) -> list[Placed]:
        if self.next_id is not None and trade.source_id > self.next_id:
            self.next_id = trade.source_id
        return shipped(self, trade)

    return patch.object(SymbolTape, "offer", offer)


def full_ring_drops_its_oldest() -> AbstractContextManager[object]:
    """A writer whose ring is full goes on taking trades in, as a standby does."""
    shipped = Shard.append

    def append(self: Shard, items: Iterable[Any]) -> None:
        shipped(self, items)
        while len(self._ring) > ring.RING_MAX:
            self._ring.popleft()

    return patch.multiple(Shard, append=append, full=property(lambda _: False))


def full_hold_drops_for_good() -> AbstractContextManager[object]:
    """What a full hold lets go of is counted as kept: nobody looks for it."""
    shipped = SymbolTape.offer

    def offer(self: SymbolTape, trade: Trade) -> list[Placed]:
        before = self.released
        placed = shipped(self, trade)
        if self.released > before and self.next_id is not None:
            self.next_id += 1
        return placed

    return patch.object(SymbolTape, "offer", offer)


def ring_written_as_it_is() -> AbstractContextManager[object]:
    """A successor goes on with its ring, whatever its predecessor has written of it."""

    def go_on(self: Shard) -> None:
        for symbol, tape in self.tapes.items():
            where = self.told.position.symbols.get(symbol)
            if where is None:
                tape.unknown()
            elif not any(isinstance(i, Placed) and i.trade.symbol == symbol for i in self._ring):
                self._ring.extend(tape.go_to(where.next_id, where.last_id))

    return patch.object(Shard, "_go_on", go_on)


def no_look_before_regaining() -> AbstractContextManager[object]:
    """A writer that has to initialise anew fences whoever writes now, then reads the position."""

    async def regain(self: Commits, *expected: Told) -> Told:
        record = await self.log.take_over()
        found = Told.by(record)
        if found not in expected:
            raise FencedError("the position moved")
        return found

    return patch.object(Commits, "_regain", regain)


def half_a_reading_is_believed() -> AbstractContextManager[object]:
    """While positions are read anew, what was read of them so far counts."""
    told = property(lambda follower: follower._intake.record)

    def recorded(self: ActiveSet) -> set[str]:
        return recorded_symbols(terms.shard.log.record for terms in self._terms)

    both = ExitStack()
    both.enter_context(patch.object(ShardFollower, "record", told))
    both.enter_context(patch.object(ActiveSet, "recorded", recorded))
    return both


# Those that lose nothing, as REST has the rows: they cost a pause, or REST's weight.


def ring_dropped_at_take_over() -> AbstractContextManager[object]:
    """A successor begins with an empty ring."""
    shipped = Shard._go_on

    def go_on(self: Shard) -> None:
        self._ring.clear()
        shipped(self)

    return patch.object(Shard, "_go_on", go_on)


def standby_trims_all() -> AbstractContextManager[object]:
    """A standby drops its whole ring with every commit of the writer, covered or not."""
    return patch("k2.ingestion.ring._covered", lambda _item, _symbols: True)


def rotation_closes_first() -> AbstractContextManager[object]:
    """A connection that is due is closed before its successor is opened."""
    shipped = Leg.tick

    def tick(self: Leg, now_s: float) -> list[LegAction]:
        if self.current is not None and now_s >= self._rotate_at_s:
            old, self._rotate_at_s = self.current, float("inf")
            return [(old, action) for action in old.close(self._rotate_reason, now_s)]
        return shipped(self, now_s)

    return patch.object(Leg, "tick", tick)


def hold_without_bound() -> AbstractContextManager[object]:
    """Trades are held back however many there are."""
    shipped = SymbolTape.offer

    def offer(self: SymbolTape, trade: Trade) -> list[Placed]:
        self._hold.limit = 10**9
        return shipped(self, trade)

    return patch.object(SymbolTape, "offer", offer)
