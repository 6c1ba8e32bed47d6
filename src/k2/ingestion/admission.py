"""May this process write? Topics, schema, identity, position and exchange are asked before it does.

What can be found out without fencing is found out first: a process that will be refused must not
end a healthy writer. Each refusal names the command that repairs it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog
from confluent_kafka.admin import AdminClient

from k2.binance.rest import RestClient
from k2.errors import ReconcileError, StopError
from k2.ingestion.shard import ShardSettings, ShardWriter
from k2.ingestion.supervision import until_it_works
from k2.kafka.encoding import SCHEMA_TEXT, VENUE, TradeEncoder, parse_schema
from k2.kafka.partitioning import shard_of
from k2.kafka.position import Identity, ShardRecord, SymbolPosition
from k2.kafka.positions import read_tail
from k2.kafka.refusals import check_identity, check_newest, check_position
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicFacts, TopicNames, create_topics, topic_facts
from k2.market import Symbol
from k2.settings import Settings
from k2.tape.arbiter import SymbolTape

NEWEST_ID_PATIENCE_S = 10.0
"""How long REST, which may trail the stream, gets to show the last id on the tape."""

_EXCHANGE = "exchange (REST)"

_log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the capture starts from."""

    writers: list[ShardWriter]
    tapes: dict[str, SymbolTape]
    writer_of: dict[str, ShardWriter]


async def admit(settings: Settings, rest: RestClient, *, fail_fast: bool) -> Admitted:
    """Prepare topics and schema, refuse what could corrupt a tape, then become the writer.

    Raises:
        StopError: With the repairing command.
        UnavailableError: If a dependency is absent and ``fail_fast``.
    """
    names = TopicNames.of(settings.topic_prefix)
    kafka = f"Kafka at {settings.kafka_bootstrap}"
    admin = AdminClient(
        {"bootstrap.servers": settings.kafka_bootstrap, "log_level": 2, "socket.timeout.ms": 10_000}
    )

    async def ask(what: str, call: Callable[[], T]) -> T:
        return await until_it_works(what, lambda: asyncio.to_thread(call), fail_fast=fail_fast)

    created = await ask(kafka, lambda: create_topics(admin, names, shards=settings.shards))
    if created:
        _log.info("topics_created", topics=created, partitions=settings.shards)
    facts = await ask(kafka, lambda: topic_facts(admin, names))
    registry = Registry(settings.schema_registry_url)
    schema_id = await ask(
        f"registry at {settings.schema_registry_url}",
        lambda: registry.register(names.subject, SCHEMA_TEXT),
    )

    writers = [
        ShardWriter(_shard_settings(settings, names, shard))
        for shard in range(facts[names.trades].partitions)
    ]
    glimpsed = [await ask(kafka, writer.glimpse) for writer in writers]
    tails = [await ask(kafka, _tail_of(settings, names, w)) for w in writers]
    for record, (has_records, _) in zip(glimpsed, tails, strict=True):
        check_identity(record.identity, identity_of(settings, facts, []))
        check_position(record.position, topic_has_records=has_records, tail={})
    recorded = _recorded_symbols(glimpsed)
    positions = _positions(glimpsed)
    listed = await _listed_symbols(settings, rest, recorded, positions, fail_fast=fail_fast)
    newest = dict(
        await asyncio.gather(
            *(_newest_id(s, positions.get(s), rest, fail_fast=fail_fast) for s in sorted(listed))
        )
    )

    # From here on we are the writer, and whoever was is not.
    found = [await until_it_works(kafka, w.take_over, fail_fast=fail_fast) for w in writers]
    identity = identity_of(settings, facts, sorted({*settings.symbols, *_recorded_symbols(found)}))
    for writer, record in zip(writers, found, strict=True):
        check_identity(record.identity, identity)
        has_records, tail = await ask(kafka, _tail_of(settings, names, writer))
        check_position(record.position, topic_has_records=has_records, tail=tail)
    positions = _positions(found)
    tapes = {symbol: _tape(symbol, positions.get(symbol), newest[symbol]) for symbol in newest}
    encoder = TradeEncoder(
        schema_id=schema_id,
        kind=settings.stream,
        environment=settings.environment,
        symbols=listed,
    )
    writer_of = {name: writers[shard_of(name, partitions=len(writers))] for name in tapes}
    for writer, record in zip(writers, found, strict=True):
        mine = [tape for name, tape in tapes.items() if writer_of[name] is writer]
        await _start_writer(writer, record, identity, encoder, mine)
    return Admitted(writers, tapes, writer_of)


