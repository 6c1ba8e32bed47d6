"""``k2 positions rebuild``: where each tape stands, written anew from the topics or the lake.

Rebuilding fences a running writer of the shard: stop every ``k2 stream`` first.
"""

import time
from collections.abc import Iterable, Sequence

import msgspec
import structlog

from k2.errors import RetryError, StopError
from k2.ingestion.admission import Prepared, identity_of, of_shard
from k2.ingestion.lake_look import lake_holds
from k2.ingestion.positions_look import Room, ShardShown, find_room
from k2.ingestion.rebuilt_position import position_from
from k2.ingestion.symbols_file import wanted_symbols
from k2.kafka.admin import KafkaAdmin
from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.kafka.lease import FALLBACK_SESSION_TIMEOUT_S, group_id, other_members
from k2.kafka.partition_reader import end_offset, first_offset
from k2.kafka.position import (
    IDENTITY_KEY,
    NOTHING_RECORDED,
    POSITION_KEY,
    ShardPosition,
    ShardRecord,
    SymbolPosition,
    encode_identity,
    encode_position,
)
from k2.kafka.positions import read_shard, read_tail
from k2.kafka.tape_reader import Held, TapeReader
from k2.kafka.topics import TopicNames, create_topics
from k2.kafka.transaction import Record, ShardProducer
from k2.market.wanted import could_be_listed
from k2.settings import Settings
from k2.tape.coverage import Coverage

WRITER_SHOWS_WITHIN_S = 1.5
"""A running writer commits several times in this time, unless its market is quiet."""

MEMBER_FORGOTTEN_S = FALLBACK_SESSION_TIMEOUT_S + 1.0
"""After so long the lease group has forgotten a member that was killed."""

LED_WITHIN_S = 10.0
LOOK_DELAY_S = 0.25

_log = structlog.get_logger()


def rebuild_from_topic(settings: Settings) -> list[ShardShown]:
    """Write each shard's position anew, from its trades, repairs and gaps.

    A symbol without trades in the topic keeps the position it had. Where that is lost too and
    retention has removed records, the lake is asked. Backfills that ran go on.

    Raises:
        StopError: If a symbol's tape may have ended in records that are gone, and no lake knows;
            or if a ``k2 stream`` is running.
    """
    room = find_room(settings)
    refuse_running_writer(room)
    rebuilt = []
    for shard in range(room.partitions):
        producer = _fencing_producer(room, shard)
        old = _read_old(room, shard)
        reader = TapeReader(room.kafka, shard=shard)
        tape = reader.trades(room.names.trades)
        present = room.names.repairs in room.facts
        repairs = reader.trades(room.names.repairs).ids if present else Coverage()
        gaps = reader.gap_records(room.names.gaps)
        known = dict(old.position.symbols) if old.position is not None else {}
        taped = of_shard(
            {*known, *tape.ids.symbols(), *(gap.symbol for gap in gaps)},
            shard,
            partitions=room.partitions,
        )
        active = of_shard(_active(settings, old, taped=taped), shard, partitions=room.partitions)
        if first_offset(room.kafka, room.names.trades, shard) > 0:
            # A position that can be read names every tape there is.
            wanted = taped | active if old.position is None else taped
            known = _with_lake(settings, known, wanted=wanted, tape=tape.ids)
        position = position_from(
            tape.ids,
            repairs=repairs,
            gaps=gaps,
            known=known,
            backfills=old.position.backfills if old.position is not None else {},
            last_ts_us=tape.last_ts_us,
        )
        accepted_to = end_offset(room.kafka, room.names.trades, shard)
        position = msgspec.structs.replace(position, accepted_to=accepted_to)
        rebuilt.append(_write(settings, room, producer, position, active))
    return rebuilt


def rebuild_from_lake(settings: Settings) -> list[ShardShown]:
    """Write each shard's position anew, from what the lake holds.

    For a Kafka that was lost while the lake survived: the stream then goes on where the lake
    ends. Start the archive with ``--from-first`` afterwards.

    Raises:
        StopError: If the topic holds trades already: the lake's end is not its end; or if a
            ``k2 stream`` is running.
    """
    admin = KafkaAdmin(settings.kafka)
    created = create_topics(admin, TopicNames.of(settings.topic_prefix), shards=settings.shards)
    room = find_room(settings)
    _until_led(room, created)
    refuse_running_writer(room)
    tape, gaps = lake_holds(settings)
    rebuilt = []
    for shard in range(room.partitions):
        producer = _fencing_producer(room, shard)
        has_records, _ = read_tail(
            room.kafka,
            trades_topic=room.names.trades,
            shard=shard,
            writer_schema=parse_schema(SCHEMA_TEXT),
        )
        if has_records:
            raise StopError(
                f"{room.names.trades} holds trades: if they are right use --from-topic; if they "
                "are not, delete the topics beside one another first, or set KAFKA_TOPIC_PREFIX"
            )
        old = _read_old(room, shard)
        mine = of_shard(
            {*tape.ids.symbols(), *(gap.symbol for gap in gaps)}, shard, partitions=room.partitions
        )
        position = position_from(
            Coverage({s: ranges for s, ranges in tape.ids.as_pairs().items() if s in mine}),
            repairs=Coverage(),
            gaps=[gap for gap in gaps if gap.symbol in mine],
            known={},
            backfills=old.position.backfills if old.position is not None else {},
            last_ts_us=tape.last_ts_us,
        )
        active = _active(settings, old, taped=mine)
        rebuilt.append(_write(settings, room, producer, position, active))
    return rebuilt


