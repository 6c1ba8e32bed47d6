"""What the legs bring: every frame decoded and put on its symbol's tape, first copy wins."""

from collections.abc import Callable

import structlog

from k2.binance.frames import ErrorReply, Reply, ServerShutdown, frame_decoder
from k2.binance.leg import MANUAL, SCHEDULED, Leg, Replaced
from k2.binance.session import Session
from k2.binance.websocket import ConnectError
from k2.errors import RejectError, RetryError
from k2.ingestion.duties import Duties
from k2.ingestion.host import Host
from k2.ingestion.legs import LegFigures
from k2.ingestion.rejects import Rejects
from k2.ingestion.shard import Offer, Shard
from k2.market import StreamKind, Trade
from k2.observability import metrics
from k2.observability.families import Number
from k2.observability.first_series import begin_symbol
from k2.tape.silence import Silence

_log = structlog.get_logger()


class Intake:
    """Hears all legs (``FeedEvents``). One event loop, no locks."""

    def __init__(
        self,
        kind: StreamKind,
        *,
        duties: Duties,
        rejects: Rejects,
        live: Callable[[], bool],
        beside: Callable[[Session], bool],
        figures_of: Callable[[Leg], LegFigures],
        host: Host,
    ) -> None:
        """Prepare.

        Args:
            kind: Which stream is heard.
            duties: Woken when trades are missing.
            rejects: Where bad input goes.
            live: Says whether every symbol arrives on at least one leg.
            beside: Says whether another connection carries the symbols of this one too.
            figures_of: Returns what a leg has given, to be counted on.
            host: Time.
        """
        self.heard: dict[str, int] = {}
        """Symbol to the newest id that any source has shown to be published."""
        self.heard_since_s: float | None = None
        """Since when every symbol has arrived on at least one leg without a break."""
        self.silences: dict[str, Silence] = {}
        self.first: Callable[[Trade, Shard], None] = _nobody
        """Told of the first copy of every trade."""
        self._decode = frame_decoder(kind)
        self._duties = duties
        self._rejects = rejects
        self._live = live
        self._beside = beside
        self._figures_of = figures_of
        self._host = host
        self._shards: dict[str, Shard] = {}
        self._retired: set[str] = set()
        self._received: dict[str, Number] = {}
        self._first_copy: dict[str, tuple[int, int]] = {}
        self._exchange_lag = metrics.exchange_lag.labels()
        self.frames = 0
        """Text frames that came, on all connections."""
        self.trades = 0
        """Of those, trades put to a tape."""
        self.control = 0
        """Of those, answers and announcements."""
        self.rejected = 0
        """Of those, what could not be used."""
        self.retired = 0
        """Of those, trades of symbols that are recorded no more."""
        self.copies = 0
        self.last_trade_ns = 0
        self.last_ping_ns = 0
        self.last_pong_ns = 0

    def carry(self, symbol: str, shard: Shard) -> None:
        """Take in a symbol's trades from now on."""
        self.silences[symbol] = Silence(self._host.monotonic_s())
        begin_symbol(symbol)
        self._received[symbol] = metrics.messages_received.labels(symbol)
        self._shards[symbol] = shard
        self._retired.discard(symbol)

    def drop(self, symbol: str) -> None:
        """Take in no more; what still comes is on its way and no mistake."""
        del self._shards[symbol], self.silences[symbol]
        self._retired.add(symbol)

    def kinds(self) -> dict[str, int]:
        """Return how many frames were what, as ``metrics.FRAME_KINDS``."""
        return {
            "trade": self.trades,
            "control": self.control,
            "rejected": self.rejected,
            "retired": self.retired,
        }

    @property
    def symbols(self) -> list[str]:
        """What is taken in, sorted."""
        return sorted(self._shards)

    # What the legs tell.

    def frame(
        self, leg: Leg, session: Session, payload: bytes, recv_ts_ns: int
    ) -> Reply | ErrorReply | ServerShutdown | None:
        """Put one frame's trade on its tape; bad input costs that frame and nothing else."""
        self.frames += 1
        try:
            message = self._decode(payload, recv_ts_ns)
            if not isinstance(message, Trade):
                self.control += 1
                return message
            shard = self._shards.get(message.symbol)
            if shard is None:
                if message.symbol in self._retired:
                    self.retired += 1
                    return None
                raise RejectError(f"Invalid field: s={message.symbol!r} was not subscribed")
        except RejectError as exc:
            self.rejected += 1
            if (symbol := self._rejects.frame(payload, exc)) is not None:
                # REST may have the row in a usable form; if not, it is declared there and then.
                self._duties.look(symbol)
            return None
        self._take(message, shard, self._figures_of(leg), session)
        return None

    def connected(self, leg: Leg) -> None:
        """A socket is open; streams are being subscribed."""
        _log.info("Connected", leg=leg.name, streams=len(leg.symbols))

    def live(self, leg: Leg, session: Session) -> None:
        """A connection has everything from here on."""
        _log.info("Subscribed", leg=leg.name, symbols=list(leg.symbols))
        session.excuse(self.heard)
        if not self._beside(session):
            self.heard_since_s = None  # the one before may have died and not be gone yet
        if self.heard_since_s is None and self._live():
            # What came before nobody heard: it is fetched by REST.
            self.heard_since_s = now_s = self._host.monotonic_s()
            for silence in self.silences.values():
                silence.resumed(now_s)
            for symbol in self._shards:
                self._duties.look(symbol)

    def pinged(self, leg: Leg) -> None:
        """Count the server's heartbeat."""
        del leg
        metrics.server_pings.inc()
        self.last_ping_ns = self._host.wall_ns()

    def ponged(self, leg: Leg) -> None:
        """The server answered our probe."""
        del leg
        self.last_pong_ns = self._host.wall_ns()

    def replaced(self, leg: Leg, action: Replaced) -> None:
        """A newcomer carries the leg now; nothing was missed meanwhile."""
        if action.reason in (SCHEDULED, MANUAL):
            metrics.rotations.labels(action.reason, leg.name).inc()
        else:
            metrics.reconnections.labels(action.reason).inc()
            if action.reason == "pong_timeout":
                metrics.pong_timeouts.inc()
        _log.info(
            "rotation_triggered",
            leg=leg.name,
            reason=action.reason,
            overlapped=action.overlapped,
        )

    def disconnected(self, leg: Leg, session: Session, reason: str) -> None:
        """A socket is gone; the leg goes on by itself."""
        if not self._live():
            self.heard_since_s = None
        if session.replaced or reason == "shutdown":
            _log.info("Connection closed", leg=leg.name, reason=reason)
            return
        metrics.reconnections.labels(reason).inc()
        if reason == "websocket_error":
            metrics.connection_errors.labels("protocol").inc()
        again_in_s = round(max(0.0, leg.retry_at_s - self._host.monotonic_s()), 1)
        _log.warning("Connection closed", leg=leg.name, reason=reason, again_in_s=again_in_s)

    def unreachable(self, leg: Leg, problem: RetryError) -> None:
        """A socket could not be opened; the leg tries again by itself."""
        kind = problem.kind if isinstance(problem, ConnectError) else "refused"
        metrics.connection_errors.labels(kind).inc()
        _log.warning("Connection not possible", leg=leg.name, reason=str(problem))

    # How.

    def _take(self, trade: Trade, shard: Shard, figures: LegFigures, session: Session) -> None:
        symbol, source_id, now_s = trade.symbol, trade.source_id, self._host.monotonic_s()
        self.trades += 1
        session.saw(symbol, source_id, now_s)
        offer = shard.offer(trade)
        if offer is not Offer.COPY:
            self.silences[symbol].traded(now_s)
        if offer is Offer.FIRST:
            figures.first += 1
            self.first(trade, shard)
            self._received[symbol].inc()
            self._first_copy[symbol] = (source_id, trade.recv_ts_ns)
            if (shard.tapes[symbol].next_id or 0) > source_id:  # held ids may be absurd ones
                self.heard[symbol] = source_id
            self.last_trade_ns = trade.recv_ts_ns
            if trade.event_ts_us is not None:
                self._exchange_lag.observe((trade.recv_ts_ns // 1000 - trade.event_ts_us) / 1e6)
        elif offer is Offer.COPY:
            self.copies += 1
            first_id, first_ns = self._first_copy.get(symbol, (-1, 0))
            if first_id == source_id:
                figures.late((trade.recv_ts_ns - first_ns) / 1e9)
            self._duties.late(trade, shard)
        else:
            metrics.let_go.labels(symbol).inc()


def _nobody(_trade: Trade, _shard: Shard) -> None:
    """Nobody to tell."""
