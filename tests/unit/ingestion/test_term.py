import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import pytest

from k2.errors import StopError
from k2.ingestion.shard import Role, Shard
from k2.ingestion.term import Terms
from unit.ingestion.shard_world import ShardWorld, beside, until, virtually


class Term:
    """One shard's terms, with what happened in them."""

    def __init__(self, **given: Any) -> None:
        self.world = ShardWorld(**given)
        self.shard = self.world.shard
        self.told: list[str] = []
        self.rejoined = 0
        self.terms = Terms(self.shard, duties=self._duties, fenced=self._fenced)

    def play(self, story: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return beside(self.terms.run(), story)

    async def begun(self) -> None:
        self.terms.grant()
        await until(lambda: self.shard.role is Role.WRITER)

    def _duties(self, shard: Shard) -> Iterable[Coroutine[Any, Any, None]]:
        assert shard.role is Role.WRITER
        yield self.duty("first")
        yield self.duty("second")

    async def duty(self, name: str) -> None:
        self.told.append(f"{name} begins")
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append(f"{name} ends, {self.shard.role.value}")

    async def _fenced(self) -> None:
        assert self.terms.over.is_set()
        self.rejoined += 1


def test_a_term_is_take_over_duties_writing_and_end() -> None:
    async def tell() -> None:
        term = Term()
        term.world.stream(5, 7)

        async def story() -> None:
            await asyncio.sleep(1)
            assert term.world.log.calls == ["warm"], "a standby fences nobody"
            assert term.terms.over.is_set()
            await term.begun()
            assert not term.terms.over.is_set()
            await until(lambda: not term.shard.pending)
            assert term.told == ["first begins", "second begins"]
            term.world.stream(8, 9)
            term.terms.end()
            await term.terms.over.wait()
            assert term.world.ids == [5, 6, 7, 8, 9], "what the ring held at the end is committed"
            assert term.told[2:] == ["first ends, standby", "second ends, standby"]
            assert (term.shard.role, term.rejoined) == (Role.STANDBY, 0)
            await until(lambda: term.world.log.calls[-1] == "warm")

        await term.play(story())

    virtually(tell())


def test_one_term_follows_another() -> None:
    async def tell() -> None:
        term = Term()

        async def story() -> None:
            for number in range(3):
                await term.begun()
                term.world.stream(5 + number, 5 + number)
                term.terms.end()
                await term.terms.over.wait()
            assert term.world.ids == [5, 6, 7]
            assert term.shard.takeovers == 3

        await term.play(story())

    virtually(tell())


def test_a_grant_that_comes_while_a_term_ends_begins_another() -> None:
    async def tell() -> None:
        term = Term()

        async def story() -> None:
            await term.begun()
            await asyncio.sleep(1)
            term.terms.end()
            term.terms.grant()
            await asyncio.sleep(1)
            term.world.stream(5, 5)
            await until(lambda: term.world.ids == [5])
            assert not term.terms.over.is_set()

        await term.play(story())

    virtually(tell())


def test_a_term_that_ends_before_it_began_fences_nobody_and_is_over() -> None:
    async def tell() -> None:
        term = Term()
        term.world.log.away = 4

        async def story() -> None:
            term.terms.grant()
            await until(lambda: term.shard.role is Role.TAKING_OVER)
            term.world.stream(5, 6)
            term.terms.end()
            await until(term.terms.over.is_set)
            assert term.shard.role is Role.STANDBY
            await asyncio.sleep(100)
            assert "take_over" not in term.world.log.calls[4:]
            assert term.world.ids == []

        await term.play(story())

    virtually(tell())


def test_a_writer_that_was_fenced_steps_down_and_joins_anew() -> None:
    async def tell() -> None:
        term = Term()

        async def story() -> None:
            await term.begun()
            term.world.log.outcomes = ["fenced"]
            term.world.stream(5, 7)
            await until(lambda: term.rejoined == 1)
            assert (term.shard.role, term.shard.pending) == (Role.STANDBY, 3)
            assert term.told[2:] == ["first ends, standby", "second ends, standby"]
            await asyncio.sleep(5)
            assert term.shard.takeovers == 1, "not before the lease says so again"
            await term.begun()
            await until(lambda: term.world.ids == [5, 6, 7])

        await term.play(story())

    virtually(tell())


def test_whoever_hands_over_and_is_fenced_does_not_join_again() -> None:
    async def tell() -> None:
        term = Term()

        async def story() -> None:
            await term.begun()
            term.world.log.outcomes = ["fenced"]
            term.world.stream(5, 7)
            term.terms.end()
            await term.terms.over.wait()
            await asyncio.sleep(1)
            assert term.rejoined == 0

        await term.play(story())

    virtually(tell())


def test_one_more_duty_lasts_as_long_as_the_term() -> None:
    async def tell() -> None:
        term = Term()

        async def story() -> None:
            assert term.terms.also(term.duty("early")) is None
            await term.begun()
            assert term.terms.also(term.duty("third")) is not None
            await until(lambda: "third begins" in term.told)
            term.terms.end()
            await term.terms.over.wait()
            assert "third ends, standby" in term.told
            assert term.terms.also(term.duty("late")) is None
            await asyncio.sleep(1)
            assert not any(told.startswith(("early", "late")) for told in term.told)

        await term.play(story())

    virtually(tell())


def test_a_refusal_ends_the_process_and_leaves_no_producer() -> None:
    async def tell() -> None:
        term = Term()

        async def refuse(_: Shard) -> None:
            raise StopError("k2 positions rebuild")

        term.shard._admit = refuse
        term.terms.grant()
        with pytest.raises(StopError, match="rebuild"):
            await term.terms.run()
        assert not term.world.log.initialised
        assert term.terms.over.is_set()
        assert term.world.log.records == []

    virtually(tell())


def test_a_duty_that_fails_ends_the_process_and_the_other_duties() -> None:
    async def tell() -> None:
        term = Term()

        async def fail() -> None:
            raise StopError("position_rebuild")

        async def story() -> None:
            await term.begun()
            term.terms.also(fail())
            await asyncio.sleep(10)

        with pytest.raises(ExceptionGroup) as caught:
            await term.play(story())
        assert caught.group_contains(StopError)
        assert sorted(term.told[2:]) == ["first ends, writer", "second ends, writer"]
        assert (term.shard.role, term.world.log.initialised) == (Role.STANDBY, False)

    virtually(tell())
