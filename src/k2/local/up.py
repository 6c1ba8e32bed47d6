"""``k2 up``: the whole main job on one machine, from nothing to rows in the lake."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from rich.console import Console
from rich.live import Live

from k2.errors import RetryError, StopError
from k2.ingestion.supervision import ExitCode, stop_on_signals
from k2.ingestion.symbols_file import read_wanted
from k2.local.down import NAMES, require_ours
from k2.local.observe import (
    ABSENT,
    PORT,
    Observed,
    find_prometheus,
    prometheus_command,
    require_unused,
    wait_ready,
)
from k2.local.ports import WantedPort, remembered_ports, require_free
from k2.local.processes import Command, end_leftover
from k2.local.services import STOP_DEADLINE_S, Service
from k2.local.stack import Stack, StackAddress
from k2.local.venue import Venue, VenueKind, choose_venue
from k2.local.wanted_file import keep_symbols
from k2.settings import SESSION_FILE, Settings, SettingsError
from k2.settings.security import LOGIN_VARIABLES

if TYPE_CHECKING:
    from k2.local.observer import Observer

LINE_EVERY_S = 5.0
VIEW_PER_S = 4
READY_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What one run was asked for."""

    settings: Settings
    symbols_given: bool
    kafka_port: int | None
    """None picks a free one; so for the registry."""
    registry_port: int | None
    advertise: str | None
    advertised_port: int | None
    auto_ports: bool
    stack_only: bool
    exchange: str
    tape: Path | None
    speed: str
    rate: float
    run_for_s: float | None
    observe: bool
    """Run Prometheus beside it."""


