"""PURE: the position, what a shard's tape holds, and the identity, what it is a tape of.

``.positions`` is compacted and holds two keys per shard: ``position`` (the full vector, symbol to
next id), written in the same transaction as the trades, and ``identity``. Both are all a
successor needs.
"""

from collections.abc import Mapping

import msgspec

from k2.errors import RejectError

POSITION_KEY = b"position"
IDENTITY_KEY = b"identity"


class SymbolPosition(msgspec.Struct, frozen=True):
    """Where one symbol's tape ends.

    ``next_id`` is the first id neither written nor declared; ``last_id`` the last id written
    (None when only declared gaps were), which the next record carries as ``previous_id``.
    """

    next_id: int
    last_id: int | None


Position = Mapping[str, SymbolPosition]


class Identity(msgspec.Struct, frozen=True):
    """What a shard's tape is a tape of. A differing one is refused."""

    venue: str
    environment: str
    stream_kind: str
    topic_ids: dict[str, str]
    partitions: int
    symbols: list[str]
    """Active set, sorted; it only grows by configuration."""


class ShardRecord(msgspec.Struct, frozen=True):
    """What ``.positions`` says of one shard; None where it says nothing."""

    identity: Identity | None
    position: dict[str, SymbolPosition] | None


class _PositionValue(msgspec.Struct):
    symbols: dict[str, SymbolPosition]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode_position = msgspec.json.Decoder(_PositionValue).decode
_decode_identity = msgspec.json.Decoder(Identity).decode


def encode_position(position: Position) -> bytes:
    """Return the record value of a position: JSON, so that an operator can read it."""
    return _encode(_PositionValue(dict(position)))


def encode_identity(identity: Identity) -> bytes:
    """Return the record value of an identity."""
    return _encode(identity)


def decode_position(value: bytes | None) -> dict[str, SymbolPosition]:
    """Return the position in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        return _decode_position(value or b"").symbols
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RejectError(f"not a position: {exc}", error_type="serialize") from exc


def decode_identity(value: bytes | None) -> Identity:
    """Return the identity in a record value.

    Raises:
        RejectError: If it is not one.
    """
    try:
        return _decode_identity(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise RejectError(f"not an identity: {exc}", error_type="serialize") from exc
