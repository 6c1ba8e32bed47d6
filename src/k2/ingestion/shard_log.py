"""One shard in Kafka, for the event loop: follow it, become its writer, commit to it.

The lease says who should write; ``take_over`` decides who can: it fences every earlier writer,
and then reads the position to its end, of which nothing can be open or undecided any more.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from k2.errors import RetryError
from k2.ingestion.host import Host
from k2.ingestion.trouble import Trouble
from k2.ingestion.workers import Worker
from k2.kafka.clients import Clients
from k2.kafka.connection import KafkaConnection
from k2.kafka.encoding import SCHEMA_TEXT, parse_schema
from k2.kafka.gap_records import GapRecord
from k2.kafka.position import ShardRecord
from k2.kafka.positions import read_tail
from k2.kafka.shard_reader import EndAsker, ShardFollower
from k2.kafka.tape_reader import TapeReader
from k2.kafka.topics import TopicNames
from k2.kafka.transaction import Record, ShardProducer

FOLLOW_DEADLINE_S = 30.0
RETRY_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What a shard needs to know."""

    shard: int
    kafka: KafkaConnection
    names: TopicNames
    batch_size: int
    batch_timeout_s: float
    poll_s: float
    """Longest one look for new positions blocks its thread, and a shutdown."""
    shards: int = 1
    """How many the process has to keep in memory."""


class ShardLog:
    """Kafka's calls of one shard: commits on one thread, the follower on another."""

    def __init__(
        self,
        settings: ShardSettings,
        *,
        clients: Clients,
        worker: Callable[[str], Worker],
        host: Host,
        keep_trying: Callable[[], bool],
    ) -> None:
        """Prepare; nothing is contacted yet. ``keep_trying`` is asked while Kafka is away."""
        self.settings = settings
        self._clients = clients
        self._host = host
        self._keep_trying = keep_trying
        self._kafka = worker(f"shard-{settings.shard}")
        self._following = worker(f"follow-{settings.shard}")
        self._reading = worker(f"read-{settings.shard}")
        self._progress = asyncio.Event()
        self._unreadable = Trouble("positions_not_readable", host.monotonic_s, shard=settings.shard)
        self._cold = Trouble("producer_not_warm", host.monotonic_s, shard=settings.shard)
        self._producer = ShardProducer(
            kafka=settings.kafka,
            trades_topic=settings.names.trades,
            shard=settings.shard,
            keep_trying=keep_trying,
            clients=clients,
            monotonic_s=host.monotonic_s,
        )
        self._follower = ShardFollower(
            settings.kafka,
            positions_topic=settings.names.positions,
            shard=settings.shard,
            clients=clients,
            poll_s=settings.poll_s,
            monotonic_s=host.monotonic_s,
        )
        self._ends = EndAsker(settings.kafka, clients=clients)

    @property
    def record(self) -> ShardRecord:
        """What the shard's committed records have said so far."""
        return self._follower.record

    @property
    def last_written_ms(self) -> int | None:
        """When the last record that was read was written, by its writer's clock: unix ms."""
        return self._follower.last_written_ms

    @property
    def recalls(self) -> int:
        """How often a commit had to be called again because Kafka did not answer in time."""
        return self._producer.recalls

    @property
    def unread(self) -> str:
        """Why the shard's positions cannot be read now; nothing when they can."""
        return self._unreadable.reason

    @property
    def initialised(self) -> bool:
        """Whether a transaction can begin."""
        return self._producer.initialised

    async def follow(self, changed: Callable[[], None]) -> None:
        """Read the shard's positions for ever; tell of each change.

        Raises:
            StopError: If a record cannot be understood; it names the repairing command.
        """
        while True:
            try:
                news = await self._following.run(self._follower.follow)
            except RetryError as exc:
                self._unreadable.met(str(exc))
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            self._unreadable.over()
            self._progress.set()
            if news:
                changed()

    async def warm(self) -> None:
        """Connect a producer, fencing nobody: taking over is then a matter of milliseconds."""
        try:
            await self._kafka.run(self._producer.warm)
        except RetryError as exc:
            self._cold.met(str(exc))
        else:
            self._cold.over()

    async def look(self) -> ShardRecord:
        """Return what the shard says now, fencing nobody; it may be out of date.

        Raises:
            RetryError: If Kafka cannot be reached.
        """
        return await self._read_to(self._ends.last_stable_offset)

    async def take_over(self) -> ShardRecord:
        """Fence whoever wrote before, then read what the tape is and where it ends.

        Raises:
            RetryError: If Kafka cannot be reached.
        """
        await self._kafka.run(self._producer.initialise)
        try:
            return await self.read_to_end()
        except RetryError:
            # An initialised producer whose position nobody has read must not write.
            await self.release()
            raise

    async def read_to_end(self) -> ShardRecord:
        """Return what the shard says once every transaction that is open now has ended.

        Raises:
            RetryError: If Kafka cannot be reached, or one stays open for too long.
        """
        return await self._read_to(self._ends.high_watermark)

    async def commit(self, records: Callable[[], Iterable[Record]]) -> None:
        """Write the records (made on the worker thread) in one transaction.

        Raises:
            RetryError: If it was aborted: nothing of it is visible.
            ReconcileError: If its outcome is unknown.
            FencedError: If another process is the writer now.
        """
        await self._kafka.run(lambda: self._producer.commit(records()))

    async def tail(self, records: int) -> tuple[bool, dict[str, int]]:
        """Return whether the trades partition ever held a record, and each symbol's last id."""
        position = self.record.position
        return await self._kafka.run(
            lambda: read_tail(
                self.settings.kafka,
                trades_topic=self.settings.names.trades,
                shard=self.settings.shard,
                writer_schema=parse_schema(SCHEMA_TEXT),
                records=records,
                from_offset=position.accepted_to if position is not None else 0,
                clients=self._clients,
                monotonic_s=self._host.monotonic_s,
            )
        )

    async def gap_records(self) -> list[GapRecord]:
        """Return every declaration and repair there is, once whatever is open now has ended.

        Commits go on meanwhile.

        Raises:
            RetryError: If Kafka cannot be read.
        """
        reader = TapeReader(
            self.settings.kafka,
            shard=self.settings.shard,
            clients=self._clients,
            monotonic_s=self._host.monotonic_s,
        )
        return await self._reading.run(lambda: reader.gap_records(self.settings.names.gaps))

    async def release(self) -> None:
        """Give the producer up."""
        await self._kafka.run(self._producer.destroy)

    async def close(self) -> None:
        """Let go of everything."""
        await self.release()
        await self._kafka.run(self._ends.close)
        self._kafka.close()
        await self._following.run(self._follower.close)
        self._following.close()
        self._reading.close()

    async def _read_to(self, end: Callable[[str, int], int]) -> ShardRecord:
        topic, shard = self.settings.names.positions, self.settings.shard
        seen = self._follower.next_offset
        offset = await self._kafka.run(lambda: end(topic, shard))
        if offset < seen:
            # What was read beyond it is gone: a broker came back without it, or does not lead yet.
            raise RetryError(f"{topic} ends at offset {offset}, and was read to {seen} before")
        await self._follow_to(offset)
        return self.record

    async def _follow_to(self, offset: int) -> None:
        deadline_s = self._host.monotonic_s() + FOLLOW_DEADLINE_S
        while self._follower.next_offset < offset or self._follower.behind:
            left_s = deadline_s - self._host.monotonic_s()
            if left_s <= 0 or not self._keep_trying():
                raise RetryError(
                    f"{self.settings.names.positions} was not read to offset {offset} in time"
                )
            self._progress.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._progress.wait()
            except TimeoutError:
                continue
