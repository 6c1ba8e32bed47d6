"""The capture: frames in; one ordered, committed tape per symbol out.

socket -> decode -> tape (next id) -> ring -> Kafka transaction with the position
                      ^
                    healer (REST fromId)
"""

import asyncio
import random
import time
from typing import Any

import msgspec
import structlog

from k2.binance.frames import ErrorReply, Reply, ServerShutdown, frame_decoder, original_event
from k2.binance.rest import RestClient
from k2.binance.session import Session, SessionLimits
from k2.binance.websocket import Feed, FeedEvents
from k2.errors import RejectError
from k2.ingestion.admission import Admitted, admit
from k2.ingestion.healer import SymbolHealer
from k2.ingestion.shard import ShardWriter
from k2.ingestion.supervision import ExitCode
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.topics import TopicNames
from k2.market import BadRow, Trade
from k2.observability import metrics
from k2.settings import Settings

_log = structlog.get_logger()


class Capture(FeedEvents):
    """Joins one feed, the tapes, the healers and the shard writers. One event loop, no locks."""

    def __init__(
        self, settings: Settings, admitted: Admitted, rest: RestClient, dead_letters: DeadLetters
    ) -> None:
        """Wire everything; nothing runs yet."""
        self._decode = frame_decoder(settings.stream)
        self._dead_letters = dead_letters
        self._tapes = admitted.tapes
        self._writers = admitted.writers
        self._writer_of = admitted.writer_of
        self._received = {s: metrics.messages_received.labels(s) for s in admitted.tapes}
        self._duplicates = metrics.duplicates.labels(metrics.EXCHANGE)
        self._healers = {
            symbol: SymbolHealer(
                tape,
                rest,
                write=admitted.writer_of[symbol].append,
                room=_room(admitted.writer_of[symbol]),
                reject_row=self._reject_row,
                reject_trade=self._reject_trade,
                heal_wait_max_s=settings.heal_wait_max_s,
            )
            for symbol, tape in admitted.tapes.items()
        }
        stream_names = [f"{symbol.lower()}@{settings.stream.value}" for symbol in admitted.tapes]
        self._session = Session(
            stream_names,
            SessionLimits(
                delay_min_s=settings.reconnect_delay_min_s,
                delay_max_s=settings.reconnect_delay_max_s,
                stale_after_s=settings.stale_after_s,
                probe_every_s=settings.heartbeat_interval_s,
            ),
        )
        self._feed = Feed(
            settings.ws_url,
            self._session,
            self,
            draw=random.random,
        )

    async def run(self, stop: asyncio.Event) -> ExitCode:
        """Record until ``stop`` is set, then commit what is held and end.

        Raises:
            ExceptionGroup: Of ``StopError`` when writing on could corrupt a tape.
        """
        async with asyncio.TaskGroup() as group:
            feed = group.create_task(self._feed.run(), name="feed")
            healers = [group.create_task(h.run(), name="heal") for h in self._healers.values()]
            for writer in self._writers:
                group.create_task(writer.run(), name="write")
            await stop.wait()
            _log.info("Shutdown begins", pending=self._pending)
            self._feed.stop()
            await feed
            for healer in healers:
                healer.cancel()
            for writer in self._writers:
                writer.close()
        if self._pending:
            _log.error("drained_incompletely", pending=self._pending, heals_by="REST at next start")
            return ExitCode.DRAINED_INCOMPLETELY
        return ExitCode.CLEAN

    @property
    def _pending(self) -> int:
        return sum(writer.pending for writer in self._writers)

    # What the feed tells.

    def frame(self, payload: bytes, recv_ts_ns: int) -> Reply | ErrorReply | ServerShutdown | None:
        """Put one frame's trade on its tape; bad input costs that frame and nothing else."""
        try:
            message = self._decode(payload, recv_ts_ns)
            if not isinstance(message, Trade):
                return message
            tape = self._tapes.get(message.symbol)
            if tape is None:
                raise RejectError(f"Invalid field: s={message.symbol!r} was not subscribed")
        except RejectError as exc:
            self._reject(payload, exc)
            return None
        self._session.last_data_s = time.monotonic()
        writer = self._writer_of[message.symbol]
        if writer.full:
            metrics.let_go.labels(message.symbol).inc()
            self._healers[message.symbol].wake()
            return None
        duplicates, released = tape.duplicates, tape.released
        placed = tape.offer(message)
        if placed:
            self._received[message.symbol].inc()
            writer.append(placed)
            metrics.last_message_timestamp.set(recv_ts_ns / 1e9)
        elif tape.duplicates > duplicates:
            self._duplicates.inc()
        elif tape.released > released:
            metrics.let_go.labels(message.symbol).inc()
        else:
            self._received[message.symbol].inc()
            self._healers[message.symbol].wake()
        return None

    def connected(self) -> None:
        """The socket is open; streams are being subscribed."""
        _log.info("Connected", streams=len(self._tapes))

    def live(self) -> None:
        """From here on the stream has everything: what came before it is fetched by REST."""
        metrics.connection_state.set(1)
        _log.info("Subscribed", symbols=list(self._tapes))
        for healer in self._healers.values():
            healer.wake()

    def pinged(self) -> None:
        """Count the server's heartbeat."""
        metrics.server_pings.inc()

    def disconnected(self, reason: str) -> None:
        """The socket is gone; the session connects again by itself."""
        metrics.connection_state.set(0)
        if reason == "shutdown":
            _log.info("Connection closed", reason=reason)
            return
        metrics.reconnections.labels(reason).inc()
        _log.warning("Connection closed", reason=reason, again_in_s=self._again_in_s())

    def unreachable(self, problem: str) -> None:
        """The socket could not be opened; the session tries again by itself."""
        metrics.connection_errors.labels("connect").inc()
        _log.warning("Connection not possible", reason=problem)

    def _again_in_s(self) -> float:
        return round(max(0.0, self._session.retry_at_s - time.monotonic()), 1)

    # Bad input.

    def _reject(self, payload: bytes, exc: RejectError) -> None:
        original = original_event(payload)
        symbol = original.get("s")
        _log.warning(
            str(exc), error_type=exc.error_type, raw=payload[:300].decode("utf-8", "replace")
        )
        name = symbol if isinstance(symbol, str) else None
        self._bury(original, str(exc), exc.error_type, name)
        if name in self._healers:
            # REST may have the row in a usable form; if not, it is declared there and then.
            self._healers[name].wake()

    def _reject_row(self, row: BadRow) -> None:
        _log.warning(row.error, source_id=row.source_id, error_type=row.error_type)
        symbol = row.original.get("s")
        self._bury(row.original, row.error, row.error_type, symbol)

    def _reject_trade(self, trade: Trade) -> None:
        error = f"Invalid field: id {trade.source_id} is far beyond the exchange's newest"
        _log.warning(error, symbol=trade.symbol)
        original = {**msgspec.to_builtins(trade), "s": trade.symbol}
        self._bury(original, error, "invalid_field", trade.symbol)

    def _bury(
        self, original: dict[str, Any], error: str, error_type: str, symbol: str | None
    ) -> None:
        metrics.message_errors.labels(error_type).inc()
        failed = self._dead_letters.failed
        self._dead_letters.write(
            original=original, error=error, error_type=error_type, symbol=symbol
        )
        if self._dead_letters.failed > failed:
            metrics.dead_letter_failures.inc()
        else:
            metrics.dead_letters.labels(error_type).inc()


async def run_capture(settings: Settings, stop: asyncio.Event, *, fail_fast: bool) -> ExitCode:
    """Record the settings' symbols until ``stop`` is set."""
    metrics.connection_state.set(0)
    for symbol in settings.symbols:
        metrics.messages_received.labels(symbol)
    runner = await metrics.serve_metrics(settings.metrics_port) if settings.metrics_port else None
    dead_letters = DeadLetters(
        settings.dead_letter_dir,
        topic=TopicNames.of(settings.topic_prefix).trades,
        connection_id="a",
    )
    try:
        async with RestClient(settings.rest_urls, kind=settings.stream) as rest:
            starting = asyncio.create_task(admit(settings, rest, fail_fast=fail_fast))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return ExitCode.CLEAN
            return await Capture(settings, starting.result(), rest, dead_letters).run(stop)
    finally:
        if runner is not None:
            await runner.cleanup()


def _room(writer: ShardWriter) -> Any:
    return lambda: not writer.full
