"""``k2 up``: the whole main job on one machine, from nothing to rows in the lake."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from k2.errors import RetryError, StopError
from k2.ingestion.supervision import ExitCode, stop_on_signals
from k2.ingestion.symbols_file import read_wanted
from k2.local.addresses import Addresses, kafka_environ, write_session
from k2.local.built_in import exchange_command, listed_symbols
from k2.local.down import NAMES, require_ours
from k2.local.observe import (
    ABSENT,
    Observed,
    find_prometheus,
    prometheus_command,
    wait_ready,
)
from k2.local.ports import require_free
from k2.local.processes import Command, end_leftover
from k2.local.saying import Saying, places_of
from k2.local.services import STOP_DEADLINE_S, Service
from k2.local.stack import Stack, StackAddress
from k2.local.up_options import UpOptions
from k2.local.venue import Venue, VenueKind, choose_venue
from k2.local.wanted_file import keep_symbols
from k2.settings import SettingsError

if TYPE_CHECKING:
    from k2.local.observer import Observer


class Run:
    """One ``k2 up``: everything started, watched, and stopped in order."""

    def __init__(self, options: UpOptions, console: Console) -> None:
        """Prepare; nothing runs before ``main``."""
        self._options = options
        self._settings = options.settings
        self._voice = Saying(console)
        self._state_dir = options.settings.state_dir.absolute()
        self._addresses = Addresses(options, self._state_dir)
        self._services: list[Service] = []
        self._watching = False
        self._stack = Stack(
            state_dir=self._state_dir,
            kafka_port=options.kafka_port,
            registry_port=options.registry_port,
            advertise=options.advertise,
            advertised_port=options.advertised_port,
            report=self._voice.say,
            console=console,
        )

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
            self._voice.say("stopped before anything was recorded")
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
            self._voice.say(f"trades come from {venue.said}")
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
                self._voice.say(f"ended {name} (process {pid}), left running by an earlier k2")

    async def _run_stack_only(self, stop: asyncio.Event) -> ExitCode:
        async with self._stack as stack:
            address = stack.address
            self._voice.say_ready(address)
            write_session(self._state_dir, kafka_environ(address))
            if address.advertised:
                self._voice.say(f"Kafka for containers: {address.advertised}")
            self._voice.say("Ctrl-C stops both.")
            self._watching = True
            await self._until(stop, [self._keep_stack()])
        return ExitCode.CLEAN

    async def _start_beside(
        self, venue: Venue, address: StackAddress
    ) -> tuple[dict[str, str], list[str]]:
        """Start stack and services beside one another: each waits for what it needs.

        Returns the services' environment, and the symbols to record.
        """
        environ = self._addresses.environ(venue, address)
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
            write_session(self._state_dir, environ)
            package = Path(__file__).parents[1]
            capture = str(package / "ingestion" / "binance_client.py")
            await self._start("archive", (sys.executable, "-m", "k2", "archive"), environ)
            await self._start("stream", (sys.executable, capture), environ)
        except BaseException:
            stack.cancel()
            await asyncio.gather(stack, return_exceptions=True)
            raise
        await stack
        self._voice.say_ready(address)
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
        named = self._settings.state_dir != Path("var")
        places = places_of(venue, environ, self._state_dir, named=named)
        try:
            await self._until(
                stop,
                [
                    self._keep_stack(),
                    *(service.keep() for service in self._services),
                    self._voice.show(observer, places),
                ],
            )
        finally:
            observer.stop()
        await self._stop_services()
        complete = await asyncio.to_thread(observer.show_proof, self._voice.console)
        return ExitCode.CLEAN if complete else ExitCode.FAILED

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
            self._voice.say(f"{ended.name} ended with {ended.return_code}; starting it again")
            await self._stack.restart(ended.name)

    async def _start(self, name: str, argv: tuple[str, ...], environ: dict[str, str]) -> Service:
        command = Command(name, argv, environ=environ)
        service = Service(command, state_dir=self._state_dir, report=self._voice.say)
        await service.start()
        self._services.append(service)
        return service

    async def _start_exchange(self, venue: Venue, environ: dict[str, str]) -> list[str]:
        """Start the built-in exchange, point the environment at it, return what it lists."""
        port = self._addresses.exchange()
        argv = exchange_command(self._options, data_dir=venue.exchange_dir, port=port)
        exchange = await self._start("exchange", argv, environ)
        environ["BINANCE_WS_URL"] = f"ws://127.0.0.1:{port}/ws"
        environ["BINANCE_WS_URL_FALLBACK"] = ""
        environ["BINANCE_REST_URL"] = f"http://127.0.0.1:{port}"
        return await listed_symbols(environ["BINANCE_REST_URL"], exchange)

    async def _start_prometheus(self, environ: dict[str, str]) -> None:
        """Start Prometheus on what runs, or say that it is not installed."""
        program = find_prometheus()
        if program is None:
            self._voice.say(ABSENT)
            return
        observed = Observed(
            stream_port=int(environ["K2_METRICS_PORT"]),
            archive_port=int(environ["K2_ARCHIVE_METRICS_PORT"]),
            prometheus_port=self._addresses.prometheus(),
        )
        command = prometheus_command(program, observed, state_dir=self._state_dir)
        service = await self._start(command.name, command.argv, dict(os.environ))
        await wait_ready(service, port=observed.prometheus_port)
        self._voice.say(f"Prometheus: http://localhost:{observed.prometheus_port}")

    async def _check_ports(self) -> None:
        if self._options.observe and find_prometheus() is not None:
            await asyncio.to_thread(self._addresses.prometheus)
        wanted = [*self._stack.fixed_ports(), *self._addresses.services().wanted()]
        await asyncio.to_thread(require_free, *wanted)

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

    async def _stop_services(self) -> None:
        """Stop who watches, capture, archive (which takes the rest of the topic), exchange."""
        order = {"prometheus": 0, "stream": 1, "archive": 2, "exchange": 3}
        for service in sorted(self._services, key=lambda one: order[one.name]):
            self._voice.say(f"stopping {service.name}")
            await service.stop()
        self._services = []

    async def _stop_all(self) -> None:
        await self._stop_services()
        await self._stack.stop()


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
