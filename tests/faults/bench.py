"""One row's world: an exchange, proxies, instances and a topic prefix of its own."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from faults.parts import Instance, LoadSampler, Proxy
from faults.tap import RestTap
from integration.harness import Process, Room, wait_for
from k2.ingestion import binance_client
from k2.local.background import BackgroundStack
from k2.local.ports import pick_free

START_DEADLINE_S = 90.0
PATIENCE_S = 30.0
BLOCKABLE = Path(__file__).with_name("blockable.py")
EXCHANGE = Path(__file__).with_name("exchange.py")


class Bench:
    """What a row's function acts on."""

    def __init__(
        self,
        stack: BackgroundStack,
        path: Path,
        prefix: str,
        *,
        symbols: tuple[str, ...],
        settings: Mapping[str, str],
    ) -> None:
        self.room = Room(stack, path, prefix, symbols=symbols)
        self.stack = stack
        self.instances: list[Instance] = []
        self.legs: dict[str, Proxy] = {}
        self.began_s = 0.0
        self.ended_s = 0.0
        self.stopped_s = 0.0
        self.newest_then: dict[str, int] = {}
        self.final: dict[str, int] = {}
        self.moments: list[float] = []
        """Instants whose own pauses are wanted (of each hand-over, say)."""
        self.figures: dict[str, float] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []
        self._calls_before = 0
        self._settings = dict(settings)
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """End every process."""
        for process in self.room.processes:
            if process.running:
                process.kill()
        self._cleanup.close()

    # Setting up.

    def start_exchange(self, *flags: str, config: Mapping[str, float] | None = None) -> Process:
        """Start the exchange and the proxies before it."""
        if config is None:
            process = self.room.exchange(*flags)
        else:
            process = self._start_configured(flags, config)
        port = urlsplit(self.room.exchange_url).port
        assert port is not None
        self.tap = self._cleanup.enter_context(RestTap(port))
        self.rest = self._proxy(self.tap.port)
        self.legs = {"a": self._proxy(port), "b": self._proxy(port)}
        self.registry = self._proxy(self.stack.address.registry_port)
        self.load = self._cleanup.enter_context(LoadSampler(lambda: self.instances))
        self.room.extra |= {
            "BINANCE_WS_URL": f"ws://127.0.0.1:{self.legs['a'].port}/ws",
            "BINANCE_WS_URL_FALLBACK": f"ws://127.0.0.1:{self.legs['b'].port}/ws",
            "BINANCE_REST_URL": f"http://127.0.0.1:{self.rest.port}",
            "SCHEMA_REGISTRY_URL": f"http://127.0.0.1:{self.registry.port}",
            **self._settings,
        }
        return process

    def start_instance(self, *, blockable: bool = False, **settings: str) -> Instance:
        """Start one more capture; it may still be on its way when this returns."""
        name, port = f"instance {len(self.instances) + 1}", pick_free(1)[0]
        program = str(BLOCKABLE) if blockable else str(binance_client.__file__)
        process = self.room.process(name.replace(" ", "-"), [sys.executable, program])
        process.environ |= {"K2_HEALTH_PORT": str(port), **settings}
        instance = Instance(name, process.start(), port)
        self.instances.append(instance)
        return instance

    def start_instances(self, count: int) -> None:
        """Start the writer, then its standbys, and wait until all are hot."""
        for number in range(count):
            self.start_instance()
            self.until(lambda: all(one.listens for one in self.instances), "all legs to be live")
            if not number:
                self.until_written()
        if count > 1:
            self.until_written()

    @property
    def first(self) -> Instance:
        """The instance started first."""
        return self.instances[0]

    @property
    def writer(self) -> Instance:
        """The instance that writes (one shard at least)."""
        self.until(lambda: any(one.writes for one in self.instances), "a writer")
        return next(one for one in self.instances if one.writes)

    @property
    def standby(self) -> Instance:
        """An instance that writes nothing."""
        return next(one for one in self.instances if not one.writes)

    # Acting.

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Mark when the fault was in force; what heals is measured from its end."""
        self.begin_fault()
        yield
        self.end_fault()

    def begin_fault(self) -> None:
        """The fault begins now."""
        self.began_s = time.time()
        self._calls_before = self.tap.calls

    def end_fault(self) -> None:
        """The fault is over now."""
        self.ended_s = time.time()
        self.newest_then = self.room.newest_ids()

    def go_on(self, for_s: float) -> None:
        """Let trading go on, told by the exchange."""
        end_s = time.monotonic() + for_s
        self.until(
            lambda: time.monotonic() >= end_s and self.room.newest_ids(),
            "time to pass",
            within_s=for_s + PATIENCE_S,
        )

    def until(self, condition: Callable[[], Any], what: str, *, within_s: float = 90.0) -> Any:
        """Wait for a condition."""
        return wait_for(condition, what=what, deadline_s=within_s)

    def until_written(self, *, within_s: float = START_DEADLINE_S) -> None:
        """Wait until some instance has written every symbol's present newest id."""
        newest = self.room.newest_ids()
        self.until_reached(newest, within_s=within_s)

    def until_reached(self, newest: Mapping[str, int], *, within_s: float) -> None:
        """Wait until an instance says that the log has these ids."""

        def reached() -> bool:
            found = [one.last_ids() for one in self.instances if one.process.running]
            return all(
                any(last.get(symbol, -1) >= wanted for last in found)
                for symbol, wanted in newest.items()
            )

        self.until(reached, f"the tape to reach {dict(newest)}", within_s=within_s)

    def stream_fault(self, fault: str, *, leg: str | None = None, **fields: object) -> None:
        """Order a stream fault, of one leg or of all connections."""
        which: dict[str, object] = {}
        if leg is not None:
            which = {"which": self.connection_of(leg)}
        body = {"fault": fault, **which, **fields}
        self.room.control("stream-faults", body)

    def stream_fault_for(self, duration_s: float, fault: str, **fields: Any) -> None:
        """Order a stream fault that lasts, and let it pass."""
        self.stream_fault(fault, duration_s=duration_s, **fields)
        self.go_on(duration_s)

    def rest_fault(self, **fields: object) -> None:
        """Have the next REST calls fail or be slow."""
        self.room.control("faults", fields)

    def rest_shows(self, **fields: object) -> None:
        """Have REST trail, or lack rows."""
        self.room.control("rest", fields)

    def forget_faults(self) -> None:
        """End every fault of the exchange."""
        self.room.forget_faults()

    def drop(self, drop: str = "close", *, leg: str | None = None, **fields: object) -> None:
        """Have the exchange end connections."""
        which = "all" if leg is None else self.connection_of(leg)
        body = {"drop": drop, "which": which, **fields}
        self.room.control("connections", body)

    def announce_shutdown(self, *, lead_s: float) -> None:
        """Have the exchange announce that it goes, on all connections."""
        body = {"announce_shutdown": {"lead_s": lead_s}, "which": "all"}
        self.room.control("connections", body)

    def freeze(self) -> dict[str, int]:
        """Stop trading; return the newest ids."""
        return self.room.stop_trading()

    def thaw(self) -> None:
        """Trade on."""
        self.room.control("trading", {"on": True})

    def status(self) -> dict[str, Any]:
        """Return the exchange's status."""
        found = self.room.control("status")
        assert isinstance(found, dict)
        return found

    def connection_of(self, leg: str) -> int:
        """Return the number of a leg's newest connection at the exchange."""
        port = self.legs[leg].port
        connections = self.status()["open_connections"]
        return max(int(c["number"]) for c in connections if c["host"].endswith(f":{port}"))

    def expect(self, holds: object, problem: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(problem)

    @property
    def rest_calls(self) -> int:
        """REST calls since the fault began."""
        return self.tap.calls - self._calls_before

    def _proxy(self, port: int) -> Proxy:
        proxy = Proxy(port)
        self._cleanup.callback(proxy.close)
        return proxy

    def _start_configured(self, flags: tuple[str, ...], config: Mapping[str, float]) -> Process:
        rate = float(flags[flags.index("--rate") + 1])
        whole = {
            "rate": rate,
            "data_dir": str(self.room.path / "exchange"),
            "symbols": list(self.room.symbols),
            **config,
        }
        process = self.room.process("exchange", [sys.executable, str(EXCHANGE), json.dumps(whole)])
        process.start()
        first = self.until(lambda: process.log().partition("\n")[0], "the exchange's address")
        self.room.exchange_url = json.loads(first)["rest_url"]
        return process
