import asyncio
from collections.abc import Coroutine
from typing import Any

from k2.ingestion.quiet import (
    LOOK_EVERY_S,
    OVERDUE_AGAIN_S,
    PROBE_EVERY_S,
    PROBES_PER_LOOK,
    QuietProbe,
)
from k2.observability import metrics
from k2.tape.silence import ALLOWED_MIN_S, Silence
from unit.ingestion.shard_world import FakeRest, ShardWorld, beside, until, virtual_host, virtually


class Scene:
    """A shard whose tape stands at 100, with the rhythm of each symbol."""

    def __init__(self, *more: str) -> None:
        self.world = ShardWorld(next_id=100)
        self.host = virtual_host()
        self.rest = FakeRest()
        self.rest.newest = 99
        self.found: list[tuple[str, int]] = []
        self.silences: dict[str, Silence] = {}
        for symbol in ("BTCUSDT", *more):
            self.world.log.stand_at(100, symbol)
            self.silences[symbol] = Silence(self.host.monotonic_s())
        self.world.follow()
        for symbol in more:
            self.world.shard.carry(symbol)
        self.probe = QuietProbe(
            self.world.shard,
            self.rest,
            silences=self.silences,
            found=lambda symbol, newest_id: self.found.append((symbol, newest_id)),
            host=self.host,
        )

    async def trade(self, *, every_s: float, times: int, symbol: str = "BTCUSDT") -> None:
        for _ in range(times):
            await asyncio.sleep(every_s)
            self.silences[symbol].traded(self.host.monotonic_s())

    def play(self, story: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return beside(self.probe.run(), story)


def test_a_symbol_that_trades_is_not_asked_about() -> None:
    async def tell() -> None:
        scene = Scene()
        await scene.play(scene.trade(every_s=1, times=600))
        assert scene.rest.asked_newest == []

    virtually(tell())


def test_a_quiet_symbol_is_asked_about_once_a_minute() -> None:
    async def tell() -> None:
        scene = Scene()

        async def story() -> None:
            await asyncio.sleep(PROBE_EVERY_S - 1)
            assert scene.rest.asked_newest == []
            await asyncio.sleep(10 * PROBE_EVERY_S)

        await scene.play(story())
        assert 9 <= len(scene.rest.asked_newest) <= 10
        assert scene.found == []

    virtually(tell())


def test_ids_nobody_delivered_are_told() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.newest = 100

        async def story() -> None:
            await until(lambda: scene.found != [], within_s=PROBE_EVERY_S + 2 * LOOK_EVERY_S)
            assert scene.found == [("BTCUSDT", 100)]

        await scene.play(story())

    virtually(tell())


def test_a_rest_that_is_away_or_has_nothing_and_a_tape_that_has_not_begun_tell_nothing() -> None:
    async def tell() -> None:
        scene = Scene("NEWUSDT")
        scene.world.shard.tapes["NEWUSDT"].unknown()
        scene.world.shard.tapes["BTCUSDT"].unknown()
        scene.rest.newest = 500
        scene.rest.failures = 4

        async def story() -> None:
            await asyncio.sleep(10 * PROBE_EVERY_S)
            assert len(scene.rest.asked_newest) > 10
            scene.world.shard.tapes["BTCUSDT"].go_to(0, None)
            scene.rest.newest = -1
            await asyncio.sleep(3 * PROBE_EVERY_S)

        await scene.play(story())
        assert scene.found == []

    virtually(tell())


def test_a_busy_symbol_that_falls_silent_is_news_within_seconds_and_asked_about_first() -> None:
    async def tell() -> None:
        scene = Scene()
        silent = metrics.symbol_silent.labels("BTCUSDT")

        async def story() -> None:
            await scene.trade(every_s=0.1, times=600)
            assert silent.value == 0
            await asyncio.sleep(ALLOWED_MIN_S + LOOK_EVERY_S)
            assert silent.value == 1
            assert len(scene.rest.asked_newest) == 1, "asked about at once"
            await asyncio.sleep(OVERDUE_AGAIN_S + LOOK_EVERY_S)
            assert len(scene.rest.asked_newest) == 2
            await asyncio.sleep(10 * OVERDUE_AGAIN_S)
            assert len(scene.rest.asked_newest) >= 9
            await scene.trade(every_s=0.1, times=100)
            assert silent.value == 0

        silent.set(0)
        await scene.play(story())

    virtually(tell())


def test_whoever_is_no_writer_any_more_calls_nobody_silent() -> None:
    async def tell() -> None:
        scene = Scene()
        silent = metrics.symbol_silent.labels("BTCUSDT")

        async def story() -> None:
            await scene.trade(every_s=0.1, times=600)
            await asyncio.sleep(ALLOWED_MIN_S + LOOK_EVERY_S)
            assert silent.value == 1

        silent.set(0)
        await scene.play(story())
        assert silent.value == 0

    virtually(tell())


def test_many_quiet_symbols_cost_a_bounded_weight_and_each_has_its_turn() -> None:
    async def tell() -> None:
        names = [f"S{number}USDT" for number in range(200)]
        scene = Scene(*names)

        async def story() -> None:
            await asyncio.sleep(600)

        await scene.play(story())
        looks = (600 - PROBE_EVERY_S) / LOOK_EVERY_S + 1
        assert len(scene.rest.asked_newest) <= looks * PROBES_PER_LOOK
        assert set(scene.rest.asked_newest) == {"BTCUSDT", *names}
        counts = [scene.rest.asked_newest.count(name) for name in names]
        assert max(counts) - min(counts) <= 1

    virtually(tell())


def test_a_symbol_dropped_meanwhile_is_not_asked_about() -> None:
    async def tell() -> None:
        scene = Scene("ETHUSDT")

        async def story() -> None:
            await asyncio.sleep(30)
            scene.world.shard.drop("BTCUSDT")
            del scene.silences["BTCUSDT"]
            await asyncio.sleep(5 * PROBE_EVERY_S)

        await scene.play(story())
        assert set(scene.rest.asked_newest) == {"ETHUSDT"}

    virtually(tell())
