"""A capture in miniature, for the tests of the world alone: it must hold the promise here.

One writer by lease and fence, the rest wait; holes are healed by REST. ``Guards`` can be taken
away one by one, and then the judge has to find a violation: that shows that the world can hurt.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from k2.binance.frames import frame_decoder
from k2.errors import RejectError, RetryError
from k2.kafka.encoding import TradeEncoder
from k2.kafka.gap_records import encode_gap
from k2.kafka.topics import TopicNames
from k2.market import Gap, StreamKind, Symbol, Trade
from k2.tape.arbiter import Placed, SymbolTape
from k2.tape.healing import place_page
from simulation.world.blocking import Worker, wait_s
from simulation.world.kafka_producer import SimProducer
from simulation.world.world import Process

_decode = frame_decoder(StreamKind.AGG_TRADE)


@dataclass(frozen=True)
class Guards:
    """What the toy does to be safe."""

    position_in_transaction: bool = True
    position_after_unknown: bool = True
    renew_after_resumed: bool = True
    fence: bool = True
    read_to_watermark: bool = True


class Toy:
    """One incarnation."""

    def __init__(
        self, process: Process, symbols: list[str], topics: TopicNames, guards: Guards
    ) -> None:
        self._process = process
        self._symbols = symbols
        self._topics = topics
        self._guards = guards
        self._tapes: dict[str, SymbolTape] = {}
        self._ring: list[Placed | Gap] = []
        self._worker = Worker()
        self._producer: SimProducer | None = None
        self._holding = False
        self._wake = asyncio.Event()
        self._encoder = TradeEncoder(
            schema_id=1,
            kind=StreamKind.AGG_TRADE,
            environment="simulated",
            symbols={name: Symbol(name, name[:3], name[3:]) for name in symbols},
        )

    async def run(self) -> None:
        """Capture until SIGTERM."""
        tasks = [asyncio.create_task(self._leg(f"ws://{leg}.exchange/ws")) for leg in ("a", "b")]
        tasks += [asyncio.create_task(self._lease()), asyncio.create_task(self._write())]
        stopping = asyncio.create_task(self._process.stop.wait())
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()

    # Input.

    async def _leg(self, url: str) -> None:
        while True:
            ear = _Ear(self)
            try:
                ear.socket = await self._process.exchange.connect(url, ear)
            except RetryError:
                await asyncio.sleep(self._process.rng.uniform(0.5, 2))
                continue
            names = [f"{symbol.lower()}@aggTrade" for symbol in self._symbols]
            ear.socket.send_text(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
            self._wake.set()
            while not ear.over.is_set():
                try:
                    async with asyncio.timeout(30):
                        await ear.over.wait()
                except TimeoutError:
                    if asyncio.get_running_loop().time() - ear.heard_s > 45:
                        ear.socket.abort()
            await asyncio.sleep(self._process.rng.uniform(0.2, 1))

    def frame(self, payload: bytes, recv_ts_ns: int) -> None:
        """Take a frame of either leg."""
        try:
            message = _decode(payload, recv_ts_ns)
        except RejectError:
            self._wake.set()
            return
        if isinstance(message, Trade) and (tape := self._tapes.get(message.symbol)) is not None:
            self._ring += tape.offer(message)
            self._wake.set()

    async def _heal(self) -> None:
        for symbol, tape in list(self._tapes.items()):
            while tape.next_id is not None and self._tapes.get(symbol) is tape:
                asked_id = tape.next_id
                rows = await self._process.rest.rows_from(symbol, from_id=asked_id)
                if self._tapes.get(symbol) is not tape:
                    return
                page = place_page(tape, [row for row in rows if row.source_id >= tape.next_id])
                self._ring += page.items
                if not page.more:
                    newest_id = rows[-1].source_id if rows else asked_id
                    tape.disbelieve(above_id=newest_id + 10**6)
                    break

    # Output.

    async def _lease(self) -> None:
        config = {"group.id": "lease", "session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
        consumer = self._process.kafka.consumer({**config, "max.poll.interval.ms": 3000})

        def assigned(*_: Any) -> None:
            self._holding = True

        def gone(*_: Any) -> None:
            self._step_down()
            self._holding = False

        consumer.subscribe([self._topics.lease], on_assign=assigned, on_revoke=gone, on_lost=gone)
        try:
            while True:
                consumer.poll(0)
                self._wake.set()
                await asyncio.sleep(0.5)
        finally:
            consumer.close()

    def _step_down(self) -> None:
        self._producer = None
        self._tapes = {}
        self._ring = []

    async def _write(self) -> None:
        heal_at_s = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(0.05)
            try:
                if not self._holding and self._guards.fence:
                    continue
                if self._producer is None:
                    await self._take_over()
                now_s = asyncio.get_running_loop().time()
                holes = any(tape.hole is not None for tape in self._tapes.values())
                if now_s >= heal_at_s:
                    await self._heal()
                    heal_at_s = now_s + (1 if holes else 5)
                if self._ring and self._producer is not None:
                    await self._commit()
            except RetryError:
                await asyncio.sleep(0.5)
            except KafkaException:
                self._step_down()
                await asyncio.sleep(0.5)

    async def _take_over(self) -> None:
        producer, position = await self._worker.run(self._start)
        newest = {symbol: await self._process.rest.newest_id(symbol) for symbol in self._symbols}
        self._producer, self._ring = producer, []
        self._tapes = {}
        for symbol in self._symbols:
            where = position.get(symbol)
            start = None if newest[symbol] is None else (newest[symbol] or 0) + 1
            self._tapes[symbol] = SymbolTape(
                symbol,
                next_id=where["next_id"] if where else start,
                previous_id=where["last_id"] if where else None,
            )
        self._position = position

    def _start(self) -> tuple[SimProducer, dict[str, Any]]:
        name = "x" if self._guards.fence else f"x-{self._process.node.name}"
        producer = self._process.kafka.producer({"transactional.id": name})
        producer.list_topics(timeout=5)
        producer.init_transactions(30)
        return producer, self._read_position()

    def _read_position(self) -> dict[str, Any]:
        level = "read_uncommitted" if self._guards.read_to_watermark else "read_committed"
        partition = TopicPartition(self._topics.positions, 0, 0)
        asker = self._process.kafka.consumer({"isolation.level": level})
        _, end = asker.get_watermark_offsets(partition, timeout=10)
        asker.close()
        reader = self._process.kafka.consumer(
            {"isolation.level": "read_committed", "enable.partition.eof": True}
        )
        reader.assign([partition])
        position: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 30
        try:
            while end and loop.time() < until_s:
                message = reader.poll(1)
                if message is None:
                    continue
                if message.error() is not None:
                    if message.offset() >= end:
                        return position
                elif message.key() == b"position":
                    position = json.loads(message.value() or b"")["symbols"]
                if message.error() is None and message.offset() + 1 >= end:
                    return position
            if end:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return position
        finally:
            reader.close()

    async def _commit(self) -> None:
        batch, producer = list(self._ring), self._producer
        assert producer is not None
        after = {symbol: dict(where) for symbol, where in self._position.items()}
        for item in batch:
            if isinstance(item, Gap):
                last_id = after.get(item.symbol, {}).get("last_id")
                after[item.symbol] = {"next_id": item.ids.last_id + 1, "last_id": last_id}
            else:
                source_id = item.trade.source_id
                after[item.trade.symbol] = {"next_id": source_id + 1, "last_id": source_id}
        fine = await self._worker.run(lambda: self._commit_blocking(producer, batch, after))
        if self._producer is producer or self._producer is None:
            del self._ring[: len(batch)]
            self._position = after
        if not fine and self._producer is producer:
            self._step_down()

    def _commit_blocking(
        self, producer: SimProducer, batch: list[Placed | Gap], after: dict[str, Any]
    ) -> bool:
        """Commit, and say whether the producer may be used again."""
        while True:
            try:
                return self._try_commit(producer, batch, after)
            except KafkaException as exc:
                if self._guards.position_after_unknown or exc.args[0].code() == KafkaError._FENCED:
                    raise
                wait_s(0.5)
                producer, _ = self._start()  # and the same batch again, on a guess

    def _try_commit(
        self, producer: SimProducer, batch: list[Placed | Gap], after: dict[str, Any]
    ) -> bool:
        topics = self._topics
        producer.begin_transaction()
        for item in batch:
            if isinstance(item, Gap):
                producer.produce(topics.gaps, value=encode_gap(item, declared_ts_us=0))
            else:
                producer.produce(topics.trades, value=self._encoder.encode(item), key=b"k")
        value = json.dumps({"symbols": after}).encode()
        if self._guards.position_in_transaction:
            producer.produce(topics.positions, value=value, key=b"position")
        resumed = self._resolve(producer)
        if not self._guards.position_in_transaction:
            producer.begin_transaction()
            producer.produce(topics.positions, value=value, key=b"position")
            resumed = self._resolve(producer) or resumed
        return not (resumed and self._guards.renew_after_resumed)

    def _resolve(self, producer: SimProducer) -> bool:
        resumed = False
        while True:
            try:
                producer.commit_transaction(5)
            except KafkaException as exc:
                if not exc.args[0].retriable():
                    raise
                resumed = True
            else:
                return resumed


class _Ear:
    """Hears one socket."""

    def __init__(self, toy: Toy) -> None:
        self.socket: Any = None
        self.over = asyncio.Event()
        self.heard_s = asyncio.get_running_loop().time()
        self._toy = toy

    def text(self, payload: bytes, recv_ts_ns: int) -> None:
        self._hear()
        self._toy.frame(payload, recv_ts_ns)

    def pinged(self) -> None:
        self._hear()

    def ponged(self) -> None:
        self._hear()

    def refused(self, code: int, text: str) -> None:
        """Wait for the end."""

    def ended(self) -> None:
        self.over.set()

    def _hear(self) -> None:
        self.heard_s = asyncio.get_running_loop().time()
