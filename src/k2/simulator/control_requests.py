"""What the control endpoints take, as typed requests.

PURE.
"""

from typing import Annotated, Literal

import msgspec

from k2.simulator.database import MissingRows
from k2.simulator.floor import Status
from k2.simulator.stream_faults import Which


class Trading(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Freeze or thaw the tape, change its rate, or both."""

    on: bool | None = None
    rate: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        if self.on is None and self.rate is None:
            raise ValueError("on or rate is missing")


class AnnounceShutdown(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Send ``serverShutdown`` and close ``lead_s`` later."""

    lead_s: Annotated[float, msgspec.Meta(ge=0, le=600)]


class Connections(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """End connections: at once, or after an announcement."""

    which: Which = "all"
    drop: Literal["close", "abort"] | None = None
    code: Annotated[int, msgspec.Meta(ge=1000, lt=5000)] = 1001
    reason: Annotated[str, msgspec.Meta(max_length=40)] = ""
    announce_shutdown: AnnounceShutdown | None = None

    def __post_init__(self) -> None:
        if (self.drop is None) == (self.announce_shutdown is None):
            raise ValueError("either drop or announce_shutdown is needed")
        if self.drop != "close" and (self.code != 1001 or self.reason):
            raise ValueError("code and reason belong to drop: close")


class Rest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Let REST trail the stream, or miss rows."""

    delay_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None
    missing: MissingRows | None = None

    def __post_init__(self) -> None:
        if self.delay_s is None and self.missing is None:
            raise ValueError("delay_s or missing is needed")


class Listings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """List a symbol, delist one, or change statuses."""

    add: str | None = None
    remove: str | None = None
    status: dict[str, Status] = {}

    def __post_init__(self) -> None:
        if (self.add is not None) + (self.remove is not None) + bool(self.status) != 1:
            raise ValueError("one of add, remove and status is needed")
