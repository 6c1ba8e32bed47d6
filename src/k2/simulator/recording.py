"""A recorded tape: lines of a recording in, rows in playing order out.

A line is ``<receive time, ns since epoch> <frame as received>``. Only ``trade`` frames of the
combined stream are played; others are counted by stream type. Aggregates are DERIVED: consecutive
fills of one price, side and trade time (and one taker order, where frames still carry order ids)
become one, numbered from 0.
"""

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from k2.errors import StopError
from k2.market import StreamKind
from k2.simulator.rows import TapeRow, format_e8, parse_e8


class PlayedRow(msgspec.Struct, frozen=True):
    """A row and when the recording's host received it (an aggregate: its last fill)."""

    recv_ts_ns: int
    row: TapeRow


class RecordingSummary(msgspec.Struct, frozen=True):
    """What a recording holds, found by reading it once."""

    digest: str
    symbols: tuple[str, ...]
    fills: int
    aggregates: int
    skipped_frames: dict[str, int]
    duration_s: float


class _Fill(msgspec.Struct, frozen=True):
    recv_ts_ns: int
    row: TapeRow
    taker_order_id: int | None


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a recording, gzipped or plain.

    Raises:
        StopError: If the file cannot be read or is damaged.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as compressed:
                yield from compressed
        else:
            with path.open(encoding="utf-8") as plain:
                yield from plain
    except (OSError, EOFError, UnicodeDecodeError) as exc:
        raise StopError(f"cannot read the recording {path}: {exc}") from exc


def play(lines: Iterable[str], skipped: Counter[str] | None = None) -> Iterator[PlayedRow]:
    """Turn recorded lines into rows: each fill as it was received, each aggregate once complete.

    An aggregate is known to be complete when the symbol's next fill differs, so it follows its last
    fill here although it carries that fill's receive time. ``skipped`` is counted up by type.

    A hole in the fill ids ends an aggregate and is played as it is: REST has no more than the file.

    Raises:
        StopError: If a line is damaged, or a symbol's fill ids do not rise.
    """
    open_groups: dict[str, list[_Fill]] = {}
    next_agg_ids: dict[str, int] = {}
    for line_number, line in enumerate(lines, start=1):
        try:
            fill, stream_type = _decode(line)
        except (ValueError, KeyError, TypeError) as exc:
            raise StopError(f"line {line_number} of the recording is damaged: {exc!r}") from exc
        if fill is None:
            if skipped is not None:
                skipped[stream_type] += 1
            continue
        group = open_groups.setdefault(fill.row.symbol, [])
        if group:
            before = group[-1].row
            if fill.row.row_id <= before.row_id:
                raise StopError(
                    f"line {line_number} of the recording: fill {fill.row.row_id} of "
                    f"{before.symbol} cannot follow fill {before.row_id}"
                )
            if not _same_aggregate(group[-1], fill):
                yield _aggregate(group, next_agg_ids)
                group.clear()
        group.append(fill)
        yield PlayedRow(fill.recv_ts_ns, fill.row)
    for group in open_groups.values():
        yield _aggregate(group, next_agg_ids)


def summarise(path: Path) -> RecordingSummary:
    """Read a recording once, so that a damaged one is refused before anything is served.

    Raises:
        StopError: If it cannot be read, is damaged, or holds no trade frame.
    """
    skipped: Counter[str] = Counter()
    counts: Counter[StreamKind] = Counter()
    symbols: dict[str, None] = {}
    digest = hashlib.sha256()
    first_ns = last_ns = 0
    for played in play(read_lines(path), skipped):
        row = played.row
        symbols[row.symbol] = None
        first_ns = first_ns or played.recv_ts_ns
        last_ns = played.recv_ts_ns
        counts[row.kind] += 1
        digest.update(repr(row).encode())
    if not symbols:
        raise StopError(f"the recording {path} holds no trade frame")
    return RecordingSummary(
        digest=digest.hexdigest(),
        symbols=tuple(symbols),
        fills=counts[StreamKind.TRADE],
        aggregates=counts[StreamKind.AGG_TRADE],
        skipped_frames=dict(skipped),
        duration_s=(last_ns - first_ns) / 1e9,
    )


