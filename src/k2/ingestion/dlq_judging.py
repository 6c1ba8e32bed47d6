"""PURE: what a dead letter is today, by today's decoder and by where its tape stands."""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from k2.binance.frames import frame_decoder
from k2.binance.rows import decode_rows
from k2.errors import RejectError, RetryError
from k2.kafka.letter_reading import Letter
from k2.market import BadRow, IdRange, StreamKind, Trade

ARCHIVE = "archive"
"""``connection_id`` of letters about records of a topic; all others are about the exchange's."""


class Outcome(Enum):
    """What has become of a letter, or will."""

    RECORDED = "recorded"
    """Its id is on the tape: nothing to do."""
    STILL_BAD = "still bad"
    REPAIRABLE = "repairable"
    """Its id is missing, and the letter can be read now; where there is a reason, it waits."""
    ASKED = "asked"
    """The writer was asked to bring it, and has not answered yet."""
    REPAIRED = "repaired"
    """The writer has brought it."""
    DECLINED = "declined"
    """The writer has left it declared: REST has the row, and it is void or still bad."""
    OUTSIDE = "outside"
    """Its id is not of this tape: below its beginning, beyond its end, or of no tape here."""
    OTHER_TAPE = "other tape"
    """It was meant for another topic."""


class SymbolTape(NamedTuple):
    """Where one symbol's tape stands. Read the position first and the gaps after it."""

    first_id: int
    next_id: int
    missing: Sequence[IdRange]
    """Declared, or looked for, and not repaired since."""


class Tapes(NamedTuple):
    """What letters are judged by."""

    trades_topic: str
    kind: StreamKind
    symbols: Mapping[str, SymbolTape]
    active: Collection[str]
    """Symbols that are recorded now; one that left keeps its tape."""


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """One letter's fate."""

    timestamp: str
    connection_id: str
    sequence: int
    symbol: str | None
    source_id: int | None
    outcome: Outcome
    reason: str = ""
    trade: Trade | None = None
    """As the letter reads today; only where it is repairable, and its symbol recorded."""


def judge(letter: Letter, tapes: Tapes) -> Verdict:
    """Return what a letter is today."""
    if letter.connection_id == ARCHIVE:
        reason = f"about a record of {letter.topic}, not of the exchange: nothing brings it back"
        return _verdict(letter, letter.symbol, None, Outcome.STILL_BAD, reason)
    if letter.topic != tapes.trades_topic:
        return _verdict(letter, letter.symbol, None, Outcome.OTHER_TAPE, letter.topic)
    read = read_again(letter, tapes.kind)
    if not isinstance(read, Trade):
        symbol, source_id = _named(letter, tapes.kind)
        outcome, _ = _place(symbol, source_id, tapes)
        if outcome is Outcome.RECORDED:  # by REST, for instance, which had it in another form
            return _verdict(letter, symbol, source_id, outcome, "")
        return _verdict(letter, symbol, source_id, Outcome.STILL_BAD, read)
    outcome, reason = _place(read.symbol, read.source_id, tapes)
    verdict = _verdict(letter, read.symbol, read.source_id, outcome, reason)
    if outcome is Outcome.REPAIRABLE and read.symbol in tapes.active:
        return msgspec.structs.replace(verdict, trade=read)
    return verdict


def not_recorded(symbol: str) -> str:
    """Say why nothing is fetched of a symbol that left, and what changes that."""
    return f"{symbol} is not recorded now: `k2 symbols add {symbol}` first"


def _place(symbol: str | None, source_id: int | None, tapes: Tapes) -> tuple[Outcome, str]:
    """Say where an id is to its tape, and why nothing is to be done where that is not clear."""
    tape = tapes.symbols.get(symbol) if symbol is not None else None
    if symbol is None or tape is None or source_id is None:
        return Outcome.OUTSIDE, f"no tape of {symbol} here"
    if source_id < tape.first_id:
        return Outcome.OUTSIDE, f"below the tape's first id {tape.first_id}: see `k2 backfill`"
    if source_id >= tape.next_id:
        last_id = tape.next_id - 1
        return Outcome.OUTSIDE, f"beyond the tape's last id {last_id}: healing brings what exists"
    if any(source_id in ids for ids in tape.missing):
        return Outcome.REPAIRABLE, "" if symbol in tapes.active else not_recorded(symbol)
    return Outcome.RECORDED, ""


def read_again(letter: Letter, kind: StreamKind) -> Trade | str:
    """Return the trade a letter holds as today's decoder reads it, or why it reads none."""
    original = letter.original_message
    recv_ts_ns = int(letter.timestamp.timestamp()) * 10**9 + letter.timestamp.microsecond * 1000
    raw = original.get("_raw")
    payload = raw.encode() if isinstance(raw, str) else msgspec.json.encode(original)
    is_row = "_raw" not in original and "e" not in original
    if is_row and letter.symbol is not None:
        return _read_row(payload, letter.symbol, kind, recv_ts_ns)
    try:
        found = frame_decoder(kind)(payload, recv_ts_ns)
    except RejectError as exc:
        return str(exc)
    return found if isinstance(found, Trade) else "a control message, not a trade"


def _read_row(payload: bytes, symbol: str, kind: StreamKind, recv_ts_ns: int) -> Trade | str:
    try:
        (row,) = decode_rows(b"[" + payload + b"]", kind=kind, symbol=symbol, recv_ts_ns=recv_ts_ns)
    except RetryError as exc:
        return str(exc)
    return row.error if isinstance(row, BadRow) else row


def _named(letter: Letter, kind: StreamKind) -> tuple[str | None, int | None]:
    """Return symbol and id of a message of which perhaps nothing else can be read."""
    original = letter.original_message
    symbol = original.get("s", letter.symbol)
    names = ("a",) if kind is StreamKind.AGG_TRADE else ("t", "id")
    ids = (original.get(name) for name in (*names, "source_id"))
    return (symbol if isinstance(symbol, str) else letter.symbol), next(filter(_is_id, ids), None)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _verdict(
    letter: Letter, symbol: str | None, source_id: int | None, outcome: Outcome, reason: str
) -> Verdict:
    return Verdict(
        timestamp=letter.timestamp.isoformat(),
        connection_id=letter.connection_id,
        sequence=letter.sequence,
        symbol=symbol,
        source_id=source_id,
        outcome=outcome,
        reason=reason,
    )
