"""What REST shows of the ledger: late, and without the rows it is told to miss."""

import math
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from k2.market import IdRange, StreamKind
from k2.simulator.ledger import Ledger
from k2.simulator.rest_rules import RowsRequest
from k2.simulator.rows import TapeRow
from k2.simulator.stream_faults import Duration

_UNBOUNDED = 2**63 - 1


class DatabaseLag:
    """Which ids REST may show yet: those published at least ``delay_s`` ago. PURE.

    Remembers one entry per publishing step of the last ``delay_s``. Rows of an earlier run of the
    exchange, or published before there was a delay, are shown at once; what was shown stays shown.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._steps: deque[tuple[float, dict[tuple[str, StreamKind], int]]] = deque()
        self._shown: dict[tuple[str, StreamKind], int] = {}

    @property
    def delay_s(self) -> float:
        """How far REST trails the stream."""
        return self._delay_s

    def change(self, delay_s: float, *, now_s: float) -> None:
        """Trail by ``delay_s`` from now on; 0 shows everything."""
        self._advance(now_s)
        self._delay_s = delay_s
        if not delay_s:
            self._steps.clear()
            self._shown.clear()

    def published(
        self, rows: Iterable[TapeRow], now_s: float, before: Callable[[str, StreamKind], int]
    ) -> None:
        """Note one step; ``before`` tells a series' newest id before this step."""
        if not self._delay_s:
            return
        step: dict[tuple[str, StreamKind], int] = {}
        for row in rows:
            step[row.symbol, row.kind] = row.row_id
        for key in step.keys() - self._shown.keys():
            self._shown[key] = before(*key)
        self._steps.append((now_s, step))
        self._advance(now_s)

    def newest_shown(self, symbol: str, kind: StreamKind, now_s: float) -> int:
        """Return the newest id REST may show."""
        if not self._delay_s:
            return _UNBOUNDED
        self._advance(now_s)
        return self._shown.get((symbol, kind), _UNBOUNDED)

    def _advance(self, now_s: float) -> None:
        while self._steps and self._steps[0][0] + self._delay_s <= now_s:
            self._shown.update(self._steps.popleft()[1])


class MissingRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ids (inclusive) of one series that REST does not have, for a while or until cleared."""

    symbol: str
    first_id: int
    last_id: int
    stream: StreamKind = StreamKind.AGG_TRADE
    duration_s: Duration | None = None

    def __post_init__(self) -> None:
        IdRange(self.first_id, self.last_id)


class Database:
    """Answers REST's questions from the ledger."""

    def __init__(self, ledger: Ledger, *, delay_s: float) -> None:
        self.lag = DatabaseLag(delay_s)
        self._ledger = ledger
        self._missing: list[tuple[MissingRows, float]] = []

    def miss(self, rows: MissingRows, *, now_s: float) -> None:
        """Show these rows no more."""
        until_s = math.inf if rows.duration_s is None else now_s + rows.duration_s
        self._missing.append((rows, until_s))

    def miss_nothing(self) -> None:
        """Show every row again."""
        self._missing.clear()

    def describe_missing(self, now_s: float) -> list[object]:
        """Return what is missing, for a status report."""
        return [msgspec.to_builtins(rows) for rows in self._missing_now(now_s)]

    def find(self, wanted: RowsRequest, kind: StreamKind, *, now_s: float) -> list[TapeRow]:
        """Return the rows of a request, ascending; missing rows do not count against its limit."""
        symbol = wanted.symbol
        shown = self.lag.newest_shown(symbol, kind, now_s)
        if wanted.end_ts_us is not None:
            after = self._ledger.first_id_at(symbol, kind, wanted.end_ts_us + 1)
            shown = shown if after is None else min(shown, after - 1)
        holes = [
            IdRange(rows.first_id, rows.last_id)
            for rows in self._missing_now(now_s)
            if rows.symbol == symbol and rows.stream is kind
        ]
        first: int | None = wanted.from_id
        if wanted.start_ts_us is not None:
            first = self._ledger.first_id_at(symbol, kind, wanted.start_ts_us)
            if first is None:
                return []
        if first is None:
            return self._newest(wanted, kind, shown=shown, holes=holes)
        return self._from(wanted, kind, first_id=first, shown=shown, holes=holes)

    def _from(
        self,
        wanted: RowsRequest,
        kind: StreamKind,
        *,
        first_id: int,
        shown: int,
        holes: list[IdRange],
    ) -> list[TapeRow]:
        found: list[TapeRow] = []
        while len(found) < wanted.limit:
            while hole := _containing(first_id, holes):
                first_id = hole.last_id + 1
            asked = wanted.limit - len(found)
            rows = self._ledger.rows(wanted.symbol, kind, first_id, asked, last_id=shown)
            found += [row for row in rows if not _containing(row.row_id, holes)]
            if len(rows) < asked:
                break
            first_id = rows[-1].row_id + 1
        return found

    def _newest(
        self, wanted: RowsRequest, kind: StreamKind, *, shown: int, holes: list[IdRange]
    ) -> list[TapeRow]:
        found: list[TapeRow] = []
        while len(found) < wanted.limit:
            while hole := _containing(shown, holes):
                shown = hole.first_id - 1
            asked = wanted.limit - len(found)
            rows = self._ledger.newest_rows(wanted.symbol, kind, asked, last_id=shown)
            found = [row for row in rows if not _containing(row.row_id, holes)] + found
            if len(rows) < asked:
                break
            shown = rows[0].row_id - 1
        return found

    def _missing_now(self, now_s: float) -> list[MissingRows]:
        self._missing = [(rows, until_s) for rows, until_s in self._missing if now_s < until_s]
        return [rows for rows, _ in self._missing]


def _containing(row_id: int, holes: list[IdRange]) -> IdRange | None:
    return next((hole for hole in holes if row_id in hole), None)
