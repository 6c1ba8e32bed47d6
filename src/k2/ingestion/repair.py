"""``k2 positions``: show where each tape ends, and rebuild that from the topic or the lake.

Rebuilding fences a running writer of the shard, which then stops: stop ``k2 stream`` first.
"""

import time
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
import structlog
from confluent_kafka.admin import AdminClient

from k2.errors import RetryError, StopError
from k2.ingestion.admission import identity_of
from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.kafka.partitioning import shard_of
from k2.kafka.position import (
    IDENTITY_KEY,
    POSITION_KEY,
    ShardRecord,
    SymbolPosition,
    encode_identity,
    encode_position,
)
from k2.kafka.positions import end_offset, first_offset, read_gaps, read_shard, read_tail
from k2.kafka.topics import TopicFacts, TopicNames, create_topics, describe_topics
from k2.kafka.transaction import Record, ShardProducer
from k2.lake.commit_plan import COVERAGE
from k2.lake.query import LakeReader
from k2.lake.tables import open_catalog, require_table
from k2.market import IdRange
from k2.settings import Settings
from k2.tape.coverage import Coverage

WRITER_SHOWS_WITHIN_S = 1.5
"""A running writer commits several times in this time, unless its market is quiet."""

_log = structlog.get_logger()


class ShardShown(msgspec.Struct, frozen=True):
    """One shard's record, as ``k2 positions show`` prints it."""

    shard: int
    record: ShardRecord


def show_positions(settings: Settings) -> list[ShardShown]:
    """Return what ``.positions`` says of every shard; fences nobody.

    Raises:
        RetryError: If Kafka cannot be reached or the topics do not exist.
    """
    names, facts = _topics(settings)
    return [
        ShardShown(
            shard,
            read_shard(
                settings.kafka_bootstrap,
                positions_topic=names.positions,
                shard=shard,
                isolation="read_committed",
            ),
        )
        for shard in range(facts[names.positions].partitions)
    ]


def rebuild_from_topic(settings: Settings) -> list[ShardShown]:
    """Write each shard's position anew, from the committed end of its trades and gaps.

    A symbol without trades in the topic keeps the position it had. Where that is lost too and
    retention has removed records, the lake is asked.

    Raises:
        StopError: If a symbol's tape may have ended in records that are gone, and no lake knows.
    """
    names, facts = _topics(settings)
    _refuse_running_writer(settings, names, facts)
    rebuilt = []
    for shard in range(facts[names.trades].partitions):
        producer = _fencing_producer(settings, names, shard)
        old = _read_old(settings, names, shard)
        tail = partial(
            read_tail,
            settings.kafka_bootstrap,
            trades_topic=names.trades,
            shard=shard,
            writer_schema=parse_schema(SCHEMA_TEXT),
        )
        _, last_ids = tail(whole=True)
        gaps = read_gaps(settings.kafka_bootstrap, gaps_topic=names.gaps, shard=shard)
        position = {**(old.position or {}), **position_from(last_ids, gaps)}
        recorded = set(old.identity.symbols) if old.identity is not None else set()
        lost = [
            symbol
            for symbol in sorted({*settings.symbols, *recorded} - position.keys())
            if shard_of(symbol, partitions=facts[names.trades].partitions) == shard
        ]
        if lost and first_offset(settings.kafka_bootstrap, names.trades, shard) > 0:
            position |= _from_lake_or_refuse(settings, lost)
        rebuilt.append(_write(settings, facts, producer, position, recorded))
    return rebuilt


def rebuild_from_lake(settings: Settings) -> list[ShardShown]:
    """Write each shard's position anew, from the last ids the lake holds.

    For a Kafka that was lost while the lake survived: the stream then goes on where the lake
    ends. Start the archive with ``--from-first`` afterwards.

    Raises:
        StopError: If the topic holds trades already: the lake's end is not its end.
    """
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 2})
    create_topics(admin, TopicNames.of(settings.topic_prefix), shards=settings.shards)
    names, facts = _topics(settings)
    _refuse_running_writer(settings, names, facts)
    everything = lake_position(settings)
    partitions = facts[names.trades].partitions
    rebuilt = []
    for shard in range(partitions):
        producer = _fencing_producer(settings, names, shard)
        has_records, _ = read_tail(
            settings.kafka_bootstrap,
            trades_topic=names.trades,
            shard=shard,
            writer_schema=parse_schema(SCHEMA_TEXT),
        )
        if has_records:
            raise StopError(
                f"{names.trades} holds trades: if they are right use --from-topic; if they are "
                "not, delete the topics beside one another first, or set KAFKA_TOPIC_PREFIX"
            )
        position = {
            symbol: where
            for symbol, where in everything.items()
            if shard_of(symbol, partitions=partitions) == shard
        }
        rebuilt.append(_write(settings, facts, producer, position, set()))
    return rebuilt


