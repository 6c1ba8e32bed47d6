"""Stream faults on demand: what can be ordered, as it comes in a control request.

PURE. What each one does to a connection is in ``connection_faults``.
"""

from typing import Annotated, Literal

import msgspec

from k2.market import StreamKind

Which = int | Literal["all", "oldest", "newest"]
"""Connections: one by its number, or by age at the moment of the order."""
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
FrameCount = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Duration = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class StreamFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="fault"):
    """Any stream fault; ``fault`` names it."""

    @property
    def name(self) -> str:
        """The name it is ordered and counted by."""
        return str(self.__struct_config__.tag)


class ConnectionFault(StreamFault, frozen=True, kw_only=True):
    """A fault of some connections; each of them plays it in full."""

    which: Which = "all"


class EventFault(ConnectionFault, frozen=True, kw_only=True):
    """A fault of some connections' events: of one symbol or all, of one stream kind or both."""

    symbol: str | None = None
    stream: StreamKind | None = None


class CountedFault(EventFault, frozen=True, kw_only=True):
    """Strikes the next ``count`` matching events."""

    count: Count = 1


class Skip(CountedFault, frozen=True, tag="skip"):
    """The events are not sent; ledger and REST have them."""


class Duplicate(CountedFault, frozen=True, tag="duplicate"):
    """Each event is sent twice."""


class Reorder(CountedFault, frozen=True, tag="reorder", kw_only=True):
    """The events go out in blocks of ``block``, each reversed; a block waits until it is full."""

    block: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 10


class ExtraField(CountedFault, frozen=True, tag="extra_field"):
    """Each event carries a field nobody has heard of."""


class AbsurdId(CountedFault, frozen=True, tag="absurd_id", kw_only=True):
    """Each event is followed by a copy whose ids are ``offset`` away, at least 0."""

    offset: int = 10**9


class Silent(EventFault, frozen=True, tag="silent", kw_only=True):
    """No events, while the subscriptions stay listed."""

    duration_s: Duration | None = None


class Malformed(ConnectionFault, frozen=True, tag="malformed", kw_only=True):
    """``count`` text frames of broken JSON (or of ``text``), sent at once."""

    count: FrameCount = 1
    text: Annotated[str, msgspec.Meta(max_length=65_536)] | None = None


class UnknownEvent(ConnectionFault, frozen=True, tag="unknown_event", kw_only=True):
    """``count`` events of a type nobody has heard of, sent at once."""

    count: FrameCount = 1


class Stall(ConnectionFault, frozen=True, tag="stall", kw_only=True):
    """Events wait and go out late, all at once; pings, pongs and replies go on."""

    duration_s: Duration | None = None


class HalfOpen(ConnectionFault, frozen=True, tag="half_open", kw_only=True):
    """Nothing goes out, no ping and no close either, and what comes in is ignored."""

    duration_s: Duration | None = None


class MutePings(ConnectionFault, frozen=True, tag="mute_pings", kw_only=True):
    """The server sends no pings."""

    duration_s: Duration | None = None


class Void(StreamFault, frozen=True, tag="void", kw_only=True):
    """The next ``count`` aggregates are published as void rows, in ledger and REST too."""

    symbol: str | None = None
    count: Count = 1


class Refuse(StreamFault, frozen=True, tag="refuse", kw_only=True):
    """New handshakes are refused with an HTTP status."""

    status: Annotated[int, msgspec.Meta(ge=400, lt=600)] = 503
    duration_s: Duration | None = None


LastingFault = Silent | Stall | HalfOpen | MutePings
AnyStreamFault = (
    Skip
    | Duplicate
    | Reorder
    | ExtraField
    | AbsurdId
    | Silent
    | Malformed
    | UnknownEvent
    | Stall
    | HalfOpen
    | MutePings
    | Void
    | Refuse
)
