"""What each kind of fault does when it strikes: one method per kind, named after it."""

import random
from collections.abc import Callable

from simulation.world.exchange_glitches import Glitches
from simulation.world.exchange_socket import Connection
from simulation.world.fault_kinds import FaultKind
from simulation.world.world import Instance, World

FREEZE_LONG_MIN_S = 3.5
"""Longer than a lease lasts."""


class Strikes:
    """Each method returns whether there was something to strike."""

    def __init__(self, world: World, rng: random.Random) -> None:
        """Strike this world, drawing targets and durations."""
        self._world = world
        self._exchange = world.exchange
        self._rng = rng

    def strike(self, kind: FaultKind) -> bool:
        """Strike once; say whether there was a target."""
        struck: bool = getattr(self, kind.value)()
        return struck

    # One connection.

    def clean_close(self) -> bool:
        """Close with a code that blames nobody."""
        return self._close(self._rng.choice([1000, 1001, 1011]), "going away")

    def too_many_requests(self) -> bool:
        """Close with 1008."""
        return self._close(1008, "Too many requests")

    def reset(self) -> bool:
        """Reset one connection."""
        return self._on_one(lambda connection: connection.reset())

    def half_open(self) -> bool:
        """Lose one link for long."""
        return self._on_one(
            lambda connection: connection.lose_link(for_s=self._rng.uniform(20, 900))
        )

    def stall(self) -> bool:
        """Hold one connection's bytes back."""
        return self._on_one(lambda connection: connection.stall(for_s=self._rng.uniform(1, 25)))

    def stall_with_pings(self) -> bool:
        """Hold one connection's data back while pings flow."""
        return self._on_one(
            lambda connection: connection.stall_data(for_s=self._rng.uniform(1, 60))
        )

    def muted_pings(self) -> bool:
        """Send no pings on one connection."""
        connection = self._connection()
        if connection is not None:
            now_s = self._world.loop.time()
            connection.pings_muted_until_s = now_s + self._rng.uniform(30, 200)
        return connection is not None

    def slow_link(self) -> bool:
        """Let one connection trail by seconds."""
        connection = self._connection()
        if connection is not None:
            connection.slow_by_s = self._rng.uniform(0.2, 6)
            connection.slow_until_s = self._world.loop.time() + self._rng.uniform(5, 40)
        return connection is not None

    # Whole hosts and nodes.

    def cut_off(self) -> bool:
        """Take one instance off the exchange's network: both legs and REST."""
        instance = self._running()
        if instance is None or instance.node is None:
            return False
        self._exchange.cut_off(instance.node, for_s=self._rng.uniform(2, 30))
        return True

    def refused_connects(self) -> bool:
        """Let one host, or all, refuse handshakes."""
        hosts = sorted({connection.host for connection in self._exchange.connections})
        if not hosts:
            return False
        struck = hosts if self._rng.random() < 0.5 else [self._rng.choice(hosts)]
        until_s = self._world.loop.time() + self._rng.uniform(2, 30)
        self._exchange.refuse_until_s.update(dict.fromkeys(struck, until_s))
        return True

    def server_shutdown(self) -> bool:
        """Announce the end of one host's connections, and end them some seconds later."""
        connection = self._connection()
        if connection is None:
            return False
        now_us = round(self._world.loop.time() * 1e6)
        for other in list(self._exchange.connections):
            if other.host == connection.host:
                other.announce(f'{{"e":"serverShutdown","E":{1_767_225_600_000_000 + now_us}}}')
                lead_s = self._rng.uniform(0, 20)
                self._world.loop.call_world(lead_s, other.close, 1001, "server shutdown")
        return True

    # Streams.

    def skip_on_one(self) -> bool:
        """Leave events out on one connection."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.skip[self._symbol()] += self._rng.randrange(1, 20)
        return glitches is not None

    def skip_on_all(self) -> bool:
        """Leave the same events out on every connection; REST has them."""
        return self._skip_on_all(self._symbol(), self._rng.randrange(1, 20))

    def duplicate(self) -> bool:
        """Send events twice on one connection."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.duplicate[self._symbol()] += self._rng.randrange(1, 20)
        return glitches is not None

    def reorder(self) -> bool:
        """Swap neighbouring events on one connection."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.swap[self._symbol()] += self._rng.randrange(1, 10)
        return glitches is not None

    def absurd_id(self) -> bool:
        """Send one event with an id that is far ahead."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.absurd[self._symbol()] += 1
        return glitches is not None

    def silent_stream(self) -> bool:
        """Keep quiet about one symbol on one connection, subscribed as it is."""
        glitches = self._glitches()
        if glitches is not None:
            until_s = self._world.loop.time() + self._rng.uniform(5, 120)
            glitches.silent_until_s[self._symbol()] = until_s
        return glitches is not None

    def malformed(self) -> bool:
        """Send broken frames."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.malformed += self._rng.randrange(1, 5)
        return glitches is not None

    def unknown_event(self) -> bool:
        """Send events nobody knows."""
        glitches = self._glitches()
        if glitches is not None:
            glitches.unknown += self._rng.randrange(1, 5)
        return glitches is not None

    def void_row(self) -> bool:
        """Let the exchange void its next trade of a symbol."""
        self._exchange.markets[self._symbol()].void_next = True
        return True

    # REST.

    def rest_down(self) -> bool:
        """Answer 503."""
        state = self._exchange.rest_state
        state.down_until_s = self._world.loop.time() + self._rng.uniform(2, 30)
        return True

    def rest_slow(self) -> bool:
        """Answer slowly, sometimes slower than the client waits."""
        state = self._exchange.rest_state
        state.slow_by_s = self._rng.uniform(0.5, 12)
        state.slow_until_s = self._world.loop.time() + self._rng.uniform(5, 30)
        return True

    def rest_lag(self) -> bool:
        """Let REST's database trail the stream more, or less."""
        self._exchange.rest_state.lag_s = self._rng.choice([0.0, 0.2, 1.0, 3.0, 8.0])
        return True

    def rows_missing(self) -> bool:
        """Let nobody have some ids: not the streams, and REST only much later or soon again."""
        symbol, count = self._symbol(), self._rng.randrange(1, 12)
        if not self._skip_on_all(symbol, count):
            return False
        market, now_s = self._exchange.markets[symbol], self._world.loop.time()
        first_id = market.first_id + len(market.rows)
        for_s = self._rng.choice([self._rng.uniform(5, 40), self._rng.uniform(100, 400)])
        market.hide(
            first_id=first_id, last_id=first_id + count - 1, from_s=now_s, until_s=now_s + for_s
        )
        return True

    # Kafka.

    def broker_down(self) -> bool:
        """Let the broker be away for a moment."""
        return self._broker_down(self._rng.uniform(0.3, 8))

    def broker_down_long(self) -> bool:
        """Let the broker be away for longer than calls wait."""
        return self._broker_down(self._rng.uniform(8, 45))

    def strangers_transaction(self) -> bool:
        """Let somebody else's open transaction hold the positions' stable offset back."""
        topic = self._world.topics.positions
        shard = self._rng.randrange(self._world.kafka.partitions_of(topic))
        self._world.kafka.hold_back(topic, shard, for_s=self._rng.uniform(0.5, 20))
        return True

    def positions_unreadable(self) -> bool:
        """Take the right to read the positions away for a while."""
        kafka, until_s = self._world.kafka, self._world.loop.time() + self._rng.uniform(1, 25)
        kafka.unreadable_until_s[self._world.topics.positions] = until_s
        return True

    # Processes.

    def crash(self) -> bool:
        """Kill one instance; it is started again after a while."""
        instance = self._running()
        if instance is not None:
            instance.crash(down_s=self._rng.uniform(0.1, 20))
        return instance is not None

    def freeze_short(self) -> bool:
        """Stop one instance for less than a lease."""
        return self._freeze(self._rng.uniform(0.1, 2.5))

    def freeze_long(self) -> bool:
        """Stop one instance for longer than a lease."""
        return self._freeze(self._rng.uniform(FREEZE_LONG_MIN_S, 90))

    def clock_jump(self) -> bool:
        """Let one machine's wall clock jump."""
        instance = self._running()
        if instance is not None:
            instance.jump(by_ns=round(self._rng.uniform(-3600, 3600) * 1e9))
        return instance is not None

    def terminate(self) -> bool:
        """Ask one instance to end; its supervisor starts it again."""
        instance = self._running()
        if instance is not None:
            instance.terminate()
        return instance is not None

    def role_change(self) -> bool:
        """Make one instance an observer, or a member again."""
        instance = self._running()
        return instance is not None and instance.change_role(
            self._rng.choice(["auto", "auto", "observer"])
        )

    def all_at_once(self) -> bool:
        """Kill every instance, and start all at the same moment."""
        down_s = self._rng.uniform(0.1, 5)
        for instance in self._world.instances:
            instance.crash(down_s=down_s)
        return bool(self._world.instances)

    # Whom to strike.

    def _connection(self) -> Connection | None:
        connections = self._exchange.connections
        return self._rng.choice(connections) if connections else None

    def _on_one(self, strike: Callable[[Connection], None]) -> bool:
        connection = self._connection()
        if connection is not None:
            strike(connection)
        return connection is not None

    def _glitches(self) -> Glitches | None:
        connection = self._connection()
        return None if connection is None else glitches_of(connection)

    def _symbol(self) -> str:
        return self._rng.choice(list(self._exchange.markets))

    def _running(self) -> Instance | None:
        running = [instance for instance in self._world.instances if instance.running]
        return self._rng.choice(running) if running else None

    def _close(self, code: int, text: str) -> bool:
        return self._on_one(lambda connection: connection.close(code, text))

    def _skip_on_all(self, symbol: str, count: int) -> bool:
        for connection in self._exchange.connections:
            glitches_of(connection).skip[symbol] += count
        return bool(self._exchange.connections)

    def _broker_down(self, for_s: float) -> bool:
        kafka = self._world.kafka
        if not kafka.up:
            return False
        kafka.go_down()
        self._world.loop.call_world(for_s, kafka.come_up)
        return True

    def _freeze(self, for_s: float) -> bool:
        instance = self._running()
        if instance is not None:
            instance.freeze(for_s=for_s)
        return instance is not None


def glitches_of(connection: Connection) -> Glitches:
    """Return a connection's glitches, so far none."""
    if connection.glitches is None:
        connection.glitches = Glitches()
    return connection.glitches
