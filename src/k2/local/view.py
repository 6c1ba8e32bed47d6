"""The live view: what a consumer of the topic and a reader of the lake would see right now.

It watches from outside (the topic with ``read_committed``, the table's own books), so it shows
what is there, not what a service believes.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition
from pyiceberg.catalog import Catalog
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from k2.errors import RejectError, RetryError
from k2.kafka.encoding import SCHEMA_TEXT, decode_record, parse_schema, split_wire
from k2.lake.commit_plan import COVERAGE
from k2.lake.tables import find_table
from k2.tape.coverage import Coverage

RATE_WINDOW_S = 10.0
LAKE_EVERY_S = 0.5
SAMPLES_MAX = 2_000
PROBLEMS_SHOWN = 3


class SymbolView(msgspec.Struct):
    """One symbol's line."""

    symbol: str
    price: str = ""
    last_id: int = 0
    seen: int = 0
    lake_rows: int = 0
    lake_last_id: int = -1
    newest_recv_s: float | None = None
    """When the newest trade seen in the topic reached us, wall clock."""
    counts: Any = msgspec.field(default_factory=deque)
    """(monotonic seconds, records) of the rate window."""
    unarchived: Any = msgspec.field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    """(id, receive time in s) of samples that may not be in the lake yet."""

    def rate(self, now_s: float) -> float:
        """Records a second over the window."""
        while self.counts and self.counts[0][0] < now_s - RATE_WINDOW_S:
            self.counts.popleft()
        if not self.counts:
            return 0.0
        window_s = min(RATE_WINDOW_S, max(1.0, now_s - self.counts[0][0]))
        return float(sum(count for _, count in self.counts) / window_s)

    def newest(self, wall_s: float, *, since_s: float) -> str:
        """Say how old the newest trade is, or for how long none has been seen."""
        if self.newest_recv_s is None:
            return f"none for {max(0.0, wall_s - since_s):.0f} s"
        return f"{max(0.0, wall_s - self.newest_recv_s):.1f} s ago"

    def behind_s(self, wall_s: float) -> float:
        """Age of the oldest trade seen in the topic and not yet in the lake."""
        while self.unarchived and self.unarchived[0][0] <= self.lake_last_id:
            self.unarchived.popleft()
        return max(0.0, wall_s - self.unarchived[0][1]) if self.unarchived else 0.0


class Watcher:
    """Reads topic and lake on a thread of its own; ``symbols`` is what it knows."""

    def __init__(
        self, *, bootstrap: str, topic: str, partitions: int, catalog: Catalog, symbols: list[str]
    ) -> None:
        """Prepare; nothing is read before ``start``."""
        self.symbols = {symbol: SymbolView(symbol) for symbol in symbols}
        self.began_s = time.time()
        self._bootstrap = bootstrap
        self._topic = topic
        self._partitions = partitions
        self._catalog = catalog
        self._schema = parse_schema(SCHEMA_TEXT)
        self._rows_at_start: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin; the rows the lake has now are not new."""
        self._read_lake()
        self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._stop.set()
        self._thread.join(2.0)

    @property
    def new_rows(self) -> int:
        """Rows that came into the lake since the watcher began, all symbols."""
        if self._rows_at_start is None:
            return 0
        return sum(view.lake_rows for view in self.symbols.values()) - self._rows_at_start

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "k2-view",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "fetch.queue.backoff.ms": 1,
                "log_level": 0,
            }
        )
        consumer.assign(
            [TopicPartition(self._topic, p, OFFSET_END) for p in range(self._partitions)]
        )
        lake_at_s = 0.0
        while not self._stop.is_set():
            try:
                self._take(consumer.consume(10_000, 0.1))
                if time.monotonic() - lake_at_s >= LAKE_EVERY_S:
                    lake_at_s = time.monotonic()
                    self._read_lake()
            except (KafkaException, RetryError):
                continue  # the view waits like everybody else
        consumer.close()

    def _take(self, messages: list[Any]) -> None:
        latest: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for message in messages:
            key = message.key()
            if message.error() is None and key is not None:
                symbol = key.decode("utf-8", errors="replace")
                latest[symbol] = message.value()
                counts[symbol] = counts.get(symbol, 0) + 1
        for symbol, value in latest.items():
            try:
                record = decode_record(split_wire(value)[1], self._schema)
            except RejectError:
                continue
            view = self.symbols.setdefault(symbol, SymbolView(symbol))
            view.price = f"{record['price'].normalize():f}"
            view.last_id = record["source_sequence"]
            view.seen += counts[symbol]
            view.counts.append((time.monotonic(), counts[symbol]))
            view.newest_recv_s = record["recv_ts_ns"] / 1e9
            view.unarchived.append((view.last_id, view.newest_recv_s))

    def _read_lake(self) -> None:
        table = find_table(self._catalog, "trades")
        pairs = table.properties.get(COVERAGE, "{}") if table is not None else "{}"
        coverage = Coverage(msgspec.json.decode(pairs))
        if self._rows_at_start is None:
            self._rows_at_start = sum(coverage.count(symbol) for symbol in coverage.symbols())
        for symbol in coverage.symbols():
            view = self.symbols.setdefault(symbol, SymbolView(symbol))
            view.lake_rows = coverage.count(symbol)
            view.lake_last_id = coverage.ranges(symbol)[-1].last_id


def render(
    watcher: Watcher, *, title: str, places: dict[str, Path | str], problems: Sequence[str]
) -> Group:
    """Return the terminal view; ``problems`` are what the capture says is wrong, worst first."""
    table = RichTable(title=title, title_justify="left", expand=False)
    table.add_column("symbol")
    for name in ("last price", "trades/s", "last id", "newest trade", "rows in the lake"):
        table.add_column(name, justify="right")
    table.add_column("lake behind Kafka", justify="right")
    now_s, wall_s = time.monotonic(), time.time()
    for view in list(watcher.symbols.values()):
        table.add_row(
            view.symbol,
            view.price or "…",
            f"{view.rate(now_s):,.1f}",
            str(view.last_id or "…"),
            view.newest(wall_s, since_s=watcher.began_s),
            f"{view.lake_rows:,}",
            f"{view.behind_s(wall_s):.1f} s" if view.seen else "…",
        )
    wrong = [Text(f"  ! {text}", style="bold yellow") for text in problems[:PROBLEMS_SHOWN]]
    lines = [Text(f"{name:>9}  {place}", style="dim") for name, place in places.items()]
    end = Text("Ctrl-C stops everything and shows the proof.", style="dim")
    return Group(table, *wrong, *lines, end)


def line(watcher: Watcher, *, problems: Sequence[str]) -> str:
    """Return the view as one line, for pipes, and the worst of the problems."""
    now_s, wall_s = time.monotonic(), time.time()
    parts = [
        f"{view.symbol} {view.price or '…'} {view.rate(now_s):.1f}/s id {view.last_id or '…'} "
        f"{view.newest(wall_s, since_s=watcher.began_s)}, lake {view.lake_rows:,} rows"
        + (f", {view.behind_s(wall_s):.1f} s behind" if view.seen else "")
        for view in list(watcher.symbols.values())
    ]
    return " | ".join([*parts, *(f"! {text}" for text in problems[:1])])
