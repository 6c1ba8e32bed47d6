"""What only a shard's writer does: heal, repair, fill the past, watch over the quiet."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import msgspec

from k2.ingestion.backfill import Backfill
from k2.ingestion.commits import Told
from k2.ingestion.dlq_replays import Replays
from k2.ingestion.healer import Healing, SymbolHealer
from k2.ingestion.ports import Ports
from k2.ingestion.quiet import ProbePace, QuietProbe
from k2.ingestion.rejects import Rejects
from k2.ingestion.repairs import Repairs
from k2.ingestion.shard import Role, Shard
from k2.kafka.position import SymbolPosition
from k2.market import Trade
from k2.tape.silence import Silence

LEG_WAIT_S = 0.25
"""How long a hole waits for the other leg before REST is asked."""


class Duties:
    """The duties of every shard this process writes, and who to wake when trades are missing."""

    def __init__(
        self,
        ports: Ports,
        rejects: Rejects,
        *,
        legs: int,
        heal_wait_max_s: float,
        hears: Callable[[], bool],
        probe_pace: ProbePace,
    ) -> None:
        """Prepare; ``hears`` says whether the stream is heard at all."""
        self.newest_ids: dict[str, int | None] = {}
        """Newest id of each symbol REST had before its stream was joined."""
        self._ports = ports
        self._rejects = rejects
        self._leg_wait_s = LEG_WAIT_S if legs > 1 else 0.0
        self._heal_wait_max_s = heal_wait_max_s
        self._hears = hears
        self._probe_pace = probe_pace
        self._shards: dict[str, Shard] = {}
        self._healings: dict[Shard, Healing] = {}
        self._healers: dict[str, SymbolHealer] = {}
        self._repairs: dict[Shard, Repairs] = {}

    def of(
        self,
        shard: Shard,
        *,
        heard_all: bool,
        silences: Mapping[str, Silence],
        found: Callable[[str, int], None],
    ) -> Iterable[Coroutine[Any, Any, None]]:
        """Return what the writer of a shard does beside writing.

        Args:
            shard: Just taken over.
            heard_all: Its legs have heard everything since a position of the writer before us, so
                only visible holes need REST.
            silences: The rhythm of each symbol.
            found: Told of ids the legs should have brought and did not.
        """
        host, rest = self._ports.host, self._ports.rest
        for symbol, tape in shard.tapes.items():
            duty = self.heal(shard, symbol)
            if tape.next_id is None or not heard_all:
                self._healers[symbol].look()
            elif tape.hole is not None:
                self._healers[symbol].hole()
            yield duty
        repairs = Repairs(shard, rest, reject_row=self._rejects.row, host=host)
        self._repairs[shard] = repairs
        yield repairs.run()
        yield Replays(shard, rest, repairs=repairs, host=host).run()
        backfill = Backfill(
            shard,
            rest,
            reject_row=self._rejects.row,
            busy=lambda: self._busy(shard),
            host=host,
        )
        yield backfill.run()
        probe = QuietProbe(
            shard, rest, silences=silences, found=found, pace=self._probe_pace, host=host
        )
        yield probe.run()

    def heal(self, shard: Shard, symbol: str) -> Coroutine[Any, Any, None]:
        """Return the duty of healing one symbol."""
        if shard not in self._healings:
            self._healings[shard] = self._healing_of(shard)
        healer = SymbolHealer(
            shard.tapes[symbol],
            self._healings[shard],
            record_start=_start_recorder(shard, symbol),
        )
        if symbol not in shard.told.position.symbols:  # else nobody had seen it trade before us
            healer.newest_id = self.newest_ids.get(symbol)
        self._shards[symbol] = shard
        self._healers[symbol] = healer
        return healer.run()

    def drop(self, symbol: str) -> None:
        """Heal a symbol no more."""
        healer = self._healers.pop(symbol, None)
        if healer is not None:
            healer.stop()

    @property
    def healing(self) -> dict[str, float]:
        """Symbols that are being healed now, and since when (monotonic seconds)."""
        return {
            symbol: healer.opened_s
            for symbol, healer in self._healers.items()
            if healer.opened_s is not None and self._shards[symbol].role is Role.WRITER
        }

    def _healing_of(self, shard: Shard) -> Healing:
        return Healing(
            rest=self._ports.rest,
            write=shard.append,
            room=lambda: not shard.full,
            unspill=shard.unspill,
            hears=self._hears,
            reject_row=self._rejects.row,
            reject_trade=self._rejects.trade,
            host=self._ports.host,
            heal_wait_max_s=self._heal_wait_max_s,
            leg_wait_s=self._leg_wait_s,
        )

    def _busy(self, shard: Shard) -> bool:
        """Say whether healing wants REST; a hole it cannot close for long does not."""
        now_s = self._ports.host.monotonic_s()
        return any(
            now_s - opened_s < self._heal_wait_max_s
            for symbol, opened_s in self.healing.items()
            if symbol in shard.tapes
        )

    def hole(self, symbol: str) -> None:
        """Trades of a symbol wait for missing ids."""
        if (healer := self._of_writer(symbol)) is not None:
            healer.hole()

    def look(self, symbol: str) -> None:
        """Something of a symbol may be missing that no waiting trade shows."""
        if (healer := self._of_writer(symbol)) is not None:
            healer.look()

    def late(self, trade: Trade, shard: Shard) -> None:
        """A trade came whose id the tape has passed: perhaps by declaring it missing."""
        repairs = self._repairs.get(shard)
        # A writer just made so has no duties for a moment: its repairs then ask REST for it.
        if repairs and shard.told.position.open_gaps and shard.role is Role.WRITER:
            repairs.late(trade)

    def _of_writer(self, symbol: str) -> SymbolHealer | None:
        healer = self._healers.get(symbol)
        return healer if healer and self._shards[symbol].role is Role.WRITER else None


def _start_recorder(shard: Shard, symbol: str) -> Callable[[int], None]:
    def record(start: int) -> None:
        def change(told: Told) -> Told | None:
            if told.position.stands(symbol) is not None:
                return None
            symbols = {**told.position.symbols, symbol: SymbolPosition(start, None)}
            return told._replace(position=msgspec.structs.replace(told.position, symbols=symbols))

        shard.do(tuple, change)

    return record
