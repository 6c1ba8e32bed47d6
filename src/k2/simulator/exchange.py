"""The exchange in a box: one tape, one ledger, one port for WebSocket and REST.

The wiring: each tick asks the tape what has traded, commits it to the ledger, then publishes it.
"""

import asyncio
import contextlib
import json
import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from k2.errors import StopError
from k2.market import StreamKind
from k2.simulator.config import ExchangeConfig
from k2.simulator.control import ControlServer
from k2.simulator.database import Database
from k2.simulator.faults import FaultPlan
from k2.simulator.floor import TradingFloor
from k2.simulator.ledger import Ledger
from k2.simulator.listing import Listing
from k2.simulator.recording import RecordingSummary
from k2.simulator.rest import RestServer
from k2.simulator.websocket import StreamServer

ADDRESS_FILE_NAME = "address.json"
SHUTDOWN_S = 0.2


class Exchange:
    """A running exchange; use as ``async with Exchange(config) as exchange``.

    ``ws_url`` and ``rest_url`` have no trailing slash; ``ledger`` holds all that was published.

    Raises:
        StopError: On entering: the port or data directory is taken, the recording or a symbol is
            unknown or damaged, or the data directory holds another tape.
    """

    def __init__(self, config: ExchangeConfig) -> None:
        self.config = config
        self.port = 0
        self._trading = True
        self._faults = FaultPlan()
        self._streams = StreamServer(config)
        self._stack = contextlib.AsyncExitStack()
        self._finished = asyncio.Event()

    @property
    def ws_url(self) -> str:
        """Return the WebSocket base, for example ``ws://127.0.0.1:9443``."""
        return f"ws://{self._host}:{self.port}"

    @property
    def rest_url(self) -> str:
        """Return the REST base, for example ``http://127.0.0.1:9443``."""
        return f"http://{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        host = self.config.host
        return f"[{host}]" if ":" in host else host

    @property
    def listings(self) -> dict[str, Listing]:
        """The symbols listed, by name."""
        return self.floor.listings

    @property
    def recording(self) -> RecordingSummary | None:
        """What is played, if it is not generated."""
        return self.floor.recording

    @property
    def streams(self) -> StreamServer:
        """The stream side, for its counts and connections."""
        return self._streams

    @property
    def trading(self) -> bool:
        """False while frozen."""
        return self._trading

    @property
    def tape_finished(self) -> bool:
        """True once the whole recording has been played and published."""
        return self._finished.is_set()

    def stop_trading(self) -> None:
        """Freeze the tape: on return, all that will be published is in the ledger and was sent."""
        self._trading = False

    def start_trading(self) -> None:
        """Let the tape go on from where it stood."""
        self._trading = True

    def newest(self) -> dict[str, dict[str, int]]:
        """Return the newest published ids: symbol, then ``aggTrade`` or ``trade``."""
        newest: dict[str, dict[str, int]] = {}
        for symbol, kind in self.ledger.series():
            ids = self.ledger.range(symbol, kind)
            if ids is not None:
                newest.setdefault(symbol, {})[kind.value] = ids.last_id
        return newest

    async def wait_failed(self) -> None:
        """Wait until the tape cannot go on.

        Raises:
            StopError: Why it cannot; never returns otherwise.
        """
        await asyncio.shield(self._ticker)

    async def wait_tape_finished(self) -> None:
        """Wait until the whole recording has been played; a generated tape never ends."""
        await self._finished.wait()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        self.floor = TradingFloor(config)
        self.ledger = stack.enter_context(Ledger.write(config.data_dir))
        self.floor.open(self.ledger)
        self.database = Database(self.ledger, delay_s=config.rest_delay_s)
        app = web.Application()
        self._streams.add_routes(app)
        RestServer(
            config, listings=self.listings, database=self.database, faults=self._faults
        ).add_routes(app)
        ControlServer(self, self._faults, rest_delay_s=config.rest_delay_s).add_routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, config.host, config.port, backlog=1024)
        try:
            await site.start()
        except OSError as exc:
            raise StopError(
                f"cannot listen on {config.host}:{config.port}: {exc.strerror}; "
                "choose another --port, or 0 for a free one"
            ) from exc
        stack.push_async_callback(self._streams.close)
        self.port = runner.addresses[0][1]
        if config.data_dir is not None:
            self._write_address(config.data_dir)
            stack.callback((config.data_dir / ADDRESS_FILE_NAME).unlink, missing_ok=True)
        self._ticker = asyncio.create_task(self._tick_for_ever(), name="exchange tape")
        stack.push_async_callback(_cancel, self._ticker)

    def _write_address(self, data_dir: Path) -> None:
        address = {
            "host": self.config.host,
            "port": self.port,
            "rest_url": self.rest_url,
            "ws_url": self.ws_url,
            "pid": os.getpid(),
        }
        new = data_dir / f"{ADDRESS_FILE_NAME}.new"
        new.write_text(json.dumps(address) + "\n", encoding="utf-8")
        new.replace(data_dir / ADDRESS_FILE_NAME)

    async def _tick_for_ever(self) -> None:
        waiting_for_listener = self.config.tape is not None
        tick_s = self.config.tick_s
        before_us, before_s = time.time_ns() // 1000, time.monotonic()
        while True:
            # After a stall the next tick comes soon and covers all of it; even then the sockets
            # get their turn first.
            await asyncio.sleep(max(tick_s / 4, before_s + tick_s - time.monotonic()))
            now_us, now_s = max(before_us, time.time_ns() // 1000), time.monotonic()
            if waiting_for_listener and self._streams.listened_to(self.listings):
                waiting_for_listener = False
            if self._trading and not waiting_for_listener:
                self._trade(start_us=before_us, end_us=now_us, now_s=now_s)
            self._streams.upkeep(elapsed_s=now_s - before_s)
            before_us, before_s = now_us, now_s

    def _trade(self, *, start_us: int, end_us: int, now_s: float) -> None:
        rows = self.floor.advance(start_us=start_us, end_us=end_us)
        if rows:
            rows = self._streams.orders.published(rows)
            self.database.lag.published(rows, now_s, self._newest_id)
            self.ledger.append(rows)
            self._streams.publish(rows)
        if self.floor.finished:
            self._finished.set()

    def _newest_id(self, symbol: str, kind: StreamKind) -> int:
        ids = self.ledger.range(symbol, kind)
        return -1 if ids is None else ids.last_id


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def parse_speed(text: str) -> float:
    """Read ``--speed``: a positive number, or ``max``.

    Raises:
        ValueError: If it is neither.
    """
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (speed > 0 and math.isfinite(speed)):
        raise ValueError(f"speed must be a positive number or max, not {text!r}")
    return speed
