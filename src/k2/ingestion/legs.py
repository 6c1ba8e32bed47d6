"""All legs of a process: every symbol on each of them, in connections of at most 1,024 streams."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from k2.binance.leg import Leg, LegLimits
from k2.binance.limits import STREAMS_PER_CONNECTION_MAX
from k2.binance.session import Session
from k2.ingestion.feed import Feed, FeedEvents
from k2.ingestion.ports import Ports
from k2.market import StreamKind

LEG_NAMES = "ab"


class LegFigures(msgspec.Struct):
    """What one leg has given so far. Counters only grow."""

    first: int = 0
    """Trades of which it brought the first copy: its unique contribution."""
    copies: int = 0
    lag_s: float = 0.0
    """How long after the first copy its own came, smoothed over about a hundred trades."""

    def late(self, by_s: float) -> None:
        """Count a copy that came so much later than the first."""
        self.copies += 1
        self.lag_s += (by_s - self.lag_s) / 100


class Legs:
    """The feeds of a process. A leg is one address; a line of it is one connection."""

    def __init__(
        self,
        urls: Sequence[str],
        events: FeedEvents,
        *,
        kind: StreamKind,
        limits: LegLimits,
        ports: Ports,
        streams_max: int = STREAMS_PER_CONNECTION_MAX,
    ) -> None:
        """Name the legs' addresses, one each; nothing is opened before ``carry``."""
        self.figures = {LEG_NAMES[number]: LegFigures() for number in range(len(urls))}
        self.feeds: list[Feed] = []
        self._urls = urls
        self._events = events
        self._kind = kind
        self._limits = limits
        self._ports = ports
        self._streams_max = streams_max
        self._lines: list[list[str]] = []
        self._group: asyncio.TaskGroup | None = None

    @property
    def live(self) -> bool:
        """Whether every symbol arrives on at least one leg, as far as the servers say."""
        if not self.feeds:
            return False
        per_line = [
            any(feed.leg.live for feed in self.feeds[start : start + len(self._urls)])
            for start in range(0, len(self.feeds), len(self._urls))
        ]
        return all(per_line)

    def figures_of(self, leg: Leg) -> LegFigures:
        """Return what the address has given that a connection belongs to."""
        return self.figures[leg.name[0]]

    @property
    def any_live(self) -> bool:
        """Whether at least one leg is connected."""
        return any(feed.leg.live for feed in self.feeds)

    def carried_beside(self, session: Session) -> bool:
        """Say whether another connection carries the symbols of this one too."""
        for start in range(0, len(self.feeds), len(self._urls)):
            line = self.feeds[start : start + len(self._urls)]
            sessions = [one for feed in line for one in feed.leg.sessions()]
            if session in sessions:
                return any(one.carries for one in sessions if one is not session)
        return False

    def run_in(self, group: asyncio.TaskGroup) -> None:
        """Run the feeds, those to come too, as tasks of ``group``."""
        self._group = group
        for feed in self.feeds:
            group.create_task(feed.run(), name=f"leg {feed.leg.name}")

    def carry(self, symbols: Iterable[str]) -> None:
        """Carry these symbols from now on; the streams of the others go on undisturbed."""
        wanted = set(symbols)
        now_s = self._ports.host.monotonic_s()
        self._lines = [[name for name in line if name in wanted] for line in self._lines]
        for symbol in sorted(wanted - {name for line in self._lines for name in line}):
            room = next((one for one in self._lines if len(one) < self._streams_max), None)
            if room is None:
                room = []
                self._lines.append(room)
            room.append(symbol)
        for number, line in enumerate(self._lines):
            feeds = self.feeds[number * len(self._urls) :][: len(self._urls)]
            for feed in feeds:
                if feed.leg.symbols != line:
                    feed.perform(feed.leg.carry(line, now_s))
            if not feeds:
                self._add(number, line)

    def stop(self) -> None:
        """Close all connections with 1000."""
        for feed in self.feeds:
            feed.stop()

    def each(self, call: Callable[[Leg], object]) -> None:
        """Call something with each leg, and have its feed look again."""
        for feed in self.feeds:
            call(feed.leg)
            feed.perform([])

    def _add(self, number: int, symbols: list[str]) -> None:
        for place, url in enumerate(self._urls):
            age_s = self._limits.connection_age_max_s * (place + 1) / len(self._urls)
            leg = Leg(
                LEG_NAMES[place] if not number else f"{LEG_NAMES[place]}{number + 1}",
                symbols,
                self._kind,
                self._limits,
                first_age_s=age_s,
                draw=self._ports.host.draw,
            )
            feed = Feed(
                leg,
                url,
                self._events,
                connect=self._ports.connect,
                may_connect=self._ports.may_connect,
                host=self._ports.host,
            )
            self.feeds.append(feed)
            if self._group is not None:
                self._group.create_task(feed.run(), name=f"leg {leg.name}")
