"""A TCP proxy that breaks what passes through it: bytes in, the same bytes out, later or never.

To be put between k2 and Kafka, the registry or the exchange. A shell round asyncio's streams.
Nothing is buffered without a bound: a side that does not read stops the other one's reading.
"""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from types import TracebackType
from typing import Self

from k2.errors import StopError

CHUNK_BYTES_MAX = 16 * 1024
CHUNKS_QUEUED_MAX = 256
"""Bytes under way in one direction of a connection while ``delay_s`` holds them: 4 MiB."""
PACE_S = 0.05
"""A throttled direction moves the bytes of about this time at once."""
CONNECT_TIMEOUT_S = 10.0
# With a linger time of 0 the kernel throws away what is unsent and answers with RST.
_RESET = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes go."""

    TO_TARGET = "to_target"
    TO_CLIENT = "to_client"


class _Pace:
    """Bytes per second of one direction, shared by all connections."""

    def __init__(self) -> None:
        self.bytes_per_s: float | None = None
        self._free_s = 0.0

    def chunk_bytes(self) -> int:
        if self.bytes_per_s is None:
            return CHUNK_BYTES_MAX
        return max(1, min(CHUNK_BYTES_MAX, int(self.bytes_per_s * PACE_S)))

    async def wait(self, size_bytes: int) -> None:
        if self.bytes_per_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(now_s, self._free_s) + size_bytes / self.bytes_per_s
        await asyncio.sleep(self._free_s - now_s)


class FaultProxy:
    """A running proxy; use as ``async with FaultProxy(host, port) as proxy``.

    ``delay_s`` can be set at any time: each byte read from then on is passed on that much later.
    All faults are of the proxy as a whole: of every connection, open or to come.

    Raises:
        StopError: On entering: the port is taken.
    """

    def __init__(
        self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.port = port
        self.delay_s = 0.0
        self.counts: Counter[str] = Counter()
        self._target = (target_host, target_port)
        self._host = host
        self._listener: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._paces = {direction: _Pace() for direction in Direction}
        self._sessions: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return sum(not task.cancelling() for task in self._sessions)

    @property
    def accepting(self) -> bool:
        """False while new connections are refused."""
        return self._listener is not None

    @property
    def stalled(self) -> bool:
        """True while bytes are held."""
        return not self._flowing.is_set()

    def cut(self) -> int:
        """Reset (RST) both ends of every open connection; returns how many there were."""
        cut = [task for task in self._sessions if not task.cancelling()]
        for task in cut:
            _reset(self._sessions[task])
            task.cancel()
        self.counts["cut"] += len(cut)
        return len(cut)

    def refuse(self) -> None:
        """Refuse new connections from now on; open ones live on, and the port stays ours."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Accept new connections (again)."""
        if self._listener is None:
            # Bound twice with SO_REUSEADDR: this one listens, the reservation never does.
            listening = _bound(self._host, self.port)
            self._listener = await asyncio.start_server(
                self._begin, sock=listening, limit=CHUNK_BYTES_MAX, backlog=1024
            )

    def stall(self) -> None:
        """Hold all bytes both ways, and ends of connections too: half-open. Nothing is lost."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let held bytes go on."""
        self._flowing.set()

    def throttle(self, *, bytes_per_s: float | None, direction: Direction | None = None) -> None:
        """Limit one direction (or each of both) to a rate; None is no limit."""
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError("bytes_per_s must be above 0; stall() holds everything")
        for chosen in Direction if direction is None else (direction,):
            self._paces[chosen].bytes_per_s = bytes_per_s

    async def __aenter__(self) -> Self:
        self._reservation = _bound(self._host, self.port)
        self.port = self._reservation.getsockname()[1]
        try:
            await self.accept()
        except StopError:
            self._reservation.close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        sessions = list(self._sessions)
        self.cut()
        await asyncio.gather(*sessions, return_exceptions=True)
        self._reservation.close()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio complains of a cut one if it has made it itself.
        writers = [writer]
        task = asyncio.create_task(self._serve(reader, writers), name="proxied connection")
        self._sessions[task] = writers
        task.add_done_callback(self._sessions.pop)
        self.counts["accepted"] += 1

    async def _serve(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> None:
        if not await self._joined(reader, writers):
            self.counts["broken"] += 1
            # While bytes are held, one end must not learn what became of the other.
            await self._flowing.wait()
            _reset(writers)

    async def _joined(
        self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]
    ) -> bool:
        """Join a client to the target until both have ended; False if one could not or broke."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                target_reader, target_writer = await asyncio.open_connection(
                    *self._target, limit=CHUNK_BYTES_MAX
                )
            writers.append(target_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, target_writer, Direction.TO_TARGET))
                group.create_task(self._pass(target_reader, writers[0], Direction.TO_CLIENT))
            for ended in writers:
                ended.close()
        except* OSError:
            pass
        else:
            return True
        return False

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Move one direction's bytes until their end, then pass on the end itself."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_QUEUED_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, under_way, direction))
            group.create_task(self._write(writer, under_way, direction))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        under_way: asyncio.Queue[tuple[float, bytes]],
        direction: Direction,
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"."
        while data:
            data = await reader.read(self._paces[direction].chunk_bytes())
            await under_way.put((loop.time() + self.delay_s, data))

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        under_way: asyncio.Queue[tuple[float, bytes]],
        direction: Direction,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await under_way.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await self._paces[direction].wait(len(data))
            await self._flowing.wait()
            if not data:
                break
            writer.write(data)
            self.counts[f"bytes {direction.value}"] += len(data)
            await writer.drain()
        # The other direction may still have something to say.
        if not writer.is_closing():
            writer.write_eof()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        raise StopError(f"cannot listen on {host}:{port}: {exc.strerror}; choose another") from exc
    return bound


def _reset(writers: Iterable[asyncio.StreamWriter]) -> None:
    for writer in writers:
        connected = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if connected is not None and connected.fileno() != -1:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
