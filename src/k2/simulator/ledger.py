"""The ledger: every row the exchange published, in one SQLite database.

A shell round sqlite3. Rows are committed before they are published, so an exchange that is killed
restarts on the same directory with the next id; REST answers from here; tests compare with it. A
killed process loses nothing that was committed (``synchronous=OFF`` risks only a power cut).
"""

import fcntl
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from k2.errors import StopError
from k2.market import IdRange, StreamKind
from k2.simulator.rows import TapeRow

FILE_NAME = "ledger.sqlite"
_COLUMNS = "id, price, quantity, first_trade_id, last_trade_id, trade_ts_us, event_ts_us, flags"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
  series INTEGER PRIMARY KEY, symbol TEXT NOT NULL, kind TEXT NOT NULL, UNIQUE (symbol, kind));
"""
_SERIES_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows_{series} (
  id INTEGER PRIMARY KEY, price TEXT NOT NULL, quantity TEXT NOT NULL,
  first_trade_id INTEGER NOT NULL, last_trade_id INTEGER NOT NULL,
  trade_ts_us INTEGER NOT NULL, event_ts_us INTEGER NOT NULL, flags INTEGER NOT NULL);
"""
_Stored = tuple[int, str, str, int, int, int, int, int]


class Ledger:
    """Reader (and, for the exchange itself, writer) of what was published.

    Open with ``Ledger.read(data_dir)`` beside a running or dead exchange. Each answer is the
    state at that moment; ids are inclusive; a symbol or kind never traded has no rows.
    """

    def __init__(self, connection: sqlite3.Connection, lock: IO[str] | None) -> None:
        self._connection = connection
        self._lock = lock
        self._series: dict[tuple[str, StreamKind], int] = {}

    @classmethod
    def read(cls, data_dir: Path) -> Self:
        """Open an existing ledger for reading, whoever else writes to it.

        Raises:
            StopError: If there is none in ``data_dir``.
        """
        path = data_dir / FILE_NAME
        if not path.exists():
            raise StopError(f"no exchange has kept a ledger in {data_dir}")
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        return cls(connection, None)

    @classmethod
    def write(cls, data_dir: Path | None) -> Self:
        """Open for the exchange, creating what is missing.

        Without ``data_dir`` the rows go to a private temporary database of SQLite, which spills to
        disk and disappears with the process: memory stays bounded either way.

        Raises:
            StopError: If another exchange is running on ``data_dir``.
        """
        lock = None
        if data_dir is not None:
            data_dir.mkdir(parents=True, exist_ok=True)
            lock = (data_dir / "lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                lock.close()
                raise StopError(f"another exchange is running on {data_dir}") from exc
        # An empty name is SQLite's private temporary database.
        connection = sqlite3.connect("" if data_dir is None else data_dir / FILE_NAME, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(_SCHEMA)
        return cls(connection, lock)

    def close(self) -> None:
        """Release the database (and the directory, if this is the writer)."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- writing (the exchange only) -------------------------------------------------------

    def append(self, rows: Iterable[TapeRow]) -> None:
        """Commit rows; on return they survive a kill of the process.

        Raises:
            StopError: If an id is already there: two tapes met in one directory.
        """
        batches: dict[tuple[str, StreamKind], list[_Stored]] = {}
        for row in rows:
            stored = (
                row.row_id,
                row.price,
                row.quantity,
                row.first_trade_id,
                row.last_trade_id,
                row.trade_ts_us,
                row.event_ts_us,
                row.buyer_is_maker + 2 * row.best_match,
            )
            batch = batches.get((row.symbol, row.kind))
            if batch is None:
                batches[row.symbol, row.kind] = [stored]
            else:
                batch.append(stored)
        statement = "INSERT INTO rows_{} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        tables = {key: self._series_for_writing(*key) for key in batches}
        try:
            with self._connection:
                for key, batch in batches.items():
                    self._connection.executemany(statement.format(tables[key]), batch)
        except sqlite3.IntegrityError as exc:
            raise StopError(f"an id was published twice: {exc}") from exc
        except sqlite3.Error as exc:
            raise StopError(f"the ledger cannot be written: {exc}") from exc

    def pin(self, name: str, value: str) -> None:
        """Record a fact about this tape once, or check that it is still the same.

        Raises:
            StopError: If the ledger says otherwise.
        """
        found = self._connection.execute(
            "SELECT value FROM meta WHERE name = ?", (name,)
        ).fetchone()
        if found is None:
            with self._connection:
                self._connection.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
        elif found[0] != value:
            raise StopError(
                f"this data directory holds another tape ({name}: {found[0]}, asked: {value}); "
                "use another --data-dir or delete it"
            )

    # -- reading ---------------------------------------------------------------------------

    def series(self) -> list[tuple[str, StreamKind]]:
        """Return every (symbol, kind) that has ever traded."""
        rows = self._connection.execute("SELECT symbol, kind FROM series ORDER BY series")
        return [(symbol, StreamKind(kind)) for symbol, kind in rows]

    def range(self, symbol: str, kind: StreamKind) -> IdRange | None:
        """Return the first and last published id, or None before the first."""
        table = self._series_for_reading(symbol, kind)
        if table is None:
            return None
        first, last = self._connection.execute(
            f"SELECT (SELECT min(id) FROM rows_{table}), (SELECT max(id) FROM rows_{table})"  # noqa: S608 an integer
        ).fetchone()
        return None if first is None else IdRange(first, last)

    def count(self, symbol: str, kind: StreamKind) -> int:
        """Return how many rows were published."""
        table = self._series_for_reading(symbol, kind)
        if table is None:
            return 0
        counted = self._connection.execute(f"SELECT count(*) FROM rows_{table}")  # noqa: S608 an integer
        return int(counted.fetchone()[0])

    def rows(
        self,
        symbol: str,
        kind: StreamKind,
        from_id: int = 0,
        limit: int = 1000,
        *,
        last_id: int | None = None,
    ) -> list[TapeRow]:
        """Return up to ``limit`` rows from ``from_id`` on, ascending, none after ``last_id``."""
        until = 2**63 - 1 if last_id is None else last_id
        where = "id >= ? AND id <= ? ORDER BY id LIMIT ?"
        return self._select(symbol, kind, where, (from_id, until, limit))

    def newest_rows(
        self, symbol: str, kind: StreamKind, limit: int, *, last_id: int
    ) -> list[TapeRow]:
        """Return the ``limit`` newest rows up to ``last_id``, ascending."""
        where = "id <= ? ORDER BY id DESC LIMIT ?"
        return self._select(symbol, kind, where, (last_id, limit))[::-1]

    def first_id_at(self, symbol: str, kind: StreamKind, trade_ts_us: int) -> int | None:
        """Return the first id whose trade time is not before ``trade_ts_us``, if there is one.

        Found by bisection over existing ids, so exact while trade times do not fall as ids rise:
        the generated tape ensures it, recordings seen so far keep it.
        """
        table = self._series_for_reading(symbol, kind)
        ids = self.range(symbol, kind)
        if table is None or ids is None:
            return None
        low, high = ids.first_id, ids.last_id + 1
        query = f"SELECT id, trade_ts_us FROM rows_{table} WHERE id >= ? LIMIT 1"  # noqa: S608 an integer
        while low < high:
            middle = (low + high) // 2
            row_id, found_ts_us = self._connection.execute(query, (middle,)).fetchone()
            if found_ts_us < trade_ts_us:
                low = row_id + 1
            else:
                high = middle
        found = self._connection.execute(query, (low,)).fetchone()
        return None if found is None else int(found[0])

    def _select(
        self, symbol: str, kind: StreamKind, where: str, values: tuple[int, ...]
    ) -> list[TapeRow]:
        table = self._series_for_reading(symbol, kind)
        if table is None:
            return []
        found = self._connection.execute(
            f"SELECT {_COLUMNS} FROM rows_{table} WHERE {where}",  # noqa: S608 constants and an integer
            values,
        )
        stored: list[_Stored] = found.fetchall()
        return [
            TapeRow(symbol, kind, *row[:7], bool(row[7] & 1), bool(row[7] & 2)) for row in stored
        ]

    def _series_for_reading(self, symbol: str, kind: StreamKind) -> int | None:
        if (symbol, kind) not in self._series:
            found = self._connection.execute(
                "SELECT series FROM series WHERE symbol = ? AND kind = ?", (symbol, kind.value)
            ).fetchone()
            if found is None:
                return None
            self._series[symbol, kind] = int(found[0])
        return self._series[symbol, kind]

    def _series_for_writing(self, symbol: str, kind: StreamKind) -> int:
        series = self._series_for_reading(symbol, kind)
        if series is None:
            with self._connection:
                added = self._connection.execute(
                    "INSERT INTO series (symbol, kind) VALUES (?, ?)", (symbol, kind.value)
                )
                series = int(added.lastrowid or 0)
                self._connection.execute(_SERIES_SCHEMA.format(series=series))
            self._series[symbol, kind] = series
        return series
