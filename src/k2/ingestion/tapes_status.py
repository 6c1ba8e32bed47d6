"""What a capture says of its symbols: last trade, rate, hole, silence, the ids of late."""

from collections.abc import Iterable

from k2.ingestion.capture import Capture
from k2.ingestion.health import HoleHealth, TapeHealth
from k2.ingestion.shard import Shard
from k2.ingestion.tape_trail import TapeTrail, TrailSample, stretches
from k2.market import Trade


class TapesStatus:
    """Every symbol of a capture. Its event loop's."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._last: dict[str, Trade] = {}
        self._trails: dict[str, TapeTrail] = {}
        self._holes_since_s: dict[str, float] = {}

    def heard(self, trade: Trade) -> None:
        """Take in the first copy of a trade."""
        self._last[trade.symbol] = trade

    @property
    def last_recv_ts_ns(self) -> int | None:
        """When the newest of all came."""
        return max((trade.recv_ts_ns for trade in self._last.values()), default=None)

    def sample(self, shards: Iterable[Shard], now_s: float) -> None:
        """Remember where each tape stands now."""
        carried: set[str] = set()
        for shard in shards:
            carried |= shard.tapes.keys()
            for symbol in shard.tapes:
                self._since_s(shard, symbol, now_s)
                if (here := _stands(shard, symbol, now_s)) is not None:
                    self._trails.setdefault(symbol, TapeTrail()).add(here)
        for gone in self._trails.keys() - carried:
            del self._trails[gone]

    def health(self, capture: Capture, now_s: float) -> list[TapeHealth]:
        """Return what to say of each symbol, by name."""
        healing = capture.duties.healing.keys()
        tapes = [
            self._tape(capture, shard, symbol, healing=symbol in healing, now_s=now_s)
            for shard in capture.shards
            for symbol in shard.tapes
        ]
        return sorted(tapes, key=lambda tape: tape.symbol)

    def _tape(
        self, capture: Capture, shard: Shard, symbol: str, *, healing: bool, now_s: float
    ) -> TapeHealth:
        tape, where = shard.tapes[symbol], shard.told.position.stands(symbol)
        silence, last = capture.intake.silences.get(symbol), self._last.get(symbol)
        silent_s = now_s - silence.last_s if silence is not None else 0.0
        allowed_s = silence.allowed_s if silence is not None else float("inf")
        open_gaps = [gap.ids for gap in shard.told.position.open_gaps if gap.symbol == symbol]
        here, trail = _stands(shard, symbol, now_s), self._trails.get(symbol, TapeTrail())
        recent = []
        if here is not None:
            recent = stretches(
                since_id=trail.since_id(here.next_id),
                written_to=where.next_id if where is not None else here.next_id,
                placed_to=here.next_id,
                hole=tape.hole,
                held=tape.held + shard.spilled(symbol),
                declared=open_gaps,
            )
        return TapeHealth(
            symbol=symbol,
            shard=shard.settings.shard,
            first_id=where.first_id if where is not None else None,
            last_id=where.last_id if where is not None else None,
            next_id=tape.next_id,
            rate_per_s=round(trail.rate_per_s(here), 2) if here is not None else 0.0,
            last_price=format(last.price.normalize(), "f") if last is not None else None,
            last_quantity=format(last.quantity.normalize(), "f") if last is not None else None,
            last_side=last.taker_side.value if last is not None else None,
            last_trade_ts_us=last.trade_ts_us if last is not None else None,
            silent_s=round(silent_s, 1),
            silent_allowed_s=round(allowed_s, 1) if allowed_s < float("inf") else None,
            silent=capture.legs.live and silent_s > allowed_s,
            hole=self._hole(shard, symbol, healing=healing, now_s=now_s),
            open_gap_ids=sum(len(ids) for ids in open_gaps),
            recent=recent,
        )

    def _hole(self, shard: Shard, symbol: str, *, healing: bool, now_s: float) -> HoleHealth | None:
        tape, since_s = shard.tapes[symbol], self._since_s(shard, symbol, now_s)
        if (ids := tape.hole) is None or since_s is None:
            return None
        held = tape.held + shard.spilled(symbol)
        return HoleHealth(ids.first_id, ids.last_id, held, round(now_s - since_s, 1), healing)

    def _since_s(self, shard: Shard, symbol: str, now_s: float) -> float | None:
        """Return since when a symbol has had a hole, as far as we looked."""
        if shard.tapes[symbol].hole is None:
            self._holes_since_s.pop(symbol, None)
            return None
        return self._holes_since_s.setdefault(symbol, now_s)


def _stands(shard: Shard, symbol: str, now_s: float) -> TrailSample | None:
    tape = shard.tapes[symbol]
    if tape.next_id is None:
        return None
    return TrailSample(now_s, tape.next_id, tape.next_id + tape.held + shard.spilled(symbol))
