"""The exchange in virtual time: trading, its WebSocket hosts, its REST side, its ledger."""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from k2.errors import RetryError
from simulation.world.exchange_ledger import Market, frame_of
from simulation.world.exchange_rest import RestState, SimRest
from simulation.world.exchange_socket import Connection, SimSocket, SocketEvents
from simulation.world.node import Node, NodeState, current_node
from simulation.world.virtual_time import VirtualTimeLoop

HANDSHAKE_TIMEOUT_S = 5.0
CONNECTS_MAX = 300
CONNECTS_WINDOW_S = 300.0
BURST_SHARE = 0.01
"""Of arrivals, those that bring more trades within a moment."""


class ExchangeWorld:
    """One exchange, for all nodes. Each node has an address of its own."""

    def __init__(
        self,
        loop: VirtualTimeLoop,
        rng: random.Random,
        *,
        rates_per_s: Mapping[str, float],
        burst_share: float = BURST_SHARE,
    ) -> None:
        """List the symbols with their mean trades per second; trading begins at ``open``."""
        self.loop = loop
        self.rng = rng
        self.markets: dict[str, Market] = {}
        self._subscribers: dict[str, dict[Connection, None]] = {}
        for symbol, rate in rates_per_s.items():
            self.list_symbol(symbol, rate_per_s=rate)
        self.rest_state = RestState()
        self.connections: list[Connection] = []
        self.refuse_until_s: dict[str, float] = {}
        """Host to the time until which it refuses handshakes."""
        self.too_many_frames = 0
        self.too_many_connects = 0
        self._burst_share = burst_share
        self._cut_until_s: dict[str, float] = {}
        self._connects: dict[str, deque[float]] = {}
        self._trading = False

    # Trading.

    def list_symbol(self, symbol: str, *, rate_per_s: float) -> None:
        """List a symbol; its ids begin anywhere."""
        first_id = self.rng.randrange(0, 10**9)
        self.markets[symbol] = Market(symbol, rate_per_s=rate_per_s, first_id=first_id)
        self._subscribers[symbol] = {}

    def open(self, *, history: int = 0) -> None:
        """Begin to trade; ``history`` trades of each symbol have happened before."""
        self.open_with(dict.fromkeys(self.markets, history))

    def open_with(self, history: Mapping[str, int], *, newborn_after_s: float = 0.0) -> None:
        """Begin to trade, after so many trades of each symbol; one without comes a little later."""
        self._trading = True
        for symbol, market in self.markets.items():
            for _ in range(history[symbol]):
                market.trade(self.rng, now_s=-60.0)
            if history[symbol]:
                self._next(market)
            else:
                self.loop.call_world(newborn_after_s, self._next, market)

    def halt(self) -> None:
        """Trade no more."""
        self._trading = False

    def trade(self, market: Market) -> None:
        """Trade once and publish it."""
        row = market.trade(self.rng, now_s=self.loop.time())
        subscribers = self._subscribers[market.symbol]
        if subscribers:
            payload = frame_of(market.symbol, row)
            for connection in subscribers:
                connection.publish(market.symbol, row, payload)

    def _next(self, market: Market) -> None:
        self.loop.call_world(self.rng.expovariate(market.rate_per_s), self._arrival, market)

    def _arrival(self, market: Market) -> None:
        if not self._trading:
            return
        trades = self.rng.randrange(2, 30) if self.rng.random() < self._burst_share else 1
        for _ in range(trades):
            self.trade(market)
        self._next(market)

    # What the wiring is given.

    def rest(self, node: Node) -> SimRest:
        """Return a node's REST client."""
        return SimRest(self, node)

    async def connect(self, url: str, events: SocketEvents) -> SimSocket:
        """Open a WebSocket from the node that calls.

        Raises:
            RetryError: If the handshake is refused or gets no answer.
        """
        node = current_node()
        host = urlsplit(url).hostname or url
        self._count_attempt(node)
        if self.is_cut_off(node):
            await asyncio.sleep(HANDSHAKE_TIMEOUT_S)
            raise RetryError(f"{host}: the handshake timed out")
        await asyncio.sleep(self.rng.uniform(0.01, 0.08))
        if self.loop.time() < self.refuse_until_s.get(host, 0.0):
            raise RetryError(f"{host}: the handshake was answered with 503")
        if len(self._connects[node.name]) > CONNECTS_MAX:
            self.too_many_connects += 1
            raise RetryError(f"{host}: the handshake was answered with 429")
        connection = Connection(self, node, host, events)
        self.connections.append(connection)
        node.watchers.append(lambda n: self._node_changed(n, connection))
        return SimSocket(connection)

    def _count_attempt(self, node: Node) -> None:
        attempts = self._connects.setdefault(node.name, deque())
        attempts.append(self.loop.time())
        while attempts[0] < self.loop.time() - CONNECTS_WINDOW_S:
            attempts.popleft()

    # Faults that are not one connection's.

    def cut_off(self, node: Node, *, for_s: float) -> None:
        """Take a node off the network: its sockets go dead, nothing new is answered."""
        self._cut_until_s[node.name] = self.loop.time() + for_s
        for connection in self.connections_of(node):
            connection.lose_link(for_s=for_s)

    def is_cut_off(self, node: Node) -> bool:
        """Say whether a node is off the network."""
        return self.loop.time() < self._cut_until_s.get(node.name, 0.0)

    def connections_of(self, node: Node) -> list[Connection]:
        """Return the connections of a node the server still has."""
        return [connection for connection in self.connections if connection.node is node]

    # What connections report.

    def subscribed(self, connection: Connection) -> None:
        """Take note of a connection's streams."""
        wanted = set(connection.streams.values())
        for symbol, subscribers in self._subscribers.items():
            if symbol in wanted:
                subscribers[connection] = None
            else:
                subscribers.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed."""
        if connection in self.connections:
            self.connections.remove(connection)
        for subscribers in self._subscribers.values():
            subscribers.pop(connection, None)

    def _node_changed(self, node: Node, connection: Connection) -> None:
        if node.state is NodeState.DEAD and connection.open:
            # Its kernel resets what the process left behind.
            self.loop.call_world(connection.delay_s, connection.aborted_by_client)
