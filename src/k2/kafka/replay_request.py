"""PURE: an operator's wish to have dead letters that can be read now brought onto the tape."""

import msgspec

from k2.errors import NOT_DECODABLE, RejectError
from k2.market import Trade

REPLAY_PREFIX = b"replay:"
"""Of its record's key in ``.positions``; versions that do not know it pass the record over."""

TRADES_MAX = 100
"""Trades in one request: some 40 KB, and at most so many gaps looked for beside the others."""


class ReplayRequest(msgspec.Struct, frozen=True):
    """Trades of one symbol whose ids were declared, as their dead letters read today.

    The writer asks REST first and writes a letter's own words only where REST lacks the id. It
    deletes the record once every id is written or has been given up again.
    """

    symbol: str
    trades: tuple[Trade, ...]
    """Ascending by id, each id once."""
    request_id: str


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(ReplayRequest).decode


def replay_key(request_id: str) -> bytes:
    """Return the record key of a request; a record without value under it takes it back."""
    return REPLAY_PREFIX + request_id.encode()


def encode_replay(request: ReplayRequest) -> bytes:
    """Return the record value of a request."""
    return _encode(request)


def decode_replay(value: bytes) -> ReplayRequest:
    """Return the request in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        request = _decode(value)
    except NOT_DECODABLE as exc:
        raise RejectError(f"not a replay request: {exc}", error_type="serialize") from exc
    ids = [trade.source_id for trade in request.trades]
    if ids != sorted(set(ids)) or any(t.symbol != request.symbol for t in request.trades):
        raise RejectError(
            f"the replay request {request.request_id!r} is not of one symbol, ascending by id",
            error_type="serialize",
        )
    return request
