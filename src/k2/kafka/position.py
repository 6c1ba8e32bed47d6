"""PURE: the position, what a shard's tape holds, and the identity, what it is a tape of.

``.positions`` is compacted and holds, per shard, ``position`` (the full vector: symbol to next id,
the gaps still open, the backfills running), written in the same transaction as the trades,
``identity``, and one ``request:...`` per backfill an operator asked for and no writer has taken up.
They are all a successor needs.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import msgspec

from k2.errors import NOT_DECODABLE, RejectError
from k2.kafka.replay_request import (
    REPLAY_PREFIX,
    ReplayRequest,
    decode_replay,
    replay_key,
)
from k2.market import Gap, GapClass, IdRange
from k2.tape.arbiter import Placed

OPEN_GAPS_MAX = 1000
"""Open gaps a position tracks. Beyond it the oldest stay declared and are no longer looked for."""

POSITION_KEY = b"position"
IDENTITY_KEY = b"identity"
REQUEST_PREFIX = b"request:"

_Id = Annotated[int, msgspec.Meta(ge=0)]


class SymbolPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one symbol's tape ends, and where it begins.

    ``next_id`` is the first id neither written nor declared; ``last_id`` the last id written
    (None when only declared gaps were), which the next record carries as ``previous_id``.
    ``first_id`` is the low-water mark: the first id of the tape, written or declared, which moves
    down while a backfill runs. None until there is one, and for tapes older than this field.
    """

    next_id: int
    last_id: int | None
    first_id: int | None = None
    last_ts_us: int | None = None
    """Trade time of ``last_id``; tells a REST that trails from an exchange whose ids were reset."""


NEVER_TRADED = SymbolPosition(0, None)
"""The tape begins with the exchange's very first trade of the symbol, whatever its id will be."""


class OpenGap(msgspec.Struct, frozen=True):
    """Declared ids of class ``missing`` that a source may still come to have."""

    symbol: str
    ids: IdRange
    declared_ts_us: int


class ShardPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a shard's tape stands. Open gaps are in the order of their declaration."""

    symbols: Mapping[str, SymbolPosition]
    open_gaps: tuple[OpenGap, ...] = ()
    backfills: Mapping[str, int] = {}
    """Symbol to the first id its running backfill wants."""
    accepted_to: int = 0
    """Offset of the trades partition below which an operator has accepted what is there, by
    rebuilding the position: a stranger's record stays, and is not held against the tape again."""

    def stands(self, symbol: str) -> SymbolPosition | None:
        """Return where a tape goes on, or None if its first id is yet to be found out."""
        where = self.symbols.get(symbol)
        return None if where == NEVER_TRADED else where


class Identity(msgspec.Struct, frozen=True):
    """What a shard's tape is a tape of. A differing one is refused."""

    venue: str
    environment: str
    stream_kind: str
    topic_ids: dict[str, str]
    partitions: int
    symbols: list[str]
    """Active set, sorted; it only grows by configuration."""


class BackfillRequest(msgspec.Struct, frozen=True):
    """An operator's wish: have ``symbol``'s tape begin at ``from_id``.

    A record of its own in ``.positions``. The writer takes it up and deletes the record in the
    transaction whose position names the backfill.
    """

    symbol: str
    from_id: _Id
    request_id: str


class ShardRecord(msgspec.Struct, frozen=True):
    """What ``.positions`` says of one shard; None where it says nothing."""

    identity: Identity | None
    position: ShardPosition | None
    requests: tuple[BackfillRequest, ...] = ()
    """Not taken up yet, oldest first."""
    replays: tuple[ReplayRequest, ...] = ()
    """The same, of dead letters."""

    def taken_in(self, key: bytes | None, value: bytes | None) -> "ShardRecord":
        """Return what ``.positions`` says once one more of its records has been read.

        Records under other keys are passed over.

        Raises:
            RejectError: If the record is not what its key says.
        """
        if key == POSITION_KEY:
            return msgspec.structs.replace(self, position=decode_position(value))
        if key == IDENTITY_KEY:
            return msgspec.structs.replace(self, identity=decode_identity(value))
        if key is not None and key.startswith(REPLAY_PREFIX):
            return self._with_replay(key, value)
        if key is None or not key.startswith(REQUEST_PREFIX):
            return self
        others = tuple(one for one in self.requests if request_key(one.request_id) != key)
        if value is None:
            return msgspec.structs.replace(self, requests=others)
        request = decode_request(value)
        if request_key(request.request_id) != key:
            # Taken up, it would not be deleted, and be taken up for ever.
            raise RejectError(
                f"the request under {key!r} names itself {request.request_id!r}",
                error_type="serialize",
            )
        return msgspec.structs.replace(self, requests=(*others, request))

    def _with_replay(self, key: bytes, value: bytes | None) -> "ShardRecord":
        others = tuple(one for one in self.replays if replay_key(one.request_id) != key)
        if value is None:
            return msgspec.structs.replace(self, replays=others)
        replay = decode_replay(value)
        if replay_key(replay.request_id) != key:
            raise RejectError(
                f"the request under {key!r} names itself {replay.request_id!r}",
                error_type="serialize",
            )
        return msgspec.structs.replace(self, replays=(*others, replay))


NOTHING_RECORDED = ShardRecord(None, None)

_encode = msgspec.json.Encoder(order="sorted").encode
_decode_position = msgspec.json.Decoder(ShardPosition).decode
_decode_identity = msgspec.json.Decoder(Identity).decode
_decode_request = msgspec.json.Decoder(BackfillRequest).decode


def encode_position(position: ShardPosition) -> bytes:
    """Return the record value of a position: JSON, so that an operator can read it."""
    return _encode(position)


