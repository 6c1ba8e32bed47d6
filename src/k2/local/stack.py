"""The embedded stack: ports and a state directory in, Kafka and a schema registry out.

async with Stack(state_dir=Path("var"), kafka_port=None, registry_port=None) as stack:
    print(stack.address.bootstrap)
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from k2.errors import StopError
from k2.local.aot import aot_options
from k2.local.broker import BROKER, BrokerConfig, broker_program, start_broker
from k2.local.file_lock import FileLock
from k2.local.ports import ANY_ADDRESS, LOOPBACK, WantedPort, remembered_ports, require_free
from k2.local.preparing import Prepared, prepare
from k2.local.processes import Child, end_leftover
from k2.local.registry import (
    CONFLUENT_PREFIX,
    REGISTRY,
    RegistryConfig,
    registry_program,
    start_registry,
)
from k2.local.registry_proxy import RegistryProxy

KAFKA_PORT = 9092
REGISTRY_PORT = 8081
ADVERTISED_PORT = 19092
_STOP_DEADLINE_S = 4.0
_WATCH_EVERY_S = 0.1


@dataclass(frozen=True)
class StackAddress:
    """Where the stack is reached.

    Attributes:
        bootstrap: Kafka, for clients on this machine.
        registry_url: Confluent's API, at the root.
        kafka_port: Port of ``bootstrap``.
        registry_port: Port of ``registry_url``.
        advertised: Kafka for clients elsewhere (``HOST:PORT``), or None.
    """

    bootstrap: str
    registry_url: str
    kafka_port: int
    registry_port: int
    advertised: str | None


@dataclass(frozen=True)
class Ended:
    """A process of the stack that ended by itself.

    Attributes:
        name: ``kafka`` or ``registry``, for ``restart``.
        return_code: Negative for a signal.
        log_tail: The last lines it wrote.
    """

    name: str
    return_code: int
    log_tail: str


class Stack:
    """Kafka and a schema registry that belong to one state directory and to this process."""

    def __init__(
        self,
        *,
        state_dir: Path,
        kafka_port: int | None = KAFKA_PORT,
        registry_port: int | None = REGISTRY_PORT,
        advertise: str | None = None,
        advertised_port: int | None = ADVERTISED_PORT,
        report: Callable[[str], None] = lambda _: None,
        console: Console | None = None,
    ) -> None:
        """Describe a stack; nothing runs before ``start``.

        Args:
            state_dir: Data, logs, pid files and chosen ports; survives restarts.
            kafka_port: None picks a free one and remembers it; so for the other ports.
            registry_port: Of Confluent's API, at the root.
            advertise: Host name or address by which containers reach this machine. Adds a
                listener on every interface; all others are on loopback.
            advertised_port: Of that listener.
            report: Receives progress, a line at a time.
            console: Where downloads draw their bars, if it is a terminal.
        """
        self._state_dir = state_dir.absolute()
        self._wanted = {"kafka": kafka_port, "registry": registry_port}
        self._advertise = advertise
        if advertise is not None:
            self._wanted["advertised"] = advertised_port
        self._report = report
        self._console = console
        self._lock: FileLock | None = None
        self._prepared: Prepared | None = None
        self._ports: dict[str, int] = {}
        self._children: dict[str, Child] = {}
        self._proxy: RegistryProxy | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    @property
    def state_dir(self) -> Path:
        """Data, logs (``logs/kafka.log``, ``logs/registry.log``), pid files and ports."""
        return self._state_dir

    @property
    def address(self) -> StackAddress:
        """Where a started stack is reached; the same for as long as it runs."""
        kafka, registry = self._ports["kafka"], self._ports["registry"]
        advertised = self._ports.get("advertised")
        return StackAddress(
            bootstrap=f"{LOOPBACK}:{kafka}",
            registry_url=f"http://{LOOPBACK}:{registry}",
            kafka_port=kafka,
            registry_port=registry,
            advertised=f"{self._advertise}:{advertised}" if advertised is not None else None,
        )

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: ``kafka``, ``registry``."""
        return {name: child.pid for name, child in self._children.items()}

    async def claim(self) -> None:
        """Take the state directory, and end what an earlier run left of the stack in it.

        Raises:
            StopError: If another k2 runs on it.
        """
        if self._lock is not None:
            return
        self._lock = self._take_state_dir()
        for name in (REGISTRY, BROKER):
            pid = await end_leftover(name, state_dir=self._state_dir, deadline_s=_STOP_DEADLINE_S)
            if pid is not None:
                self._report(f"ended {name} (process {pid}), left running by an earlier k2")

    async def prepare(self) -> StackAddress:
        """Take the state directory and the ports, download and train what is missing.

        After it the address is known and ``start`` takes seconds, so that others can start
        beside it.

        Raises:
            StopError: If a port or the state directory is in use; the message says by whom.
            RetryError: If a download failed.
        """
        try:
            await self.claim()
            self._ports = self._choose_ports()
            self._prepared = await prepare(report=self._report, console=self._console)
        except BaseException:
            await self.stop()
            raise
        return self.address

    async def start(self) -> StackAddress:
        """Start both and return when both do their work; if one cannot, neither runs.

        Raises:
            StopError: If a port or the state directory is in use; the message says by whom.
            RetryError: If a download failed or a process did not come up.
        """
        if self._prepared is None:
            await self.prepare()
        try:
            await _both(self.restart_broker(), self.restart_registry())
            self._proxy = RegistryProxy(
                port=self._ports["registry"],
                backend=f"http://{LOOPBACK}:{self._ports['registry-backend']}",
                prefix=CONFLUENT_PREFIX,
            )
            await self._proxy.start()
        except BaseException:
            await self.stop()
            raise
        return self.address

    async def stop(self) -> None:
        """Stop the registry, then Kafka; kill what has not ended within 4 s each."""
        try:
            proxy, self._proxy = self._proxy, None
            if proxy is not None:
                await proxy.stop()
            await self._end(REGISTRY)
            await self._end(BROKER)
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    async def watch(self) -> Ended:
        """Return when a process has ended that nobody here stopped; restart it, watch again."""
        while True:
            for name, child in self._children.items():
                if child.return_code is not None:
                    return Ended(name, child.return_code, child.log_tail())
            await asyncio.sleep(_WATCH_EVERY_S)

    async def restart(self, name: str) -> None:
        """Start ``kafka`` or ``registry`` again on the same port, data and settings.

        Raises:
            RetryError: If it does not come up. ``watch`` does not report it again then: call
                this again, or stop.
        """
        await {BROKER: self.restart_broker, REGISTRY: self.restart_registry}[name]()

    async def restart_broker(self) -> None:
        """End the broker if it runs, start it, return when it answers.

        Raises:
            RetryError: If it does not come up.
        """
        prepared = self._require_prepared()
        await self._end(BROKER)
        program = broker_program(prepared.installation)
        advertised = self._ports.get("advertised")
        self._children[BROKER] = await start_broker(
            BrokerConfig(
                data_dir=self._state_dir / "kafka",
                port=self._ports["kafka"],
                controller_port=self._ports["kafka-controller"],
                advertised=(self._advertise, advertised)
                if self._advertise is not None and advertised is not None
                else None,
            ),
            program,
            state_dir=self._state_dir,
            kafka_version=prepared.kafka_version,
            jvm_options=aot_options(program, cache_dir=prepared.cache_dir),
        )

    async def restart_registry(self) -> None:
        """End the registry if it runs, start it, return when it answers.

        Raises:
            RetryError: If it does not come up.
        """
        prepared = self._require_prepared()
        await self._end(REGISTRY)
        program = registry_program(prepared.installation)
        self._children[REGISTRY] = await start_registry(
            RegistryConfig(self._state_dir / "registry", port=self._ports["registry-backend"]),
            program,
            state_dir=self._state_dir,
            jvm_options=aot_options(program, cache_dir=prepared.cache_dir),
        )

    async def _end(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            await child.terminate(deadline_s=_STOP_DEADLINE_S)

    def _require_prepared(self) -> Prepared:
        if self._prepared is None:
            raise StopError("the stack has not been started")
        return self._prepared

    def _take_state_dir(self) -> FileLock:
        path = self._state_dir / "stack.lock"
        lock = FileLock.try_acquire(path)
        if lock is None:
            holder = path.read_text(encoding="utf-8").strip() or "?"
            raise StopError(
                f"another k2 (process {holder}) runs on {self._state_dir}; stop it, "
                "or choose another directory with --state-dir"
            )
        lock.write(str(os.getpid()))
        return lock

    def fixed_ports(self) -> list[WantedPort]:
        """Return the ports that were asked for by number."""
        return [
            WantedPort(port, purpose, flag, host)
            for name, purpose, flag, host in (
                ("kafka", "Kafka", "--kafka-port", LOOPBACK),
                ("registry", "schema registry", "--registry-port", LOOPBACK),
                ("advertised", "Kafka for containers", "--advertised-port", ANY_ADDRESS),
            )
            if (port := self._wanted.get(name)) is not None
        ]

    def _choose_ports(self) -> dict[str, int]:
        fixed = {name: port for name, port in self._wanted.items() if port is not None}
        require_free(*self.fixed_ports())
        free = [name for name in self._wanted if name not in fixed]
        picked = remembered_ports(
            self._state_dir / "ports.json",
            [*free, "kafka-controller", "registry-backend"],
            excluding=set(fixed.values()),
        )
        return fixed | picked


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Await both even if one fails, so that nothing starts behind our back; raise the first."""
    tasks = [asyncio.create_task(first), asyncio.create_task(second)]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
