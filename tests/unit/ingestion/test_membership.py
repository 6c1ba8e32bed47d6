import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from k2.errors import RetryError
from k2.ingestion.membership import (
    DEAF_AFTER_S,
    DEAF_AWAY_S,
    HAND_OVER_DEADLINE_S,
    Membership,
    Wish,
)
from k2.kafka.lease import LeaseChange
from unit.ingestion.shard_world import beside, until, virtual_host, virtually

T = TypeVar("T")
CALL_S = 0.1
"""How long each call of Kafka takes here."""


class FakeTerms:
    """What a shard's terms are to the membership."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.over.set()
        self.told: list[str] = []

    def grant(self) -> None:
        self.told.append("grant")
        self.over.clear()

    def end(self) -> None:
        self.told.append("end")
        self.over.set()


class Group:
    """The lease group as one member sees it, and that member."""

    def __init__(self, *, wish: Wish = Wish.AUTO, shards: int = 2) -> None:
        self.terms = {shard: FakeTerms() for shard in range(shards)}
        self.changes: list[LeaseChange | RetryError] = []
        self.others: int | RetryError = 1
        self.hears = True
        self.joined = 0
        self.left = 0
        self.unreachable = 0
        self.asked_others = 0
        self.membership = Membership(
            self.terms,  # type: ignore[arg-type] # what a membership uses of Terms
            wish=wish,
            make_lease=self._join,  # type: ignore[arg-type] # and of Lease
            others=self._others,
            worker=self,
            hears=lambda: self.hears,
            host=virtual_host(),
            poll_s=CALL_S,
        )

    # A worker.

    async def run(self, call: Callable[[], T]) -> T:
        await asyncio.sleep(CALL_S)
        return call()

    def close(self) -> None:
        raise AssertionError

    # A lease.

    def poll(self, _timeout_s: float) -> LeaseChange:
        change = self.changes.pop(0) if self.changes else LeaseChange()
        if isinstance(change, RetryError):
            raise change
        return change

    def leave(self) -> None:
        self.left += 1

    # Playing.

    def play(self, story: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return beside(self.membership.run(), story)

    async def writing(self, *shards: int) -> None:
        self.changes.append(LeaseChange(gained=frozenset(shards)))
        await until(lambda: all(not self.terms[shard].over.is_set() for shard in shards))

    def told(self, shard: int = 0) -> list[str]:
        return self.terms[shard].told

    def _join(self) -> "Group":
        if self.unreachable:
            self.unreachable -= 1
            raise RetryError("Kafka is away")
        self.joined += 1
        return self

    def _others(self) -> int:
        self.asked_others += 1
        if isinstance(self.others, RetryError):
            raise self.others
        return self.others


def test_the_lease_grants_and_ends_each_shard_by_itself() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            await group.writing(0, 1)
            group.changes.append(LeaseChange(given_up=frozenset({1})))
            await until(group.terms[1].over.is_set)
            assert (group.told(0), group.told(1)) == (["grant"], ["grant", "end"])
            group.changes.append(LeaseChange(lost=frozenset({0})))
            await until(group.terms[0].over.is_set)
            assert (group.joined, group.left, group.membership.member) == (1, 0, True)

        await group.play(story())

    virtually(tell())


def test_a_shard_that_was_added_to_the_lease_meanwhile_is_nobodys_and_said() -> None:
    async def tell() -> None:
        group = Group(shards=1)

        async def story() -> None:
            group.changes.append(LeaseChange(gained=frozenset({1})))
            await group.writing(0)
            group.changes.append(LeaseChange(lost=frozenset({1})))
            await until(lambda: not group.changes)
            await asyncio.sleep(2 * CALL_S)
            assert (group.told(0), group.membership.member) == (["grant"], True)

        with capture_logs() as logs:
            await group.play(story())
        (said,) = [log for log in logs if log["log_level"] == "error"]
        assert (said["event"], said["shards"]) == ("lease_shard_unknown", [1])
        assert "KAFKA_TOPIC_PREFIX" in said["what"]

    virtually(tell())


def test_a_kafka_that_is_away_is_joined_and_polled_again() -> None:
    async def tell() -> None:
        group = Group()
        group.unreachable = 3
        group.changes = [RetryError("away"), RetryError("away")]

        async def story() -> None:
            await group.writing(0)
            assert group.joined == 1

        await group.play(story())

    virtually(tell())


def test_an_observer_never_joins() -> None:
    async def tell() -> None:
        group = Group(wish=Wish.OBSERVER)

        async def story() -> None:
            await asyncio.sleep(3600)
            assert (group.joined, group.membership.member) == (0, False)

        await group.play(story())

    virtually(tell())


def test_an_observer_becomes_a_member_and_a_writer_an_observer() -> None:
    async def tell() -> None:
        group = Group(wish=Wish.OBSERVER)

        async def story() -> None:
            await asyncio.sleep(10)
            group.membership.become(Wish.AUTO)
            await group.writing(0)
            group.membership.become(Wish.OBSERVER)
            await until(lambda: group.left == 1)
            assert group.told() == ["grant"], "it writes on until its successor is there"
            group.terms[0].over.set()
            await until(lambda: group.told() == ["grant", "end"])
            await asyncio.sleep(60)
            assert (group.joined, group.membership.member) == (1, False)

        await group.play(story())

    virtually(tell())


def test_a_fenced_writer_leaves_and_joins_afresh() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            await group.writing(0, 1)
            group.changes.append(LeaseChange(gained=frozenset({1})))  # of the old membership
            await group.membership.rejoin()
            assert group.left == 1
            assert [group.told(shard)[1] for shard in (0, 1)] == ["end", "end"]
            await until(lambda: group.joined == 2)
            await group.writing(0)

        await group.play(story())

    virtually(tell())


def test_what_a_left_group_said_is_not_believed() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            await until(lambda: group.membership.member)
            group.changes.append(LeaseChange(gained=frozenset({0})))
            group.membership._lease = None  # left while the poll is under way
            await until(lambda: not group.changes)
            await asyncio.sleep(CALL_S / 2)
            assert group.told() == []

        await group.play(story())

    virtually(tell())


# Handing over.


async def _time_of(work: Coroutine[Any, Any, None]) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await work
    return loop.time() - began_s


@pytest.mark.parametrize(
    ("others", "fenced_after_s", "took_s"),
    [
        (1, 0.5, 0.5 + 2 * CALL_S),
        (1, None, HAND_OVER_DEADLINE_S + 2 * CALL_S),
        (0, None, 2 * CALL_S),
        (RetryError("away"), None, 2 * CALL_S),
    ],
    ids=["fenced", "nobody takes over", "nobody is there", "nobody can tell"],
)
def test_handing_over_waits_for_the_fence_of_a_successor(
    others: int | RetryError, fenced_after_s: float | None, took_s: float
) -> None:
    async def tell() -> None:
        group = Group()

        async def joined() -> None:
            await group.writing(0, 1)

        await group.play(joined())
        group.others = others

        def fence() -> None:
            assert group.left == 1
            for terms in group.terms.values():
                terms.over.set()

        if fenced_after_s is not None:
            asyncio.get_running_loop().call_later(fenced_after_s + 2 * CALL_S, fence)
        took = await _time_of(group.membership.hand_over())
        assert took == pytest.approx(took_s, abs=0.01)
        assert (group.left, group.membership.member) == (1, False)
        assert [group.told(shard) for shard in (0, 1)] == [["grant", "end"]] * 2

    virtually(tell())


def test_a_standby_hands_over_at_once_and_whoever_is_no_member_has_nothing_to_do() -> None:
    async def tell() -> None:
        group = Group()
        assert await _time_of(group.membership.hand_over()) == 0

        async def joined() -> None:
            await until(lambda: group.membership.member)

        await group.play(joined())
        assert await _time_of(group.membership.hand_over()) == pytest.approx(CALL_S)
        assert (group.left, group.asked_others) == (1, 0)

    virtually(tell())


def test_handing_over_again_ends_what_was_waiting_for_a_successor() -> None:
    async def tell() -> None:
        group = Group()

        async def joined() -> None:
            await group.writing(0)

        await group.play(joined())
        first = asyncio.ensure_future(group.membership.hand_over())
        await until(lambda: group.left == 1)
        first.cancel()  # SIGTERM soon after SIGUSR2
        await asyncio.gather(first, return_exceptions=True)
        assert group.told() == ["grant"]
        await group.membership.hand_over()
        assert group.told() == ["grant", "end"]

    virtually(tell())


# Deafness.


def test_a_deaf_writer_gives_up_its_shards_while_others_are_there_and_offers_itself_later() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            await group.writing(0)
            group.hears = False
            await asyncio.sleep(DEAF_AFTER_S - 1)
            assert group.left == 0
            await until(lambda: group.left == 1, within_s=3)
            assert group.told() == ["grant", "end"]
            await asyncio.sleep(DEAF_AWAY_S - 1)
            assert group.joined == 1
            await until(lambda: group.joined == 2, within_s=3)

        await group.play(story())

    virtually(tell())


def test_whoever_hears_again_joins_again_at_once() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            await group.writing(0)
            group.hears = False
            await until(lambda: group.left == 1)
            group.hears = True
            await until(lambda: group.joined == 2, within_s=1)

        await group.play(story())

    virtually(tell())


def test_a_deaf_writer_goes_on_by_rest_while_nobody_else_is_there() -> None:
    async def tell() -> None:
        group = Group()
        group.others = 0

        async def story() -> None:
            await group.writing(0)
            group.hears = False
            await asyncio.sleep(60)
            assert (group.left, group.told()) == (0, ["grant"])
            assert 5 <= group.asked_others <= 60 / DEAF_AFTER_S, "it looks again, not all the time"
            group.others = 1
            await until(lambda: group.left == 1, within_s=2 * DEAF_AFTER_S)

        await group.play(story())

    virtually(tell())


def test_a_deaf_standby_stays_where_it_is() -> None:
    async def tell() -> None:
        group = Group()

        async def story() -> None:
            group.hears = False
            await asyncio.sleep(600)
            assert (group.joined, group.left, group.asked_others) == (1, 0, 0)

        await group.play(story())

    virtually(tell())