class Run:
    """One ``k2 up``: everything started, watched, and stopped in order."""

    def __init__(self, options: UpOptions, console: Console) -> None:
        """Prepare; nothing runs before ``main``."""
        self._options = options
        self._settings = options.settings
        self._console = console
        self._state_dir = options.settings.state_dir.absolute()
        self._services: list[Service] = []
        self._watching = False
        self._stack = Stack(
            state_dir=self._state_dir,
            kafka_port=options.kafka_port,
            registry_port=options.registry_port,
            advertise=options.advertise,
            advertised_port=options.advertised_port,
            report=self._say,
            console=console,
        )
        self._started_at_s = time.monotonic()

    async def main(self) -> ExitCode:
        """Run until Ctrl-C, SIGTERM or the time is over; the exit code is the proof's verdict.

        Raises:
            StopError: If something could not be started, or keeps failing.
        """
        stop = stop_on_signals()
        if self._options.run_for_s is not None and self._options.stack_only:
            asyncio.get_running_loop().call_later(self._options.run_for_s, stop.set)
        work = asyncio.create_task(self._run(stop))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not work.done() and not self._watching:
            # Still starting: nothing to prove yet.
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            self._say("stopped before anything was recorded")
            return ExitCode.CLEAN
        return await work

    async def _run(self, stop: asyncio.Event) -> ExitCode:
        require_ours(self._state_dir)
        if self._options.stack_only:
            return await self._run_stack_only(stop)
        try:
            await self._claim()
            venue, _ = await asyncio.gather(
                choose_venue(self._settings, wish=self._options.exchange, tape=self._options.tape),
                self._check_ports(),
            )
            self._say(f"trades come from {venue.said}")
            address = await self._stack.prepare()
            environ, symbols = await self._start_beside(venue, address)
            return await self._record(venue, environ, symbols, stop)
        finally:
            await self._stop_all()

    async def _claim(self) -> None:
        """Take the state directory before anything else: who holds it may well hold our ports."""
        await self._stack.claim()
        for name in NAMES:
            pid = await end_leftover(name, state_dir=self._state_dir, deadline_s=STOP_DEADLINE_S)
            if pid is not None:
                self._say(f"ended {name} (process {pid}), left running by an earlier k2")

    async def _run_stack_only(self, stop: asyncio.Event) -> ExitCode:
        async with self._stack as stack:
            address = stack.address
            self._say_ready(address)
            self._write_session(
                {
                    "KAFKA_BOOTSTRAP": address.bootstrap,
                    "SCHEMA_REGISTRY_URL": address.registry_url,
                }
            )
            if address.advertised:
                self._say(f"Kafka for containers: {address.advertised}")
            self._say("Ctrl-C stops both.")
            self._watching = True
            await self._until(stop, [self._keep_stack()])
        return ExitCode.CLEAN

    async def _start_beside(
        self, venue: Venue, address: StackAddress
    ) -> tuple[dict[str, str], list[str]]:
        """Start stack and services beside one another: each waits for what it needs.

        Returns the services' environment, and the symbols to record.
        """
        environ = self._environ(venue, address)
        symbols = list(self._settings.symbols)
        stack = asyncio.ensure_future(self._stack.start())
        try:
            if venue.kind in (VenueKind.BUILT_IN, VenueKind.RECORDING):
                listed = await self._start_exchange(venue, environ)
                if venue.kind is VenueKind.RECORDING and not self._options.symbols_given:
                    symbols = listed
            environ["BINANCE_SYMBOLS"] = ",".join(symbols)
            file = await keep_symbols(
                venue,
                self._settings,
                symbols,
                rest_urls=environ["BINANCE_REST_URL"].split(","),
                symbols_given=self._options.symbols_given,
            )
            environ["K2_SYMBOLS_FILE"] = str(file)
            symbols = sorted(read_wanted(file).names)
            self._write_session(environ)
            package = Path(__file__).parents[1]
            capture = str(package / "ingestion" / "binance_client.py")
            await self._start("archive", (sys.executable, "-m", "k2", "archive"), environ)
            await self._start("stream", (sys.executable, capture), environ)
        except BaseException:
            stack.cancel()
            await asyncio.gather(stack, return_exceptions=True)
            raise
        await stack
        self._say_ready(address)
        if self._options.observe:
            await self._start_prometheus(environ)
        return environ, symbols

    async def _record(
        self, venue: Venue, environ: dict[str, str], symbols: list[str], stop: asyncio.Event
    ) -> ExitCode:
        observer = await asyncio.to_thread(self._observe, venue, environ, symbols)
        self._watching = True
        if self._options.run_for_s is not None:
            asyncio.get_running_loop().call_later(self._options.run_for_s, stop.set)
        places: dict[str, Path | str] = {
            "lake": _from_here(venue.lake_dir),
            "logs": _from_here(self._state_dir / "logs"),
            "status page": f"http://localhost:{environ['K2_HEALTH_PORT']}/",
            "health": f"http://localhost:{environ['K2_HEALTH_PORT']}/health",
            "metrics": f"http://localhost:{environ['K2_METRICS_PORT']}/metrics and "
            f"http://localhost:{environ['K2_ARCHIVE_METRICS_PORT']}/metrics",
            "ask": self._hints(),
        }
        try:
            await self._until(
                stop,
                [
                    self._keep_stack(),
                    *(service.keep() for service in self._services),
                    self._show(observer, places),
                ],
            )
        finally:
            observer.stop()
        await self._stop_services()
        complete = await asyncio.to_thread(observer.show_proof, self._console)
        return ExitCode.CLEAN if complete else ExitCode.FAILED

    def _hints(self) -> str:
        where = "" if self._settings.state_dir == Path("var") else f" --state-dir {self._state_dir}"
        commands = (
            "k2 verify",
            "k2 tail",
            'k2 query "SELECT symbol, count(*) FROM trades GROUP BY 1"',
        )
        return " · ".join(f"{command}{where}" for command in commands)

    async def _until(self, stop: asyncio.Event, watched: list[Awaitable[None]]) -> None:
        """Run the watchers until ``stop``; one that fails ends the run."""
        tasks = [asyncio.ensure_future(one) for one in watched]
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)

    async def _keep_stack(self) -> None:
        while True:
            ended = await self._stack.watch()
            self._say(f"{ended.name} ended with {ended.return_code}; starting it again")
            await self._stack.restart(ended.name)

    async def _start(self, name: str, argv: tuple[str, ...], environ: dict[str, str]) -> Service:
        command = Command(name, argv, environ=environ)
        service = Service(command, state_dir=self._state_dir, report=self._say)
        await service.start()
        self._services.append(service)
        return service

    async def _start_exchange(self, venue: Venue, environ: dict[str, str]) -> list[str]:
        """Start the built-in exchange, point the environment at it, return what it lists."""
        port = remembered_ports(self._state_dir / "ports.json", ["exchange"], excluding=set())[
            "exchange"
        ]
        argv = [sys.executable, "-m", "k2", "exchange", "--port", str(port)]
        argv += ["--data-dir", str(venue.exchange_dir)]
        if self._options.tape is not None:
            argv += ["--tape", str(self._options.tape.absolute()), "--speed", self._options.speed]
        else:
            argv += ["--rate", f"{self._options.rate:g}"]
        exchange = await self._start("exchange", tuple(argv), environ)
        environ["BINANCE_WS_URL"] = f"ws://127.0.0.1:{port}/ws"
        environ["BINANCE_WS_URL_FALLBACK"] = ""
        environ["BINANCE_REST_URL"] = f"http://127.0.0.1:{port}"
        return await _listed_symbols(environ["BINANCE_REST_URL"], exchange)

    async def _start_prometheus(self, environ: dict[str, str]) -> None:
        """Start Prometheus on what runs, or say that it is not installed."""
        program = find_prometheus()
        if program is None:
            self._say(ABSENT)
            return
        observed = Observed(
            stream_port=int(environ["K2_METRICS_PORT"]),
            archive_port=int(environ["K2_ARCHIVE_METRICS_PORT"]),
            prometheus_port=self._prometheus_port(),
        )
        command = prometheus_command(program, observed, state_dir=self._state_dir)
        service = await self._start(command.name, command.argv, dict(os.environ))
        await wait_ready(service, port=observed.prometheus_port)
        self._say(f"Prometheus: http://localhost:{observed.prometheus_port}")

    def _prometheus_port(self) -> int:
        if self._options.auto_ports:
            path = self._state_dir / "ports.json"
            return remembered_ports(path, ["prometheus"], excluding=set())["prometheus"]
        require_unused(PORT)
        return PORT

    def _environ(self, venue: Venue, address: StackAddress) -> dict[str, str]:
        """Return the environment of the services: ours, with this run's addresses in it."""
        ports = self._service_ports()
        return {
            # How somebody else's Kafka lets in is of no use to this one.
            **{name: value for name, value in os.environ.items() if name not in LOGIN_VARIABLES},
            "KAFKA_BOOTSTRAP": address.bootstrap,
            "SCHEMA_REGISTRY_URL": address.registry_url,
            "KAFKA_TOPIC_PREFIX": venue.topic_prefix,
            "BINANCE_STREAM": self._settings.stream.value,
            "BINANCE_WS_URL": self._settings.ws_url,
            "BINANCE_WS_URL_FALLBACK": self._settings.ws_url_fallback,
            "BINANCE_REST_URL": ",".join(self._settings.rest_urls),
            "K2_STATE_DIR": str(self._state_dir),
            "K2_LOG_FILE": "off",  # what a service prints is its log: logs/NAME.log
            "K2_LAKE_DIR": str(venue.lake_dir),
            "K2_METRICS_PORT": str(ports["metrics-stream"]),
            "K2_ARCHIVE_METRICS_PORT": str(ports["metrics-archive"]),
            "K2_HEALTH_PORT": str(ports["health"]),
            "K2_ARCHIVE_HEALTH_PORT": str(ports["health-archive"]),
        }

    def _service_ports(self) -> dict[str, int]:
        if self._options.auto_ports:
            return remembered_ports(
                self._state_dir / "ports.json",
                ["metrics-stream", "metrics-archive", "health", "health-archive"],
                excluding=set(),
            )
        return {
            "metrics-stream": self._settings.metrics_port,
            "metrics-archive": self._settings.archive_metrics_port,
            "health": self._settings.health_port,
            "health-archive": self._settings.archive_health_port,
        }

    async def _check_ports(self) -> None:
        if self._options.observe and find_prometheus() is not None:
            await asyncio.to_thread(self._prometheus_port)
        ports = self._service_ports()
        wanted = [
            *self._stack.fixed_ports(),
            WantedPort(ports["metrics-stream"], "/metrics", "K2_METRICS_PORT"),
            WantedPort(ports["metrics-archive"], "/metrics", "K2_ARCHIVE_METRICS_PORT"),
            WantedPort(ports["health"], "/health", "K2_HEALTH_PORT"),
            WantedPort(ports["health-archive"], "/health", "K2_ARCHIVE_HEALTH_PORT"),
        ]
        await asyncio.to_thread(require_free, *(one for one in wanted if one.port))

    def _observe(self, venue: Venue, environ: dict[str, str], symbols: list[str]) -> "Observer":
        """Create the topics, register the schema and begin to watch (blocking)."""
        # The lake's libraries take seconds to import: here, beside everything else, not before it.
        from k2.local.observer import Observer  # noqa: PLC0415

        return Observer(
            bootstrap=environ["KAFKA_BOOTSTRAP"],
            registry_url=environ["SCHEMA_REGISTRY_URL"],
            topic_prefix=venue.topic_prefix,
            shards=self._settings.shards,
            lake_dir=venue.lake_dir,
            lake_catalog=self._settings.lake_catalog,
            symbols=symbols,
            health_port=int(environ["K2_HEALTH_PORT"]),
        )

    def _write_session(self, environ: dict[str, str]) -> None:
        """Leave the addresses for ``k2 verify``, ``query``, ``tail`` and ``schema``."""
        lines = [
            f"{name}={environ[name]}"
            for name in (
                *("BINANCE_SYMBOLS", "BINANCE_STREAM", "BINANCE_WS_URL", "BINANCE_REST_URL"),
                *("KAFKA_BOOTSTRAP", "KAFKA_TOPIC_PREFIX", "SCHEMA_REGISTRY_URL", "K2_LAKE_DIR"),
                "K2_SYMBOLS_FILE",
            )
            if name in environ
        ]
        text = "# Written by k2 up: what this state directory ran last.\n" + "\n".join(lines) + "\n"
        path = self._state_dir / SESSION_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)

    async def _show(self, observer: "Observer", places: dict[str, Path | str]) -> None:
        seen_rows = False
        if not self._console.is_terminal:
            for name, place in places.items():
                self._say(f"{name}: {place}")
            shown_at_s = time.monotonic()
            while True:
                await asyncio.sleep(0.1)
                if not seen_rows and observer.watcher.new_rows:
                    seen_rows = True
                    self._say(f"first new rows are in the lake ({self._elapsed()})")
                if time.monotonic() - shown_at_s >= LINE_EVERY_S:
                    shown_at_s = time.monotonic()
                    self._say(observer.line())
        with Live(console=self._console, refresh_per_second=VIEW_PER_S) as live:
            while True:
                title = f"k2 · {self._elapsed()}"
                live.update(observer.render(title=title, places=places))
                await asyncio.sleep(1 / VIEW_PER_S)

    async def _stop_services(self) -> None:
        """Stop who watches, capture, archive (which takes the rest of the topic), exchange."""
        order = {"prometheus": 0, "stream": 1, "archive": 2, "exchange": 3}
        for service in sorted(self._services, key=lambda one: order[one.name]):
            self._say(f"stopping {service.name}")
            await service.stop()
        self._services = []

    async def _stop_all(self) -> None:
        await self._stop_services()
        await self._stack.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say_ready(self, address: StackAddress) -> None:
        self._say(
            f"Kafka {_local(address.bootstrap)} and registry "
            f"{_local(address.registry_url)} are ready ({self._elapsed()})"
        )

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started_at_s:.1f} s"


