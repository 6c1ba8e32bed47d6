"""A shard's topics read whole: which ids they hold, what was declared."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from k2.errors import RejectError
from k2.kafka.clients import LIBRARY, Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import SCHEMA_TEXT, decode_record, parse_schema, split_wire
from k2.kafka.gap_records import GapRecord, decode_gap
from k2.kafka.partition_reader import PartitionReader
from k2.market.epoch import epoch_us
from k2.tape.coverage import Coverage


class Held(NamedTuple):
    """What a partition of trades holds."""

    ids: Coverage
    last_ts_us: dict[str, int]
    """Symbol to the trade time of its last record."""


class TapeReader:
    """Reads the partitions of one shard from their first record to their end, fencing nobody."""

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        shard: int,
        isolation: str = "read_uncommitted",
        clients: Clients = LIBRARY,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the shard; every read makes clients of its own.

        ``isolation`` is that of the question where the end is, as in ``PartitionReader.read``.
        """
        self._kafka = kafka
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
            found.last_ts_us[symbol] = epoch_us(at)
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
        reader = PartitionReader(
            self._kafka,
            topic,
            self._shard,
            clients=self._clients,
            monotonic_s=self._monotonic_s,
        )
        for message in reader.read(isolation=self._isolation):
            yield message.value()
