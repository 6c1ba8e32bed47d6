"""Counts the REST calls that pass on their way to the exchange.

The exchange counts streams, not calls, and the client keeps its connections open, so neither
can say how often REST was asked. Runs in a thread of its own.
"""

import asyncio
import contextlib
from threading import Thread
from typing import Self

CALL = b"GET /api/v3/"
CHUNK_BYTES_MAX = 64 * 1024
CONNECT_PATIENCE_S = 10.0


class RestTap:
    """A TCP relay to the exchange; ``calls`` grows with each request line that passes."""

    def __init__(self, target_port: int) -> None:
        self.calls = 0
        self.port = 0
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="rest tap", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(CONNECT_PATIENCE_S)
        return self

    def __exit__(self, *_exc: object) -> None:
        """End every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CONNECT_PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_PATIENCE_S)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target_reader, target_writer = await asyncio.open_connection(
                "127.0.0.1", self._target_port
            )
        except OSError:
            writer.transport.abort()
            return
        there = asyncio.create_task(self._pass(reader, target_writer, counted=CALL))
        back = asyncio.create_task(self._pass(target_reader, writer, counted=None))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            writer.transport.abort()
            target_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bytes | None
    ) -> None:
        with contextlib.suppress(OSError):
            tail = b""
            while data := await reader.read(CHUNK_BYTES_MAX):
                if counted is not None:
                    seen = tail + data
                    self.calls += seen.count(counted)
                    tail = seen[-(len(counted) - 1) :]
                writer.write(data)
                await writer.drain()
