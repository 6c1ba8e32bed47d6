"""May this process write? Topics, schema, identity, position and exchange are asked before it does.

Everything is found out before the first socket to the exchange's stream opens. Each refusal names
the command that repairs it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from confluent_kafka.admin import AdminClient

from k2.binance.rest import RestClient
from k2.errors import RetryError, StopError
from k2.ingestion.shard import ShardSettings, ShardWriter
from k2.ingestion.supervision import until_it_works
from k2.kafka.encoding import SCHEMA_TEXT, VENUE, TradeEncoder, parse_schema
from k2.kafka.partitioning import shard_of
from k2.kafka.positions import Identity, ShardRecord, SymbolPosition, read_tail
from k2.kafka.refusals import check_identity, check_newest, check_position
from k2.kafka.registry import Registry
from k2.kafka.topics import TopicFacts, TopicNames, create_topics, describe_topics
from k2.settings import Settings
from k2.tape.arbiter import SymbolTape

NEWEST_ID_PATIENCE_S = 20.0
"""How long REST, which may trail the stream, gets to show the last id on the tape."""

_log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the capture starts from."""

    writers: list[ShardWriter]
    tapes: dict[str, SymbolTape]
    writer_of: dict[str, ShardWriter]


async def admit(settings: Settings, rest: RestClient, *, fail_fast: bool) -> Admitted:
    """Prepare topics, schema, fence, identity and positions; refuse what could corrupt a tape.

    Raises:
        StopError: With the repairing command.
        UnavailableError: If a dependency is absent and ``fail_fast``.
    """
    names = TopicNames.of(settings.topic_prefix)
    bootstrap = settings.kafka_bootstrap
    admin = AdminClient(
        {"bootstrap.servers": bootstrap, "log_level": 2, "socket.timeout.ms": 10_000}
    )
    kafka, registry_name = f"Kafka at {bootstrap}", f"registry at {settings.schema_registry_url}"

    async def ask(what: str, call: Callable[[], T]) -> T:
        return await until_it_works(what, lambda: asyncio.to_thread(call), fail_fast=fail_fast)

    created = await ask(kafka, lambda: create_topics(admin, names, shards=settings.shards))
    if created:
        _log.info("topics_created", topics=created, partitions=settings.shards)
    facts = await ask(kafka, lambda: describe_topics(admin, [names.trades, names.gaps]))
    partitions = facts[names.trades].partitions
    registry = Registry(settings.schema_registry_url)
    schema_id = await ask(registry_name, lambda: registry.register(names.subject, SCHEMA_TEXT))

    writers = [
        ShardWriter(
            ShardSettings(
                shard=shard,
                bootstrap=bootstrap,
                names=names,
                batch_size=settings.batch_size,
                batch_timeout_s=settings.batch_timeout_s,
            )
        )
        for shard in range(partitions)
    ]
    # A look first, without fencing: a process that would be refused must not end a healthy writer.
    glimpsed = [await ask(kafka, writer.glimpse) for writer in writers]
    for record in glimpsed:
        check_identity(record.identity, identity_of(settings, facts, []))
    found = [await until_it_works(kafka, w.take_over, fail_fast=fail_fast) for w in writers]
    recorded = [record.identity for record in found if record.identity is not None]
    symbols = sorted({*settings.symbols, *(name for one in recorded for name in one.symbols)})
    if kept := sorted(set(symbols) - set(settings.symbols)):
        _log.info("symbols_kept", symbols=kept, why="recorded as active; leaving is explicit")
    identity = identity_of(settings, facts, symbols)
    writer_schema = parse_schema(SCHEMA_TEXT)
    for writer, record in zip(writers, found, strict=True):
        check_identity(record.identity, identity)
        shard = writer.settings.shard
        has_records, tail = await ask(
            kafka,
            lambda shard=shard: read_tail(  # type: ignore[misc]
                bootstrap, trades_topic=names.trades, shard=shard, writer_schema=writer_schema
            ),
        )
        check_position(record.position, topic_has_records=has_records, tail=tail)

    listed = await until_it_works(
        "exchange (REST)", lambda: rest.symbols(symbols), fail_fast=fail_fast
    )
    encoder = TradeEncoder(
        schema_id=schema_id,
        kind=settings.stream,
        environment=settings.environment,
        symbols=listed,
    )
    writer_of = {name: writers[shard_of(name, partitions=partitions)] for name in symbols}
    for writer, record in zip(writers, found, strict=True):
        await _start_writer(writer, record, identity, encoder)
    tapes = await asyncio.gather(
        *(
            _start_tape(name, writer_of[name].position.get(name), rest, fail_fast=fail_fast)
            for name in symbols
        )
    )
    return Admitted(writers, {tape.symbol: tape for tape in tapes}, writer_of)


def identity_of(settings: Settings, facts: dict[str, TopicFacts], symbols: list[str]) -> Identity:
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


async def _start_writer(
    writer: ShardWriter, record: ShardRecord, identity: Identity, encoder: TradeEncoder
) -> None:
    position = record.position or {}
    if record.identity != identity or record.position is None:
        try:
            await writer.write_identity(identity, position)
        except RetryError as exc:
            raise StopError(f"the identity could not be written: {exc}; start again") from exc
    writer.use(encoder, position)


async def _start_tape(
    symbol: str, position: SymbolPosition | None, rest: RestClient, *, fail_fast: bool
) -> SymbolTape:
    """Return the tape where its position ends; a new symbol starts after REST's newest id."""

    async def ask_newest() -> int | None:
        return await until_it_works(
            "exchange (REST)", lambda: rest.newest_id(symbol), fail_fast=fail_fast
        )

    newest_id = await ask_newest()
    if position is None:
        # None: it never traded (or a recording has not begun); its first trade starts the tape.
        next_id = None if newest_id is None else newest_id + 1
        _log.info("tape_begins", symbol=symbol, next_id=next_id)
        return SymbolTape(symbol, next_id=next_id)
    deadline_s = asyncio.get_running_loop().time() + NEWEST_ID_PATIENCE_S
    while (newest_id is None or newest_id < position.next_id - 1) and (
        asyncio.get_running_loop().time() < deadline_s
    ):
        await asyncio.sleep(0.5)
        newest_id = await ask_newest()
    check_newest(symbol, next_id=position.next_id, newest_id=newest_id)
    _log.info("tape_continues", symbol=symbol, next_id=position.next_id, newest_id=newest_id)
    return SymbolTape(symbol, next_id=position.next_id, previous_id=position.last_id)
