"""What the capture reaches the world through. The simulation brings a world of its own."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from k2.ingestion.feed import Connector
from k2.ingestion.host import Host
from k2.ingestion.workers import Worker
from k2.kafka.clients import Clients
from k2.market import BadRow, Symbol, Trade


class Rest(Protocol):
    """The venue's REST side.

    Every call raises ``RetryError`` when it cannot be answered right now.
    """

    async def rows_from(self, symbol: str, *, from_id: int) -> list[Trade | BadRow]:
        """Return up to ``PAGE_ROWS`` rows with ids from ``from_id`` on, ascending."""

    async def newest_id(self, symbol: str) -> int | None:
        """Return the newest id REST has, or None when the symbol never traded."""

    async def symbols(self, names: Sequence[str]) -> dict[str, Symbol]:
        """Return base and quote asset of each name the exchange lists."""

    async def quoted_in(self, quotes: Iterable[str]) -> set[str]:
        """Return the names of symbols that trade against one of these assets now."""


class Ports(NamedTuple):
    """Time, sockets, REST, Kafka and the threads its calls run on."""

    host: Host
    connect: Connector
    may_connect: Callable[[], Awaitable[None]]
    """Waits for the venue's limit on connection attempts."""
    rest: Rest
    clients: Clients
    worker: Callable[[str], Worker]
    poll_s: float = 0.25
    """Longest one look for news of Kafka blocks its thread, and a shutdown."""
