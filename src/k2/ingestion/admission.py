"""May this process record? Topics, schema, identity, position and exchange are asked first.

What can be known without fencing is asked before the lease is joined: a process that will be
refused must not end a healthy writer. What only the writer can know for certain is asked by
``admit``, once the lease has granted a shard and it was taken over. Each refusal names the command
that repairs it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from k2.errors import RetryError, StopError
from k2.ingestion.host import Host
from k2.ingestion.listing import refuse_unlisted, refuse_unlisted_yet
from k2.ingestion.ports import Rest
from k2.ingestion.shard import Shard
from k2.ingestion.shard_log import ShardLog
from k2.ingestion.supervision import until_it_works
from k2.kafka.admin import KafkaAdmin
from k2.kafka.encoding import SCHEMA_TEXT, VENUE
from k2.kafka.partitioning import shard_of
from k2.kafka.position import Identity, ShardRecord, SymbolPosition
from k2.kafka.positions import TAIL_RECORDS
from k2.kafka.refusals import (
    check_identity,
    check_newest,
    check_position,
)
from k2.kafka.topics import TopicFacts, TopicNames, create_topics, describe_topics, topic_facts
from k2.kafka.transaction import FencedError
from k2.market import Symbol, Trade
from k2.market.wanted import Wanted
from k2.settings import Settings

NEWEST_ID_PATIENCE_S = 10.0
"""How long REST gets to show the last id on the tape, or a trade from before it."""

EXCHANGE = "exchange (REST)"

_log = structlog.get_logger()
T = TypeVar("T")


class Prepared(NamedTuple):
    """What Kafka and the registry say before anything is written."""

    names: TopicNames
    facts: Mapping[str, TopicFacts]
    schema_id: int

    @property
    def partitions(self) -> int:
        """How many shards there are."""
        return self.facts[self.names.trades].partitions


class Start(NamedTuple):
    """What the recording starts from."""

    listed: dict[str, Symbol]
    newest_ids: dict[str, int | None]


async def prepare(settings: Settings, wanted: Wanted, *, fail_fast: bool) -> Prepared:
    """Create the topics that are absent and register the schema.

    Raises:
        UnlistedError: If there is no tape yet and the exchange does not list a wanted symbol.
        StopError: If the schema is incompatible or the topics do not fit together.
        UnavailableError: If a dependency is absent and ``fail_fast``.
    """
    names = TopicNames.of(settings.topic_prefix)
    kafka = f"Kafka at {settings.kafka_bootstrap}"
    admin = KafkaAdmin(settings.kafka, {"socket.timeout.ms": 10_000})

    async def ask(what: str, call: Callable[[], T]) -> T:
        return await until_it_works(what, lambda: asyncio.to_thread(call), fail_fast=fail_fast)

    if names.trades not in await ask(kafka, lambda: describe_topics(admin, [names.trades])):
        await refuse_unlisted_yet(settings, wanted)
    created = await ask(kafka, lambda: create_topics(admin, names, shards=settings.shards))
    if created:
        _log.info("topics_created", topics=created, partitions=settings.shards)
    facts = await ask(kafka, lambda: topic_facts(admin, names))
    registry = settings.registry

    async def register(subject: str) -> int:
        what = f"registry at {settings.schema_registry_url}"
        return await ask(what, lambda: registry.register(subject, SCHEMA_TEXT))

    await register(names.repairs_subject)
    schema_id = await register(names.subject)
    return Prepared(names, facts, schema_id)


async def look(
    settings: Settings, prepared: Prepared, logs: Iterable[ShardLog], *, host: Host, fail_fast: bool
) -> list[ShardRecord]:
    """Return what each shard says, fencing nobody, and refuse a tape of something else.

    It may be out of date: what follows from the position alone is judged by ``admit``.

    Raises:
        StopError: With the repairing command.
    """
    what = f"Kafka at {settings.kafka_bootstrap}"
    records = []
    for log in logs:
        record = await until_it_works(what, log.look, draw=host.draw, fail_fast=fail_fast)
        check_identity(record.identity, identity_of(settings, prepared, ()))
        records.append(record)
    return records


async def ask_exchange(
    wanted: Wanted,
    records: Iterable[ShardRecord],
    rest: Rest,
    *,
    host: Host,
    fail_fast: bool,
) -> Start:
    """Return the symbols to record and the newest id of each, and refuse a reset exchange.

    Raises:
        StopError: With the repairing command.
    """
    records = list(records)
    positions = all_positions(records)
    recorded = recorded_symbols(records) - wanted.leaving

    async def ask() -> dict[str, Symbol]:
        quoted = await rest.quoted_in(wanted.quotes) if wanted.quotes else set()
        return await rest.symbols(sorted(wanted.names | quoted - wanted.leaving | recorded))

    if kept := sorted(recorded - wanted.names) if not wanted.quotes else []:
        _log.info("symbols_kept", symbols=kept, why="recorded as active; leaving is explicit")
    listed = await until_it_works(EXCHANGE, ask, draw=host.draw, fail_fast=fail_fast)
    refuse_unlisted(wanted.names, listed, recorded=recorded, taped=positions)
    found = await asyncio.gather(
        *(
            newest_id(symbol, positions.get(symbol), rest, host=host, fail_fast=fail_fast)
            for symbol in sorted(listed)
        )
    )
    return Start(listed, dict(zip(sorted(listed), found, strict=True)))


async def newest_id(
    symbol: str, position: SymbolPosition | None, rest: Rest, *, host: Host, fail_fast: bool
) -> int | None:
    """Return the newest id REST has, and refuse an exchange that is behind the tape.

    Raises:
        StopError: If the exchange's ids were reset.
    """

    async def ask() -> int | None:
        return await until_it_works(
            EXCHANGE, lambda: rest.newest_id(symbol), draw=host.draw, fail_fast=fail_fast
        )

    newest = await ask()
    if position is None or (newest is not None and newest >= position.next_id - 1):
        return newest
    deadline_s = host.monotonic_s() + NEWEST_ID_PATIENCE_S
    while host.monotonic_s() < deadline_s:
        newest_ts_us = await _traded_us(symbol, newest, rest)
        try:
            check_newest(symbol, position, newest_id=newest, newest_ts_us=newest_ts_us)
        except StopError:
            await asyncio.sleep(0.5)  # a REST that was reached in the middle of a restart
            newest = await ask()
            continue
        _log.warning("rest_trails", symbol=symbol, newest_id=newest, next_id=position.next_id)
        return newest
    newest_ts_us = await _traded_us(symbol, newest, rest)
    check_newest(symbol, position, newest_id=newest, newest_ts_us=newest_ts_us)
    return newest


async def _traded_us(symbol: str, source_id: int | None, rest: Rest) -> int | None:
    """Return the trade time of an id, or None when REST does not say."""
    if source_id is None:
        return None
    try:
        rows = await rest.rows_from(symbol, from_id=source_id)
    except RetryError:
        return None
    return rows[0].trade_ts_us if rows and isinstance(rows[0], Trade) else None


async def admit(settings: Settings, prepared: Prepared, shard: Shard, *, host: Host) -> None:
    """Refuse to write on where that could corrupt the tape; asked by whoever just took over.

    Raises:
        FencedError: If another process has written meanwhile.
        StopError: With the repairing command.
    """
    check_identity(shard.told.identity, identity_of(settings, prepared, ()))
    if shard.seen_writing:
        return  # that writer was admitted, and nothing but its transactions came since
    what = f"Kafka at {settings.kafka_bootstrap}"
    record = shard.log.record
    has_records, tail = await until_it_works(
        what, partial(shard.log.tail, TAIL_RECORDS), draw=host.draw
    )
    try:
        check_position(record.position, topic_has_records=has_records, tail=tail)
    except StopError as exc:
        # The topic was read after the position: a successor may have written in between. What it
        # showed of that has its position below the end of `.positions` by now.
        again = await until_it_works(what, shard.log.read_to_end, draw=host.draw)
        if again.position == record.position:
            raise
        raise FencedError(
            f"shard {shard.settings.shard}: the position moved while we took it over"
        ) from exc


def identity_of(settings: Settings, prepared: Prepared, symbols: Iterable[str]) -> Identity:
    """Return what a tape written with these settings to these topics is a tape of."""
    names, facts = prepared.names, prepared.facts
    return Identity(
        venue=VENUE,
        environment=settings.environment,
        stream_kind=settings.stream.value,
        topic_ids={topic: facts[topic].topic_id for topic in (names.trades, names.gaps)},
        partitions=prepared.partitions,
        symbols=sorted(symbols),
    )


def recorded_symbols(records: Iterable[ShardRecord]) -> set[str]:
    """Return the active set, as the shards' identities tell it."""
    return {
        name
        for record in records
        if record.identity is not None
        for name in record.identity.symbols
    }


def all_positions(records: Iterable[ShardRecord]) -> dict[str, SymbolPosition]:
    """Return where every symbol's tape ends."""
    return {
        name: where
        for record in records
        if record.position is not None
        for name, where in record.position.symbols.items()
    }


def of_shard(symbols: Iterable[str], shard: int, *, partitions: int) -> set[str]:
    """Return those symbols that live in a shard."""
    return {name for name in symbols if shard_of(name, partitions=partitions) == shard}
