"""What the integration tests share: real services as child processes, and an independent reader.

The reader decodes the topic and counts by itself; nothing of the product's own proof is used to
judge the topic, and the exchange's ledger is what both are compared with.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from integration.samples import Samples
from k2.ingestion import binance_client
from k2.lake.proof import Proof, prove
from k2.lake.query import LakeReader
from k2.lake.tables import open_catalog
from k2.local.background import BackgroundStack
from k2.local.ports import pick_free
from k2.market import StreamKind
from k2.simulator import Ledger, TapeRow

DEADLINE_S = 60.0
NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], *, what: str, deadline_s: float = DEADLINE_S) -> T:
    """Return the condition's first true value, or fail when the deadline has passed."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline_s:g} s: {what}")


def plain_environ() -> dict[str, str]:
    """Return our environment without anything a service of k2 reads."""
    ours = ("K2_", "BINANCE_", "KAFKA_", "SCHEMA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass
class Process:
    """One service as production runs it, its output in a file."""

    argv: list[str]
    environ: dict[str, str]
    output: Path
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        """Start it (again)."""
        with self.output.open("ab") as output:
            self.popen = subprocess.Popen(
                self.argv, env=self.environ, stdout=output, stderr=subprocess.STDOUT
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.popen is not None
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait(10)

    def end(self, deadline_s: float = 20.0) -> int:
        """SIGTERM; return the exit code."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(deadline_s)

    def wait(self, deadline_s: float = 30.0) -> int:
        """Return the exit code of a process that ends by itself."""
        assert self.popen is not None
        return self.popen.wait(deadline_s)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.popen is not None and self.popen.poll() is None

    def log(self) -> str:
        """Return everything it said."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log events of one name."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event.get("event") == name]


@dataclass
class Room:
    """One test's place: a topic prefix, a lake and an exchange of its own, on a shared stack."""

    stack: BackgroundStack
    path: Path
    prefix: str
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "PEPEUSDT")
    processes: list[Process] = field(default_factory=list)
    exchange_url: str = ""
    extra: dict[str, str] = field(default_factory=dict)
    poison: Collection[bytes] = (b"not Avro",)
    """Values a test put into the topic by hand; empty for a tombstone."""
    measured: bool = False
    """Whether services started from now on serve metrics and health, on ports of their own."""

    @property
    def topic(self) -> str:
        """The trades topic."""
        return f"{self.prefix}.binance"

    @property
    def lake_dir(self) -> Path:
        """The lake."""
        return self.path / "lake"

    @property
    def dead_letter_dir(self) -> Path:
        """Where dead letters go."""
        return self.path / "dlq"

    def environ(self) -> dict[str, str]:
        """Return the services' environment, from the runbooks' own variables."""
        address = self.stack.address
        return {
            **plain_environ(),
            "KAFKA_BOOTSTRAP": address.bootstrap,
            "SCHEMA_REGISTRY_URL": address.registry_url,
            "KAFKA_TOPIC_PREFIX": self.prefix,
            "BINANCE_SYMBOLS": ",".join(self.symbols),
            "BINANCE_WS_URL": self.exchange_url.replace("http", "ws") + "/ws",
            "BINANCE_REST_URL": self.exchange_url,
            "BINANCE_RECONNECT_DELAY_MIN": "0.1",
            "BINANCE_RECONNECT_DELAY_MAX": "1",
            "K2_STATE_DIR": str(self.path),
            "K2_LAKE_DIR": str(self.lake_dir),
            "K2_DLQ_DIR": str(self.dead_letter_dir),
            "K2_METRICS_PORT": "0",
            "K2_HEALTH_PORT": "0",
            "K2_ARCHIVE_METRICS_PORT": "0",
            "K2_ARCHIVE_HEALTH_PORT": "0",
            "K2_FLUSH_AGE": "0.5",
            "K2_LOG_FILE": "off",
            **self.extra,
        }

    def process(self, name: str, argv: list[str]) -> Process:
        """Describe a process of this room; it is ended with the room."""
        process = Process(argv, self.environ(), self.path / f"{len(self.processes)}-{name}.out")
        if self.measured:
            names = ("K2_METRICS_PORT", "K2_HEALTH_PORT", "K2_ARCHIVE_METRICS_PORT")
            ports = pick_free(len(names))
            process.environ |= {n: str(port) for n, port in zip(names, ports, strict=True)}
        self.processes.append(process)
        return process

    def metrics(self, service: Process) -> Samples:
        """Return what a measured service's metrics say; waits until they are served."""
        return wait_for(
            lambda: Samples.scrape(self.metrics_port(service)),
            what=f"metrics of {service.output.stem}",
        )

    def metrics_port(self, service: Process) -> int:
        """Return where a measured service serves its metrics."""
        of_archive = "archive" in service.argv
        return int(service.environ["K2_ARCHIVE_METRICS_PORT" if of_archive else "K2_METRICS_PORT"])

    def exchange(self, *flags: str) -> Process:
        """Start the exchange in a box on a data directory that survives it."""
        argv = [sys.executable, "-m", "k2", "exchange", "--json", *flags]
        argv += ["--data-dir", str(self.path / "exchange"), "--symbols", *self.symbols]
        if "--port" not in flags:
            argv += ["--port", "0"]
        process = self.process("exchange", argv).start()
        first = wait_for(
            lambda: process.log().partition("\n")[0] if "\n" in process.log() else None,
            what="the exchange to say its address",
        )
        self.exchange_url = json.loads(first)["rest_url"]
        return process

    def stream(self, *flags: str, name: str = "stream") -> Process:
        """Start the capture, by its file, as the runbook does."""
        return self.process(name, [sys.executable, binance_client.__file__, *flags]).start()

    def archive(self, *flags: str) -> Process:
        """Start the archive."""
        return self.process("archive", [sys.executable, "-m", "k2", "archive", *flags]).start()

    def k2(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "k2", *words],
            env=self.environ(),
            capture_output=True,
            text=True,
            check=check,
            timeout=DEADLINE_S,
        )

    def stop_trading(self) -> dict[str, int]:
        """Freeze the tape; return each symbol's newest aggregate id."""
        newest = self.control("trading", {"on": False})["newest"]
        return {symbol: newest[symbol]["aggTrade"] for symbol in self.symbols}

    def control(
        self, path: str, order: Mapping[str, object] | None = None, *, method: str | None = None
    ) -> Any:
        """Give the exchange an order, or ask it something; return its answer."""
        request = urllib.request.Request(
            f"{self.exchange_url}/control/{path}",
            data=None if order is None else json.dumps(order).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def forget_faults(self) -> None:
        """End every fault of the exchange, of streams and of REST; REST lacks no row any more."""
        self.control("faults", method="DELETE")

    def connections(self) -> list[int]:
        """Return the numbers of the exchange's open connections, oldest first."""
        return sorted(one["number"] for one in self.control("status")["open_connections"])

    def newest_ids(self) -> dict[str, int]:
        """Return each symbol's newest aggregate id at the exchange."""
        newest = self.control("newest")["newest"]
        return {symbol: newest[symbol]["aggTrade"] for symbol in self.symbols if symbol in newest}

    def topic_records(self) -> dict[str, list[dict[str, Any]]]:
        """Return every committed trade of the topic, per symbol, in topic order."""
        return read_topic(self.stack.address.bootstrap, self.topic, poison=self.poison)

    def lake_last_ids(self) -> dict[str, int]:
        """Return each symbol's last id in the lake; empty before the first commit."""
        if not self._has_table():
            return {}
        proof = self.proof()
        return {one.symbol: one.last_id or 0 for one in proof.symbols}

    def proof(self) -> Proof:
        """Prove the lake."""
        return prove(LakeReader(open_catalog(lake_dir=self.lake_dir)), configured=self.symbols)

    def reader(self) -> LakeReader:
        """Read the lake."""
        return LakeReader(open_catalog(lake_dir=self.lake_dir))

    def wait_until_archived(self, newest: Mapping[str, int]) -> None:
        """Wait until the lake has reached these ids."""

        def reached() -> bool:
            last = self.lake_last_ids()
            return all(last.get(symbol, -1) >= newest[symbol] for symbol in newest)

        wait_for(reached, what=f"the lake to reach {dict(newest)}, it has {self.lake_last_ids()}")

    def wait_until_archiving(self) -> None:
        """Wait until every symbol has rows in the lake."""
        wait_for(
            lambda: self._has_table() and set(self.lake_last_ids()) >= set(self.symbols),
            what="every symbol to have rows in the lake",
        )

    def check_promise(self, newest: Mapping[str, int]) -> None:
        """Compare topic and table with the exchange's ledger: every id once, in order."""
        topic, proof = self.topic_records(), self.proof()
        ledger = Ledger.read(self.path / "exchange")
        assert proof.complete, proof
        for one in proof.symbols:
            records = topic[one.symbol]
            ids = [record["source_sequence"] for record in records]
            first, last = ids[0], newest[one.symbol]
            assert ids == list(range(first, last + 1)), f"{one.symbol}: topic not in order"
            assert [record["previous_id"] for record in records] == [None, *ids[:-1]]
            assert (one.rows, one.distinct, one.declared) == (len(ids), len(ids), 0)
            assert (one.first_id, one.last_id) == (first, last)
            published: list[TapeRow] = []
            while len(published) < len(ids):
                page = ledger.rows(
                    one.symbol, StreamKind.AGG_TRADE, from_id=first + len(published), limit=10_000
                )
                assert page, f"{one.symbol}: the ledger ends early"
                published += page
            told = [
                (r["source_sequence"], r["price"], r["quantity"], r["first_trade_id"])
                for r in records
            ]
            assert told == [
                (row.row_id, Decimal(row.price), Decimal(row.quantity), row.first_trade_id)
                for row in published
            ]

    def _has_table(self) -> bool:
        warehouse = self.lake_dir / "warehouse" / "crypto" / "trades" / "data"
        return warehouse.exists()

    def worst_pause_s(self, *, since_s: float) -> float:
        """Return the longest time between two records of the topic, from then on.

        Record timestamps are those of producing; ``since_s`` is unix time.
        """
        stamps = sorted(read_timestamps_s(self.stack.address.bootstrap, self.topic))
        recent = [stamp for stamp in stamps if stamp >= since_s]
        return max(b - a for a, b in pairwise(recent))


def read_topic(
    bootstrap: str, topic: str, *, poison: Collection[bytes]
) -> dict[str, list[dict[str, Any]]]:
    """Read a topic with ``read_committed``; decode all but ``poison`` with fastavro."""
    schema_file = Path(__file__).parents[2] / "src" / "k2" / "kafka" / "trade_v2.avsc"
    schema = fastavro.parse_schema(json.loads(schema_file.read_text(encoding="utf-8")))
    found: dict[str, list[dict[str, Any]]] = {}
    for value in read_values(bootstrap, topic):
        if value in poison:
            continue
        record = _decode(value[5:], schema)
        found.setdefault(record["symbol"], []).append(record)
    return found


def read_values(bootstrap: str, topic: str) -> list[bytes]:
    """Return every committed value of every partition, partition by partition."""
    return [message.value() or b"" for message in read_messages(bootstrap, topic)]


def read_timestamps_s(bootstrap: str, topic: str) -> list[float]:
    """Return when every committed record was produced, unix time."""
    return [message.timestamp()[1] / 1000 for message in read_messages(bootstrap, topic)]


def read_messages(bootstrap: str, topic: str) -> list[Message]:
    """Return every committed record of every partition, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    messages: list[Message] = []
    try:
        for partition in partitions:
            # Up to the end as it is now: where somebody writes on, the end itself never comes.
            here = TopicPartition(topic, partition, 0)
            end = wait_for(partial(_end, consumer, here), what=f"the end of {topic}")[0]
            consumer.assign([here])
            offset = 0
            while offset < end:
                message = consumer.poll(DEADLINE_S)
                assert message is not None, f"{topic}: no end of partition {partition}"
                problem, offset = message.error(), message.offset() or 0
                if problem is None and offset < end:
                    messages.append(message)
                    offset += 1
                elif problem is not None and problem.code() == KafkaError._PARTITION_EOF:
                    break
    finally:
        consumer.close()
    return messages


def _end(consumer: Consumer, partition: TopicPartition) -> tuple[int] | None:
    try:
        return (consumer.get_watermark_offsets(partition, timeout=10)[1],)
    except KafkaException as exc:
        if exc.args[0].code() in NO_LEADER_YET:
            return None  # a topic made a moment ago
        raise


def _decode(body: bytes, schema: Any) -> dict[str, Any]:
    record = fastavro.schemaless_reader(io.BytesIO(body), schema, None)
    assert isinstance(record, dict)
    return record