def identity_of(
    settings: Settings, facts: Mapping[str, TopicFacts], symbols: list[str]
) -> Identity:
    """Return what a tape written with these settings to these topics is a tape of."""
    names = TopicNames.of(settings.topic_prefix)
    return Identity(
        venue=VENUE,
        environment=settings.environment,
        stream_kind=settings.stream.value,
        topic_ids={topic: facts[topic].topic_id for topic in (names.trades, names.gaps)},
        partitions=facts[names.trades].partitions,
        symbols=symbols,
    )


async def _listed_symbols(
    settings: Settings,
    rest: RestClient,
    recorded: set[str],
    positions: Mapping[str, SymbolPosition],
    *,
    fail_fast: bool,
) -> dict[str, Symbol]:
    """Return the symbols to record: those configured and those recorded as active before.

    A configured name the exchange does not list is a mistake, unless it has a tape: then it was
    delisted since, and the others go on without it.
    """
    symbols = sorted({*settings.symbols, *recorded})
    if kept := sorted(recorded - set(settings.symbols)):
        _log.info("symbols_kept", symbols=kept, why="recorded as active; leaving is explicit")
    listed = await until_it_works(_EXCHANGE, lambda: rest.symbols(symbols), fail_fast=fail_fast)
    absent = [name for name in symbols if name not in listed]
    if unknown := [name for name in settings.symbols if name in set(absent) - positions.keys()]:
        raise StopError(
            f"the exchange does not list {', '.join(unknown)}: mend BINANCE_SYMBOLS (--symbols)"
        )
    if absent:
        _log.warning("symbols_delisted", symbols=absent, why="the exchange lists them no more")
    if not listed:
        raise StopError("the exchange lists none of the symbols: see BINANCE_SYMBOLS")
    return listed


async def _newest_id(
    symbol: str, position: SymbolPosition | None, rest: RestClient, *, fail_fast: bool
) -> tuple[str, int | None]:
    """Return the newest id REST has, and refuse an exchange that is behind the tape."""

    async def ask() -> int | None:
        return await until_it_works(_EXCHANGE, lambda: rest.newest_id(symbol), fail_fast=fail_fast)

    newest_id = await ask()
    if position is not None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + NEWEST_ID_PATIENCE_S
        while (newest_id is None or newest_id < position.next_id - 1) and loop.time() < deadline_s:
            await asyncio.sleep(0.5)
            newest_id = await ask()
        check_newest(symbol, next_id=position.next_id, newest_id=newest_id)
    return symbol, newest_id


def _tape(symbol: str, position: SymbolPosition | None, newest_id: int | None) -> SymbolTape:
    """Return the tape where its position ends; a new one starts after REST's newest id."""
    if position is not None:
        _log.info("tape_continues", symbol=symbol, next_id=position.next_id, newest_id=newest_id)
        return SymbolTape(symbol, next_id=position.next_id, previous_id=position.last_id)
    # None: it never traded (or a recording has not begun); its first trade starts the tape.
    next_id = None if newest_id is None else newest_id + 1
    _log.info("tape_begins", symbol=symbol, next_id=next_id)
    return SymbolTape(symbol, next_id=next_id)


async def _start_writer(
    writer: ShardWriter,
    record: ShardRecord,
    identity: Identity,
    encoder: TradeEncoder,
    tapes: list[SymbolTape],
) -> None:
    # A new symbol's start is recorded before its first trade: should we die before that trade is
    # written, the next start asks for it from here.
    starts = {
        tape.symbol: SymbolPosition(tape.next_id, None)
        for tape in tapes
        if tape.next_id is not None
    }
    position = {**starts, **(record.position or {})}
    if record.identity != identity or record.position != position:
        try:
            await until_it_works("Kafka", lambda: writer.write_identity(identity, position))
        except ReconcileError as exc:
            raise StopError(f"the identity could not be written: {exc}; start again") from exc
    writer.use(encoder, position)


def _recorded_symbols(records: list[ShardRecord]) -> set[str]:
    return {
        name
        for record in records
        if record.identity is not None
        for name in record.identity.symbols
    }


def _positions(records: list[ShardRecord]) -> dict[str, SymbolPosition]:
    return {name: where for record in records for name, where in (record.position or {}).items()}


def _shard_settings(settings: Settings, names: TopicNames, shard: int) -> ShardSettings:
    return ShardSettings(
        shard=shard,
        bootstrap=settings.kafka_bootstrap,
        names=names,
        batch_size=settings.batch_size,
        batch_timeout_s=settings.batch_timeout_s,
    )


def _tail_of(
    settings: Settings, names: TopicNames, writer: ShardWriter
) -> Callable[[], tuple[bool, dict[str, int]]]:
    return lambda: read_tail(
        settings.kafka_bootstrap,
        trades_topic=names.trades,
        shard=writer.settings.shard,
        writer_schema=parse_schema(SCHEMA_TEXT),
    )