def lake_position(settings: Settings) -> dict[str, SymbolPosition]:
    """Return where each tape ends in the lake.

    Raises:
        StopError: If there is no lake.
    """
    catalog = open_catalog(
        lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
    )
    properties = require_table(catalog, "trades").properties
    coverage = Coverage(msgspec.json.decode(properties.get(COVERAGE, "{}")))
    last_ids = {symbol: coverage.ranges(symbol)[-1].last_id for symbol in coverage.symbols()}
    rows = LakeReader(catalog).run("SELECT symbol, first_id, last_id FROM gaps").rows
    return position_from(last_ids, [(symbol, IdRange(first, last)) for symbol, first, last in rows])


def _read_old(settings: Settings, names: TopicNames, shard: int) -> ShardRecord:
    try:
        return read_shard(settings.kafka_bootstrap, positions_topic=names.positions, shard=shard)
    except StopError as exc:  # a record that is no position is one of the reasons to rebuild
        _log.warning("old_position_unreadable", shard=shard, reason=str(exc))
        return ShardRecord(None, None)


def _from_lake_or_refuse(settings: Settings, symbols: list[str]) -> dict[str, SymbolPosition]:
    try:
        known = lake_position(settings)
    except StopError:
        known = {}
    if absent := [symbol for symbol in symbols if symbol not in known]:
        raise StopError(
            f"{', '.join(absent)}: no trade is left in the topic, whose first records retention "
            "removed, and the lake has none. Leave the symbol out (--symbols) to start its tape "
            "anew later, or name the lake with --lake"
        )
    return {symbol: known[symbol] for symbol in symbols}


def position_from(
    last_ids: Mapping[str, int], gaps: Iterable[tuple[str, IdRange]]
) -> dict[str, SymbolPosition]:
    """Return the position of tapes that end with these ids and these declared gaps."""
    position = {
        symbol: SymbolPosition(last_id + 1, last_id) for symbol, last_id in last_ids.items()
    }
    for symbol, ids in sorted(gaps, key=lambda gap: gap[1]):
        was = position.get(symbol)
        if was is None:
            position[symbol] = SymbolPosition(ids.last_id + 1, None)
        elif ids.first_id <= was.next_id <= ids.last_id:
            position[symbol] = SymbolPosition(ids.last_id + 1, was.last_id)
    return position


def _topics(settings: Settings) -> tuple[TopicNames, dict[str, TopicFacts]]:
    names = TopicNames.of(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 2})
    try:
        facts = describe_topics(admin, [names.trades, names.positions, names.gaps])
    except RetryError as exc:
        raise RetryError(f"{settings.kafka_bootstrap}: {exc}") from exc
    if len(facts) < 3:
        raise RetryError(
            f"the topics of {names.trades} do not exist at {settings.kafka_bootstrap}: "
            "`k2 stream` creates them"
        )
    return names, facts


def _refuse_running_writer(
    settings: Settings, names: TopicNames, facts: Mapping[str, TopicFacts]
) -> None:
    """Refuse while positions are being written: rebuilding would fence that writer."""

    def ends() -> list[int]:
        return [
            end_offset(settings.kafka_bootstrap, names.positions, shard)
            for shard in range(facts[names.positions].partitions)
        ]

    before = ends()
    time.sleep(WRITER_SHOWS_WITHIN_S)
    if ends() != before:
        raise StopError("a `k2 stream` is writing these positions right now: stop it first")


def _fencing_producer(settings: Settings, names: TopicNames, shard: int) -> ShardProducer:
    producer = ShardProducer(
        bootstrap=settings.kafka_bootstrap,
        trades_topic=names.trades,
        shard=shard,
        keep_trying=lambda: False,
    )
    producer.initialise()
    return producer


def _write(
    settings: Settings,
    facts: dict[str, TopicFacts],
    producer: ShardProducer,
    position: dict[str, SymbolPosition],
    recorded: set[str],
) -> ShardShown:
    names = TopicNames.of(settings.topic_prefix)
    symbols = sorted({*settings.symbols, *position, *recorded})
    identity = identity_of(settings, facts, symbols)
    producer.commit(
        [
            Record(names.positions, IDENTITY_KEY, encode_identity(identity)),
            Record(names.positions, POSITION_KEY, encode_position(position)),
        ]
    )
    return ShardShown(producer.shard, ShardRecord(identity, position))