async def _listed_symbols(rest_url: str, exchange: Service) -> list[str]:
    """Return what the exchange lists, once it answers."""
    deadline_s = time.monotonic() + READY_DEADLINE_S
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{rest_url}/api/v3/exchangeInfo") as reply:
                    info = msgspec.json.decode(await reply.read())
                    return [row["symbol"] for row in info["symbols"]]
            except aiohttp.ClientConnectionError as exc:
                if time.monotonic() > deadline_s or not exchange.running:
                    raise StopError(
                        f"the built-in exchange does not answer: {exchange.said()}"
                    ) from exc
            await asyncio.sleep(0.05)


def _from_here(path: Path) -> Path:
    """Return the path as the user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _local(address: str) -> str:
    return address.replace("127.0.0.1", "localhost")


def run_up(options: UpOptions) -> ExitCode:
    """Run ``k2 up`` and return its exit code."""
    console = Console()
    say: Callable[[str], None] = lambda text: Console(stderr=True).print(  # noqa: E731
        text, style="red", markup=False, highlight=False, soft_wrap=True
    )
    try:
        return asyncio.run(Run(options, console).main())
    except SettingsError as exc:
        say(f"k2 up: {exc}")
        return ExitCode.CONFIGURATION
    except StopError as exc:
        say(f"k2 up: {exc}")
    except RetryError as exc:
        say(f"k2 up: {exc}; try again")
    return ExitCode.FAILED