class RecordingTape:
    """Plays rows at the pace they were received, divided by ``speed``.

    Rows already in ``newest`` (a ledger's last id per series) were played before a restart and are
    passed over; playing goes on with the first one that was not. Time stands still until the first
    ``advance``, and between calls that leave a hole (a frozen exchange).
    """

    def __init__(
        self,
        played: Iterable[PlayedRow],
        *,
        speed: float,
        newest: dict[tuple[str, StreamKind], int],
        rows_per_step_max: int = 1000,
    ) -> None:
        self._played = iter(played)
        self._speed = speed
        self._newest = newest
        self._rows_per_step_max = rows_per_step_max
        self._first_recv_ts_ns: int | None = None
        self._elapsed_ns = 0.0
        self._next = self._following()

    @property
    def finished(self) -> bool:
        """True after the last row."""
        return self._next is None

    def advance(self, *, start_us: int, end_us: int) -> list[TapeRow]:
        """Return what was received in the next ``(end - start) * speed`` of the recording.

        At most ``rows_per_step_max`` rows; the rest comes with the next call, so that an infinite
        speed plays in steps.
        """
        if self._next is None:
            return []
        if self._first_recv_ts_ns is None:
            self._first_recv_ts_ns = self._next.recv_ts_ns
        self._elapsed_ns += (end_us - start_us) * 1000 * self._speed
        rows: list[TapeRow] = []
        while (
            self._next is not None
            and self._next.recv_ts_ns - self._first_recv_ts_ns <= self._elapsed_ns
            and len(rows) < self._rows_per_step_max
        ):
            rows.append(self._next.row)
            self._next = self._following()
        return rows

    def _following(self) -> PlayedRow | None:
        for played in self._played:
            row = played.row
            if row.row_id > self._newest.get((row.symbol, row.kind), -1):
                return played
        return None


def _decode(line: str) -> tuple[_Fill | None, str]:
    """Return the fill of a line, or None and the stream type of a frame that is not played."""
    received, _, text = line.partition(" ")
    recv_ts_ns = int(received)
    frame: dict[str, Any] = json.loads(text)
    data = frame.get("data", frame)
    if data.get("e") != "trade":
        stream_name = str(frame.get("stream", ""))
        return None, stream_name.partition("@")[2] or str(data.get("e", "without a stream"))
    parse_e8(data["p"]), parse_e8(data["q"])
    fill_id, maker = int(data["t"]), bool(data["m"])
    row = TapeRow(
        symbol=str(data["s"]),
        kind=StreamKind.TRADE,
        row_id=fill_id,
        price=data["p"],
        quantity=data["q"],
        first_trade_id=fill_id,
        last_trade_id=fill_id,
        trade_ts_us=_microseconds(data["T"]),
        event_ts_us=_microseconds(data["E"]),
        buyer_is_maker=maker,
        best_match=bool(data.get("M", True)),
    )
    # Until June 2024 frames carried order ids: b of the buyer, a of the seller.
    return _Fill(recv_ts_ns, row, data.get("a" if maker else "b")), "trade"


def _microseconds(time: int) -> int:
    """Bring a venue time to microseconds; from 10^14 on it already is."""
    return time if time >= 10**14 else time * 1000


def _same_aggregate(before: _Fill, fill: _Fill) -> bool:
    return (
        before.row.row_id + 1 == fill.row.row_id
        and before.row.price == fill.row.price
        and before.row.buyer_is_maker == fill.row.buyer_is_maker
        and before.row.trade_ts_us == fill.row.trade_ts_us
        and before.taker_order_id == fill.taker_order_id
    )


def _aggregate(group: list[_Fill], next_agg_ids: dict[str, int]) -> PlayedRow:
    last = group[-1].row
    agg_id = next_agg_ids.get(last.symbol, 0)
    next_agg_ids[last.symbol] = agg_id + 1
    row = msgspec.structs.replace(
        last,
        kind=StreamKind.AGG_TRADE,
        row_id=agg_id,
        quantity=format_e8(sum(parse_e8(fill.row.quantity) for fill in group)),
        first_trade_id=group[0].row.row_id,
        last_trade_id=last.row_id,
    )
    return PlayedRow(group[-1].recv_ts_ns, row)