def encode_identity(identity: Identity) -> bytes:
    """Return the record value of an identity."""
    return _encode(identity)


def encode_request(request: BackfillRequest) -> bytes:
    """Return the record value of an operator's request."""
    return _encode(request)


def request_key(request_id: str) -> bytes:
    """Return the record key of a request; a record without value under it takes it back."""
    return REQUEST_PREFIX + request_id.encode()


def decode_position(value: bytes | None) -> ShardPosition:
    """Return the position in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        return _decode_position(value or b"")
    except NOT_DECODABLE as exc:
        raise RejectError(f"not a position: {exc}", error_type="serialize") from exc


def decode_identity(value: bytes | None) -> Identity:
    """Return the identity in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        return _decode_identity(value or b"")
    except NOT_DECODABLE as exc:
        raise RejectError(f"not an identity: {exc}", error_type="serialize") from exc


def decode_request(value: bytes | None) -> BackfillRequest:
    """Return the request in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        return _decode_request(value or b"")
    except NOT_DECODABLE as exc:
        raise RejectError(f"not a request: {exc}", error_type="serialize") from exc


def position_after(
    before: ShardPosition, items: Sequence[Placed | Gap], *, declared_ts_us: int
) -> ShardPosition:
    """Return the position once ``items``, in tape order, follow ``before``.

    A gap below the next id (a backfill met it) is tracked and moves nothing.
    """
    symbols, open_gaps = dict(before.symbols), list(before.open_gaps)
    for item in items:
        if isinstance(item, Gap):
            was = symbols.get(item.symbol)
            next_id = item.ids.last_id + 1
            if was is None:
                symbols[item.symbol] = SymbolPosition(next_id, None, item.ids.first_id)
            elif next_id > was.next_id:
                # A tape may begin with a gap: a backfill must not declare its ids once more.
                begins = was.first_id is None and was.last_id is None
                first_id = item.ids.first_id if begins else was.first_id
                symbols[item.symbol] = msgspec.structs.replace(
                    was, next_id=next_id, first_id=first_id
                )
            if item.gap_class is GapClass.MISSING:
                open_gaps.append(OpenGap(item.symbol, item.ids, declared_ts_us))
        else:
            source_id = item.trade.source_id
            was = symbols.get(item.trade.symbol)
            first_id = was.first_id if was is not None else None
            if first_id is None and (was is None or was.last_id is None):
                first_id = source_id
            symbols[item.trade.symbol] = SymbolPosition(
                source_id + 1, source_id, first_id, item.trade.trade_ts_us
            )
    return msgspec.structs.replace(
        before,
        symbols=symbols,
        open_gaps=_tracked(open_gaps),
        backfills=_unreached(before.backfills, symbols),
    )


def position_after_repair(
    before: ShardPosition, symbol: str, repaired: Sequence[int]
) -> ShardPosition:
    """Return the position once these ids of ``symbol`` were written to the repairs topic."""
    found = sorted(set(repaired))
    open_gaps: list[OpenGap] = []
    for gap in before.open_gaps:
        if gap.symbol != symbol:
            open_gaps.append(gap)
            continue
        open_gaps += [OpenGap(symbol, ids, gap.declared_ts_us) for ids in _left(gap.ids, found)]
    return msgspec.structs.replace(before, open_gaps=_tracked(open_gaps))


def position_with_backfill(before: ShardPosition, symbol: str, from_id: int) -> ShardPosition:
    """Return the position once a backfill of ``symbol`` down to ``from_id`` is wanted.

    A tape that begins there already is left as it is; of two wishes the one further back counts.

    Raises:
        RejectError: If the shard has no tape of the symbol.
    """
    if symbol not in before.symbols:
        raise RejectError(f"{symbol} has no tape here that could begin earlier")
    wanted = min(from_id, before.backfills.get(symbol, from_id))
    backfills = _unreached({**before.backfills, symbol: wanted}, before.symbols)
    return msgspec.structs.replace(before, backfills=backfills)


def position_after_backfill(before: ShardPosition, symbol: str, *, first_id: int) -> ShardPosition:
    """Return the position once the tape of ``symbol`` begins at ``first_id``.

    The backfill is over when that is what it wanted. Ids of open gaps that it brought are closed
    by ``position_after_repair``.

    Raises:
        RejectError: If the shard has no tape of the symbol.
    """
    was = before.symbols.get(symbol)
    if was is None:
        raise RejectError(f"{symbol} has no tape here that could begin earlier")
    lower = first_id if was.first_id is None else min(first_id, was.first_id)
    symbols = {**before.symbols, symbol: msgspec.structs.replace(was, first_id=lower)}
    return msgspec.structs.replace(
        before, symbols=symbols, backfills=_unreached(before.backfills, symbols)
    )


def _tracked(open_gaps: list[OpenGap]) -> tuple[OpenGap, ...]:
    return tuple(open_gaps[-OPEN_GAPS_MAX:])


def _unreached(
    backfills: Mapping[str, int], symbols: Mapping[str, SymbolPosition]
) -> dict[str, int]:
    left = {}
    for symbol, wanted in backfills.items():
        first_id = symbols[symbol].first_id if symbol in symbols else None
        if first_id is None or wanted < first_id:
            left[symbol] = wanted
    return left


def _left(ids: IdRange, found: Sequence[int]) -> Iterator[IdRange]:
    """Yield what of ``ids`` is not among ``found``, which is ascending."""
    start = ids.first_id
    for source_id in found[bisect_left(found, start) : bisect_right(found, ids.last_id)]:
        if start < source_id:
            yield IdRange(start, source_id - 1)
        start = source_id + 1
    if start <= ids.last_id:
        yield IdRange(start, ids.last_id)
