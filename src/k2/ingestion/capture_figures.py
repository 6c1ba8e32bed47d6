"""What a capture counts of its own work, for its metrics page: read at each scrape, never before.

The hot path adds to plain integers of its own; here they are put under their names.
``k2_promise_broken`` counts the hops whose account does not balance, see ``broken_accounts``.
"""

from collections.abc import Callable

import structlog

from k2.binance.limits import Breaker
from k2.ingestion.capture import Capture
from k2.ingestion.host import Host
from k2.ingestion.shard import Role
from k2.observability import metrics
from k2.tape.account import Account

HELD_TRADE_BYTES = 600
"""A held trade in memory, about: it has a dozen fields, three of them decimals."""

_log = structlog.get_logger()


class CaptureFigures:
    """Measures one capture just before a scrape."""

    def __init__(self, capture: Capture, *, breaker: Callable[[], Breaker], host: Host) -> None:
        """Join a capture with what says whether REST is asked."""
        self._capture = capture
        self._breaker = breaker
        self._host = host
        self._broken: list[str] = []

    def measure(self) -> None:
        """Put everything under its name."""
        metrics.circuit_breaker.labels(metrics.REST_BREAKER).set(self._breaker().value)
        self._legs()
        self._intake()
        self._shards()
        self._judge()

    def _legs(self) -> None:
        legs, now_s = self._capture.legs, self._host.monotonic_s()
        metrics.connection_state.set(int(legs.any_live))
        delay_s = 0.0
        for feed in legs.feeds:
            metrics.connection_lifetime.labels(feed.leg.name).set(feed.leg.age_s(now_s))
            if not feed.leg.live:
                delay_s = max(delay_s, feed.leg.retry_at_s - now_s)
        metrics.reconnect_delay.set(delay_s)
        for name, figures in legs.figures.items():
            metrics.leg_first_copies.labels(name).set(figures.first)
            metrics.leg_lag.labels(name).set(figures.lag_s)

    def _intake(self) -> None:
        intake = self._capture.intake
        metrics.frames_in.set(intake.frames)
        for kind, count in intake.kinds().items():
            metrics.frames.labels(kind).set(count)
        metrics.duplicates.labels(metrics.EXCHANGE).set(intake.copies)
        metrics.last_message_timestamp.set(intake.last_trade_ns / 1e9)
        metrics.last_server_ping.set(intake.last_ping_ns / 1e9)
        metrics.last_pong.set(max(intake.last_ping_ns, intake.last_pong_ns) / 1e9)

    def _shards(self) -> None:
        shards = self._capture.shards
        writing = [shard for shard in shards if shard.role is Role.WRITER]
        metrics.pending_trades.set(sum(shard.pending for shard in writing))
        metrics.pending_bytes.set(sum(shard.pending_bytes for shard in writing))
        metrics.gap_ids_open.set(
            sum(len(gap.ids) for shard in writing for gap in shard.told.position.open_gaps)
        )
        account = _account(self._capture)
        metrics.offered.set(account.offered)
        metrics.emitted.set(account.placed)
        metrics.copies.set(account.copies)
        metrics.held.set(account.held)
        metrics.dropped.set(account.dropped)
        metrics.hold_bytes.set(account.held * HELD_TRADE_BYTES + self._capture.spill.bytes)
        metrics.queued.set(sum(shard.ring.queued for shard in shards))
        metrics.committed.set(sum(shard.ring.written for shard in shards))
        metrics.passed.set(sum(shard.ring.passed for shard in shards))
        timed_out = (metrics.EXCHANGE, shards[0].settings.names.trades, "timed_out")
        recalls = sum(shard.log.recalls for shard in shards)
        metrics.produce_retries.labels(*timed_out).set(recalls)
        metrics.produce_errors.labels(*timed_out).set(recalls)
        for shard in shards:
            for symbol, tape in shard.tapes.items():
                if tape.next_id is not None:
                    metrics.next_id.labels(symbol).set(tape.next_id)

    def _judge(self) -> None:
        broken = broken_accounts(self._capture)
        if broken and broken != self._broken:
            _log.error("promise_broken", what="this process's own account", hops=broken)
        self._broken = broken
        metrics.promise_broken.set(len(broken))


def broken_accounts(capture: Capture) -> list[str]:
    """Return the hops of a capture whose account does not balance, in a trade's order.

    ``frames``: that came in = told apart. ``streams``: frames that are trades = put to a tape +
    turned away by a full ring. ``tapes``: offered, by a stream, REST, the spill file or once more
    at a take-over = placed + copies + held + dropped. ``queues``: placed = put into a ring, beside
    the declarations. ``rings``: put in = committed + passed on + waiting.
    """
    broken = []
    kinds, shards = capture.intake.kinds(), capture.shards
    if capture.intake.frames != sum(kinds.values()):
        broken.append("frames")
    if kinds["trade"] != sum(shard.heard + shard.turned_away for shard in shards):
        broken.append("streams")
    accounts = [(shard.account, shard.ring) for shard in shards]
    if not all(account.balances for account, _ in accounts):
        broken.append("tapes")
    if not all(account.placed == ring.trades for account, ring in accounts):
        broken.append("queues")
    if not all(ring.balances for _, ring in accounts):
        broken.append("rings")
    return broken


def _account(capture: Capture) -> Account:
    total = Account()
    for shard in capture.shards:
        total.join(shard.account)
    return total
