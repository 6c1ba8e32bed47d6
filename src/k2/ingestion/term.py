"""One shard's turn at writing: granted by the lease, begun by the fence, ended by either."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog

from k2.ingestion.shard import Shard
from k2.kafka.transaction import FencedError
from k2.observability import metrics

WARM_EVERY_S = 60.0
"""Brokers close connections that stay idle, and a take-over has no time to connect."""

_log = structlog.get_logger()


class Terms:
    """Serves one shard's terms, one after another, for as long as the process lives."""

    def __init__(
        self,
        shard: Shard,
        *,
        duties: Callable[[Shard], Iterable[Coroutine[Any, Any, None]]],
        fenced: Callable[[], Awaitable[None]],
    ) -> None:
        """Join a shard with what only its writer does (``duties``: healing and the like).

        ``fenced`` is awaited when another process took the shard: the lease is joined anew.
        """
        self.shard = shard
        self.over = asyncio.Event()
        """Set while this process does not write the shard."""
        self._duties = duties
        self._fenced = fenced
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._granted = asyncio.Event()
        self._ending = asyncio.Event()
        self.over.set()

    def also(self, duty: Coroutine[Any, Any, None]) -> "asyncio.Task[None] | None":
        """Do one more thing for the rest of this term, if one is being served."""
        if self._group is None:
            duty.close()
            return None
        task = self._group.create_task(duty)
        self._tasks.append(task)
        return task

    def grant(self) -> None:
        """The lease says: write."""
        self._ending.clear()
        self._granted.set()

    def end(self) -> None:
        """The lease says: no more. What the ring holds now is still committed, if it can be."""
        self._granted.clear()
        self._ending.set()
        self.shard.wake()

    async def run(self) -> None:
        """Serve for ever.

        Raises:
            StopError: If writing on could corrupt the tape.
        """
        label = str(self.shard.settings.shard)
        metrics.shard_writer.labels(label).set(0)
        while True:
            await self._stand_by()
            self.over.clear()
            fenced = False
            try:
                await self._serve()
            except FencedError as exc:
                fenced = True
                self._granted.clear()
                _log.warning("shard_taken_by_another", shard=label, reason=str(exc))
            finally:
                metrics.shard_writer.labels(label).set(0)
                await self.shard.step_down()
                self.over.set()
            _log.info("standing_by", shard=label)
            if fenced and not self._ending.is_set():
                await self._fenced()

    async def _serve(self) -> None:
        shard = self.shard
        label = str(shard.settings.shard)
        if not await self._take_over():
            return
        metrics.shard_writer.labels(label).set(1)
        first_or_again = "rejoin" if shard.takeovers > 1 else "start"
        reason = "succession" if shard.seen_writing else first_or_again
        metrics.takeovers.labels(label, reason).inc()
        _log.info(
            "took_over",
            shard=label,
            symbols=sorted(shard.tapes),
            took_s=round(shard.last_takeover_s, 3),
            waiting=shard.pending,
        )
        fenced: FencedError | None = None
        async with asyncio.TaskGroup() as group:
            self._group = group
            for duty in self._duties(shard):
                self.also(duty)
            try:
                await shard.write(self._ending)
            except FencedError as exc:
                fenced = exc
            shard.stop_writing()
            self._group = None
            for task in self._tasks:
                task.cancel()
            self._tasks.clear()
        if fenced is not None:
            raise fenced

    async def _stand_by(self) -> None:
        """Wait for the lease, with a producer that stays connected."""
        while not self._granted.is_set():
            await self.shard.log.warm()
            try:
                async with asyncio.timeout(WARM_EVERY_S):
                    await self._granted.wait()
            except TimeoutError:
                continue

    async def _take_over(self) -> bool:
        """Become the writer, unless the lease ends before; say whether we are."""
        taking = asyncio.ensure_future(self.shard.take_over())
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({taking, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not taking.done():
                taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        if taking.cancelled():
            return False
        taking.result()
        return True
