"""The capture: frames in; one ordered, committed tape per symbol out.

legs -> intake -> shard (tape, ring) -> Kafka transaction with the position
                    ^
                  duties (heal by REST fromId, and what else only the writer does)
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from k2.binance.leg import Leg, LegLimits
from k2.binance.session import SessionLimits
from k2.ingestion.active_set import ActiveSet
from k2.ingestion.admission import (
    Prepared,
    admit,
    ask_exchange,
    look,
    recorded_symbols,
)
from k2.ingestion.comparing import Comparing
from k2.ingestion.duties import Duties
from k2.ingestion.intake import Intake
from k2.ingestion.legs import Legs
from k2.ingestion.membership import Membership, Wish
from k2.ingestion.ports import Ports
from k2.ingestion.quiet import ProbePace
from k2.ingestion.rejects import Rejects
from k2.ingestion.shard import Role, Shard
from k2.ingestion.shard_log import ShardLog, ShardSettings
from k2.ingestion.spill import Spill
from k2.ingestion.supervision import ExitCode
from k2.ingestion.symbols import SymbolWatch
from k2.ingestion.term import Terms
from k2.kafka.dead_letters import DeadLetters
from k2.kafka.encoding import TradeEncoder
from k2.kafka.lease import Lease
from k2.kafka.refusals import check_symbols
from k2.kafka.trade_follower import TradeFollower
from k2.market import Symbol
from k2.market.wanted import Wanted
from k2.observability import metrics
from k2.settings import Settings
from k2.tape.arbiter import Hold

DRAIN_DEADLINE_S = 5.0
HEARD_FOR_S = 5.0
"""Whoever has heard everything for so long takes over without asking REST about every symbol."""

LOOK_EVERY_S = 5.0
SPILL_DIR = "spill"

_log = structlog.get_logger()


class Capture:
    """Joins legs, shards, duties and the lease. One event loop, no locks."""

    def __init__(
        self,
        settings: Settings,
        wanted: Wanted,
        prepared: Prepared,
        ports: Ports,
        dead_letters: DeadLetters,
        *,
        make_lease: Callable[[], Lease],
        others: Callable[[], int],
        follow_trades: Callable[[int], TradeFollower] | None = None,
    ) -> None:
        """Wire everything; nothing runs yet.

        Args:
            settings: Of this process.
            wanted: Symbols to record.
            prepared: What Kafka and the registry said.
            ports: The world.
            dead_letters: Where bad input goes.
            make_lease: Makes a membership of the lease group.
            others: Asks how many other members the group has (blocking).
            follow_trades: Reads a shard's trades, to compare while standing by; None compares
                nothing.
        """
        self.started_s = ports.host.monotonic_s()
        self._settings = settings
        self._wanted = wanted
        self._prepared = prepared
        self._ports = ports
        self._draining_until_s = float("inf")
        rejects = Rejects(dead_letters, monotonic_s=ports.host.monotonic_s)
        self.duties = Duties(
            ports,
            rejects,
            legs=len(settings.leg_urls),
            heal_wait_max_s=settings.heal_wait_max_s,
            hears=lambda: self.legs.live,
            probe_pace=ProbePace(settings.stream, share=settings.address_share, host=ports.host),
        )
        self.intake = Intake(
            settings.stream,
            duties=self.duties,
            rejects=rejects,
            live=lambda: self.legs.live,
            beside=lambda session: self.legs.carried_beside(session),  # noqa: PLW0108 - made below
            figures_of=lambda leg: self.legs.figures_of(leg),  # noqa: PLW0108 - made below
            host=ports.host,
        )
        self.legs = Legs(
            settings.leg_urls,
            self.intake,
            kind=settings.stream,
            limits=_leg_limits(settings),
            ports=ports,
        )
        listed: dict[str, Symbol] = {}
        encoder = TradeEncoder(
            schema_id=prepared.schema_id,
            kind=settings.stream,
            environment=settings.environment,
            symbols=listed,
        )
        hold, self.spill = Hold(), Spill(settings.state_dir / SPILL_DIR)
        self.shards = [
            self._shard(number, encoder, hold, self.spill) for number in range(prepared.partitions)
        ]
        self.terms = [
            Terms(shard, duties=self._duties, fenced=self._fenced) for shard in self.shards
        ]
        self.active = ActiveSet(
            settings,
            prepared,
            terms=self.terms,
            legs=self.legs,
            intake=self.intake,
            duties=self.duties,
            listed=listed,
        )
        self.comparing: dict[Shard, Comparing] = {}
        if follow_trades is not None:
            for shard in self.shards:
                number = shard.settings.shard
                self.comparing[shard] = Comparing(
                    shard,
                    follow_trades(number),
                    worker=ports.worker(f"compare-{number}"),
                    host=ports.host,
                )
            self.intake.first = lambda trade, shard: self.comparing[shard].heard(trade)
        self.symbols = SymbolWatch(
            self.active,
            ports.rest,
            wanted=wanted,
            file=settings.symbols_file,
            listing_every_s=settings.listing_every_s,
            host=ports.host,
        )
        self.membership = Membership(
            {terms.shard.settings.shard: terms for terms in self.terms},
            wish=Wish(settings.role),
            make_lease=make_lease,
            others=others,
            worker=ports.worker("lease"),
            hears=lambda: self.legs.live,
            host=ports.host,
            poll_s=ports.poll_s,
        )

    async def run(self, stop: asyncio.Event, *, fail_fast: bool = False) -> ExitCode:
        """Record until ``stop`` is set, then hand over or commit what is held, and end.

        Raises:
            ExceptionGroup: Of ``StopError`` when writing on could corrupt a tape, or
                ``UnavailableError``.
        """
        try:
            return await self._run(stop, fail_fast=fail_fast)
        finally:
            # However we got here: a successor need not wait until our lease expires.
            await self.membership.leave()
            for shard in self.shards:
                await shard.log.close()

    async def _run(self, stop: asyncio.Event, *, fail_fast: bool) -> ExitCode:
        code = ExitCode.CLEAN
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(shard.log.follow(shard.followed), name="follow")
                for shard in self.shards
            ]
            starting = group.create_task(self._start(fail_fast=fail_fast), name="start")
            stopping = group.create_task(stop.wait(), name="stop")
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            elif starting.exception() is None:
                self.legs.run_in(group)
                tasks += [group.create_task(terms.run(), name="term") for terms in self.terms]
                tasks.append(group.create_task(self._look_around(), name="look"))
                tasks.append(group.create_task(self.symbols.run(), name="symbols"))
                for one in self.comparing.values():
                    tasks.append(group.create_task(one.run(), name="compare"))
                member = group.create_task(self.membership.run(), name="lease")
                await stop.wait()
                code = await self._end(member)
            for task in (stopping, *tasks):
                task.cancel()
        return code

    @property
    def pending(self) -> int:
        """Trades this process placed and has not committed, of shards it writes."""
        return sum(shard.pending for shard in self.shards if shard.role is Role.WRITER)

    async def _start(self, *, fail_fast: bool) -> None:
        host = self._ports.host
        logs = [shard.log for shard in self.shards]
        records = await look(self._settings, self._prepared, logs, host=host, fail_fast=fail_fast)
        check_symbols(recorded_symbols(records), self._wanted.names)
        start = await ask_exchange(
            self._wanted, records, self._ports.rest, host=host, fail_fast=fail_fast
        )
        for shard in self.shards:
            shard.start()
        self.active.begin(start.listed, start.newest_ids)
        for shard in self.shards:
            shard.on_identity = self.symbols.look

    async def _end(self, member: "asyncio.Task[None]") -> ExitCode:
        """Hand over to a successor if there is one, else commit what there is."""
        _log.info("Shutdown begins", pending=self.pending)
        metrics.shutting_down.set(1)
        member.cancel()
        await asyncio.gather(member, return_exceptions=True)
        self._draining_until_s = self._ports.host.monotonic_s() + DRAIN_DEADLINE_S
        try:
            async with asyncio.timeout(DRAIN_DEADLINE_S + 1):
                await self.membership.hand_over()
                self.legs.stop()
                for terms in self.terms:
                    await terms.over.wait()
        except TimeoutError:
            self.legs.stop()  # handing over may have taken all the time there was
            pending = self.pending
            _log.error("drained_incompletely", pending=pending, heals_by="REST at next start")
            return ExitCode.DRAINED_INCOMPLETELY
        return ExitCode.CLEAN

    def _shard(self, number: int, encoder: TradeEncoder, hold: Hold, spill: Spill) -> Shard:
        settings = ShardSettings(
            shard=number,
            kafka=self._settings.kafka,
            names=self._prepared.names,
            batch_size=self._settings.batch_size,
            batch_timeout_s=self._settings.batch_timeout_s,
            poll_s=self._ports.poll_s,
            shards=self._prepared.partitions,
        )
        log = ShardLog(
            settings,
            clients=self._ports.clients,
            worker=self._ports.worker,
            host=self._ports.host,
            keep_trying=lambda: self._ports.host.monotonic_s() < self._draining_until_s,
        )
        shard = Shard(
            settings,
            log,
            encoder=encoder,
            hold=hold,
            spill=spill,
            host=self._ports.host,
            admit=lambda shard: admit(self._settings, self._prepared, shard, host=self._ports.host),
        )
        shard.on_hole = self.duties.hole
        shard.on_loss = self.duties.look
        return shard

    # What the writer of a shard does.

    def _duties(self, shard: Shard) -> Iterable[Coroutine[Any, Any, None]]:
        self.active.record_identity(shard)
        since_s = self.intake.heard_since_s
        # The writer before us had written what came before we heard, and we have heard the rest.
        heard = since_s is not None and since_s + HEARD_FOR_S < shard.followed_s
        return self.duties.of(
            shard,
            heard_all=heard and shard.seen_writing,
            silences=self.intake.silences,
            found=self._found_by_probe,
        )

    def _found_by_probe(self, symbol: str, newest_id: int) -> None:
        """REST knows an id that no leg has brought: heal, and see which leg is deaf."""
        self.intake.heard[symbol] = max(newest_id, self.intake.heard.get(symbol, -1))
        self.duties.look(symbol)

    async def _fenced(self) -> None:
        await self.membership.rejoin()

    async def _look_around(self) -> None:
        """Every few seconds: is a stream deaf that was acknowledged? Do the fill ids follow?"""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._ports.host.monotonic_s()

            def notice(leg: Leg, now_s: float = now_s) -> None:
                if deaf := leg.notice(self.intake.heard, now_s):
                    _log.warning("streams_deaf", leg=leg.name, symbols=deaf)

            self.legs.each(notice)
            for shard in self.shards:
                _tell_fill_breaks(shard)


def _tell_fill_breaks(shard: Shard) -> None:
    for symbol, tape in shard.tapes.items():
        if tape.fill_breaks:
            # Seen on the venue's futures, where some fills are not aggregated: not a loss.
            _log.warning("fill_ids_break", symbol=symbol, trades=tape.fill_breaks)
            metrics.fill_breaks.labels(symbol).inc(tape.fill_breaks)
            tape.fill_breaks = 0


def _leg_limits(settings: Settings) -> LegLimits:
    return LegLimits(
        delay_min_s=settings.reconnect_delay_min_s,
        delay_max_s=settings.reconnect_delay_max_s,
        connection_age_max_s=settings.connection_age_max_s,
        session=SessionLimits(
            stale_after_s=settings.stale_after_s,
            probe_every_s=settings.heartbeat_interval_s,
        ),
    )
