"""Membership of the lease group: who *should* write. The fence decides who *can*."""

import asyncio
from collections.abc import Callable, Mapping
from enum import Enum

import structlog

from k2.errors import RetryError
from k2.ingestion.host import Host
from k2.ingestion.term import Terms
from k2.ingestion.trouble import Trouble
from k2.ingestion.workers import Worker
from k2.kafka.lease import Lease

DEAF_AFTER_S = 5.0
"""A writer that has heard nothing for so long, while others may hear, gives its shards up."""

DEAF_AWAY_S = 30.0
"""After so long it offers itself again, deaf or not: nobody else may be there to write by REST."""

HAND_OVER_DEADLINE_S = 3.0
RETRY_DELAY_S = 0.5

_ODD_LEASE = (
    "the .lease topic has more partitions than the tape has shards; what is recorded goes on, but "
    "no start will be admitted. Stop every `k2 stream`, delete that topic (it holds no record) and "
    "start again; more shards are another KAFKA_TOPIC_PREFIX"
)

_log = structlog.get_logger()


class Wish(Enum):
    """What an operator wants this process to be."""

    AUTO = "auto"
    """A member of the group: writer or hot standby, as the lease says."""
    OBSERVER = "observer"
    """Everything but the lease."""


class Membership:
    """Joins, leaves and rejoins the group, and tells the shards what the lease says."""

    def __init__(
        self,
        terms: Mapping[int, Terms],
        *,
        wish: Wish,
        make_lease: Callable[[], Lease],
        others: Callable[[], int],
        worker: Worker,
        hears: Callable[[], bool],
        host: Host,
        poll_s: float,
    ) -> None:
        """Prepare; ``others`` asks the group how many other members it has (blocking)."""
        self.wish = wish
        self._terms = terms
        self._make_lease = make_lease
        self._others = others
        self._worker = worker
        self._hears = hears
        self._host = host
        self._poll_s = poll_s
        self._unheard = Trouble("lease_not_polled", host.monotonic_s)
        self._lease: Lease | None = None
        self._heard_s = host.monotonic_s()
        self._away_until_s = 0.0
        self._changed = asyncio.Event()

    @property
    def member(self) -> bool:
        """Whether this process is in the group."""
        return self._lease is not None

    async def run(self) -> None:
        """Follow the lease for ever. Only this loop polls it: a hung loop loses it."""
        self._heard_s = self._host.monotonic_s()
        while True:
            now_s = self._host.monotonic_s()
            if self._hears():
                self._heard_s = now_s
                self._away_until_s = 0.0
            if self._lease is None:
                if self.wish is Wish.AUTO and now_s >= self._away_until_s:
                    await self._join()
                else:
                    await self._wait(self._poll_s)
                continue
            await self._poll(self._lease)
            if self.wish is Wish.OBSERVER:
                await self.hand_over()
            elif self._writing and now_s - self._heard_s > DEAF_AFTER_S:
                await self._step_down_if_others()

    def become(self, wish: Wish) -> None:
        """Change the role: SIGUSR1 makes an observer a member, SIGUSR2 a member an observer."""
        _log.info("role_changed", role=wish.value)
        self.wish = wish
        self._changed.set()

    async def hand_over(self) -> None:
        """Leave the group, writing on until a successor has taken the shards, or time is up."""
        waits = self._lease is not None and self._writing and await self._ask_others() > 0
        await self.leave()
        if waits:
            try:
                async with asyncio.timeout(HAND_OVER_DEADLINE_S):
                    for terms in self._terms.values():
                        await terms.over.wait()
            except TimeoutError:
                _log.warning("nobody_took_over", within_s=HAND_OVER_DEADLINE_S)
        for terms in self._terms.values():
            terms.end()

    async def rejoin(self) -> None:
        """Become a member afresh, after another process has fenced us."""
        if self._lease is None:
            return  # we are leaving: our other shards write on until they are fenced too
        await self.leave()
        for terms in self._terms.values():
            terms.end()
        self._changed.set()

    @property
    def _writing(self) -> bool:
        return any(not terms.over.is_set() for terms in self._terms.values())

    async def _join(self) -> None:
        try:
            self._lease = await self._worker.run(self._make_lease)
        except RetryError as exc:
            _log.warning("lease_not_joined", reason=str(exc))
            await asyncio.sleep(RETRY_DELAY_S)

    async def _poll(self, lease: Lease) -> None:
        try:
            change = await self._worker.run(lambda: lease.poll(self._poll_s))
        except RetryError as exc:
            self._unheard.met(str(exc))
            await asyncio.sleep(RETRY_DELAY_S)
            return
        self._unheard.over()
        if lease is not self._lease:
            return
        if unknown := change.gained - self._terms.keys():
            _log.error("lease_shard_unknown", shards=sorted(unknown), what=_ODD_LEASE)
        for shard in (change.given_up | change.lost) & self._terms.keys():
            _log.info("lease_ended", shard=shard, lost=shard in change.lost)
            self._terms[shard].end()
        for shard in change.gained - unknown:
            _log.info("lease_granted", shard=shard)
            self._terms[shard].grant()

    async def _step_down_if_others(self) -> None:
        if await self._ask_others() < 1:
            self._heard_s = self._host.monotonic_s()  # nobody to hand over to: look again later
            return
        _log.warning("deaf_writer_steps_down", deaf_s=DEAF_AFTER_S, again_in_s=DEAF_AWAY_S)
        self._away_until_s = self._host.monotonic_s() + DEAF_AWAY_S
        await self.leave()
        for terms in self._terms.values():
            terms.end()

    async def _ask_others(self) -> int:
        try:
            return await self._worker.run(self._others)
        except RetryError:
            return 0

    async def leave(self) -> None:
        """Leave the group; the shards are free at once."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._worker.run(lease.leave)

    async def _wait(self, seconds: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