def refuse_running_writer(room: Room) -> None:
    """Refuse while somebody writes positions, or may by the lease: rebuilding would fence them.

    Raises:
        StopError: If a ``k2 stream`` is running.
    """

    def ends() -> list[int]:
        return [
            end_offset(room.kafka, room.names.positions, shard) for shard in range(room.partitions)
        ]

    before = ends()
    time.sleep(WRITER_SHOWS_WITHIN_S)
    if ends() != before:
        raise StopError("a `k2 stream` is writing these positions right now: stop it first")
    admin = KafkaAdmin(room.kafka)
    group = group_id(room.names.trades)
    deadline_s = time.monotonic() + MEMBER_FORGOTTEN_S
    while members := other_members(admin, group, client_id=""):
        if time.monotonic() > deadline_s:
            raise StopError(
                f"{members} `k2 stream` would write these positions (members of {group}): stop "
                "every one first, standbys too"
            )
        time.sleep(LOOK_DELAY_S)


def _until_led(room: Room, topics: Sequence[str]) -> None:
    """Wait until topics that were created just now can be asked."""
    deadline_s = time.monotonic() + LED_WITHIN_S
    for topic in topics:
        for shard in range(room.partitions):
            while True:
                try:
                    end_offset(room.kafka, topic, shard)
                except RetryError:
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(LOOK_DELAY_S)
                else:
                    break


def _read_old(room: Room, shard: int) -> ShardRecord:
    try:
        return read_shard(room.kafka, positions_topic=room.names.positions, shard=shard)
    except StopError as exc:  # a record that is no position is one of the reasons to rebuild
        _log.warning("old_position_unreadable", shard=shard, reason=str(exc))
        return NOTHING_RECORDED


def _active(settings: Settings, old: ShardRecord, *, taped: Iterable[str]) -> set[str]:
    """Return what is to be recorded: what was, whatever the settings name by now.

    Where no identity says it any more, it is what is wanted, and every symbol with a tape that is
    not wanted to leave.
    """
    if old.identity is not None:
        # An earlier version's rebuild could name what no symbol is called (`ALL:USDT`).
        return {name for name in old.identity.symbols if could_be_listed(name)}
    wanted = wanted_symbols(settings)
    return {*wanted.names, *taped} - wanted.leaving


def _with_lake(
    settings: Settings,
    known: dict[str, SymbolPosition],
    *,
    wanted: set[str],
    tape: Coverage,
) -> dict[str, SymbolPosition]:
    """Return what is known with what the lake adds: retention has removed records of the topic.

    Raises:
        StopError: If neither knows where a tape without trades in the topic ends.
    """
    traded = set(tape.symbols())
    if all(symbol in known and known[symbol].first_id is not None for symbol in wanted | traded):
        return known
    try:
        held, gaps = lake_holds(settings)
    except (StopError, RetryError):
        held, gaps = Held(Coverage(), {}), []
    in_lake = position_from(
        held.ids,
        repairs=Coverage(),
        gaps=gaps,
        known={},
        backfills={},
        last_ts_us=held.last_ts_us,
    ).symbols
    if absent := sorted(wanted - traded - known.keys() - in_lake.keys()):
        raise StopError(
            f"{', '.join(absent)}: no trade is left in the topic, whose first records retention "
            "removed, and the lake has none. Name the lake that has it with --lake; leave what was "
            "never recorded out of BINANCE_SYMBOLS or K2_SYMBOLS_FILE for now; where the tape is "
            "lost, start another: KAFKA_TOPIC_PREFIX"
        )
    added = {}
    for symbol in wanted | traded:
        if (where := known.get(symbol, in_lake.get(symbol))) is None:
            continue
        first_id = where.first_id
        if first_id is None and symbol in in_lake:
            first_id = in_lake[symbol].first_id
        added[symbol] = msgspec.structs.replace(where, first_id=first_id)
    return known | added


def _fencing_producer(room: Room, shard: int) -> ShardProducer:
    producer = ShardProducer(
        kafka=room.kafka,
        trades_topic=room.names.trades,
        shard=shard,
        # `init_transactions` over a transaction that is still open, or on a busy machine, is not
        # done with its first slice; how long it may take is bounded there. Ctrl-C ends a wait.
        keep_trying=lambda: True,
    )
    producer.initialise()
    return producer


def _write(
    settings: Settings,
    room: Room,
    producer: ShardProducer,
    position: ShardPosition,
    active: Iterable[str],
) -> ShardShown:
    nothing_encoded = -1
    prepared = Prepared(room.names, room.facts, nothing_encoded)
    mine = of_shard(active, producer.shard, partitions=room.partitions)
    identity = identity_of(settings, prepared, mine)
    producer.commit(
        [
            Record(room.names.positions, IDENTITY_KEY, encode_identity(identity)),
            Record(room.names.positions, POSITION_KEY, encode_position(position)),
        ]
    )
    return ShardShown(producer.shard, ShardRecord(identity, position))
