"""A partition read whole, however long it is: which ids a shard's topics hold, what was declared.

The read gives up when nothing comes for a while, not when there is much to read.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from k2.errors import RejectError, RetryError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.encoding import SCHEMA_TEXT, decode_record, parse_schema, split_wire
from k2.kafka.gap_records import GapRecord, decode_gap
from k2.kafka.shard_reader import EndAsker
from k2.tape.coverage import Coverage

QUIET_MAX_S = 30.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Held(NamedTuple):
    """What a partition of trades holds."""

    ids: Coverage
    last_ts_us: dict[str, int]
    """Symbol to the trade time of its last record."""


class TapeReader:
    """Reads the partitions of one shard from their first record to their end, fencing nobody."""

    def __init__(
        self,
        bootstrap: str,
        *,
        shard: int,
        isolation: str = "read_uncommitted",
        clients: Clients = LIBRARY,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the shard; every read makes clients of its own.

        ``isolation`` is that of the question where the end is, as in ``read_shard``: whoever has
        fenced the writer waits for everything below the high watermark, a mere look does not.
        """
        self._bootstrap = bootstrap
        self._shard = shard
        self._isolation = isolation
        self._clients = clients
        self._monotonic_s = monotonic_s

    def trades(self, topic: str) -> Held:
        """Return what a topic of trades holds; records that are not ours are passed over.

        Raises:
            RetryError: If the partition cannot be read to its end.
        """
        schema = parse_schema(SCHEMA_TEXT)
        found = Held(Coverage(), {})
        last_at: dict[str, datetime] = {}
        for value in self._values(topic):
            try:
                record = decode_record(split_wire(value)[1], schema)
                found.ids.add(record["symbol"], record["source_sequence"])
                last_at[record["symbol"]] = record["trade_ts_us"]
            except (RejectError, KeyError):
                continue
        for symbol, at in last_at.items():
            found.last_ts_us[symbol] = (at - _EPOCH) // timedelta(microseconds=1)
        return found

    def gap_records(self, topic: str) -> list[GapRecord]:
        """Return every declaration and repair, in order; what is neither is passed over.

        Raises:
            RetryError: If the partition cannot be read to its end.
        """
        records = []
        for value in self._values(topic):
            try:
                records.append(decode_gap(value))
            except RejectError:
                continue
        return records

    def _values(self, topic: str) -> Iterator[bytes | None]:
        """Yield committed values up to the end as asked for now."""
        asker = EndAsker(self._bootstrap, clients=self._clients)
        fenced = self._isolation == "read_uncommitted"
        ask = asker.high_watermark if fenced else asker.last_stable_offset
        try:
            end = ask(topic, self._shard)
        finally:
            asker.close()
        if end == 0:
            return
        consumer = self._clients.consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "k2-tape-reader",  # assign() only: the group is never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 20,  # the end is known only when a fetch found nothing
                "log_level": 2,  # what goes wrong is said by the caller, in its own words
            }
        )
        try:
            consumer.assign([TopicPartition(topic, self._shard, OFFSET_BEGINNING)])
            heard_s = self._monotonic_s()
            while self._monotonic_s() - heard_s < QUIET_MAX_S:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                problem = message.error()
                if problem is None:
                    heard_s = self._monotonic_s()
                    yield message.value()
                    if message.offset() + 1 >= end:
                        return
                elif problem.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its own name
                    if message.offset() >= end:
                        return
                elif not problem.retriable():
                    raise RetryError(f"Kafka cannot read {topic}: {problem.str()}")
            raise RetryError(f"{topic}: nothing came for {QUIET_MAX_S:g} s, its end is at {end}")
        finally:
            consumer.close()
