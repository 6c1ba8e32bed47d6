import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from k2.binance.limits import PATHS, WEIGHT_PER_MINUTE, WEIGHTS
from k2.errors import StopError
from k2.ingestion.quiet import (
    LOOK_EVERY_S,
    OVERDUE_AGAIN_S,
    PROBE_EVERY_S,
    PROBES_SHARE,
    ProbePace,
    QuietProbe,
)
from k2.ingestion.supervision import first_of
from k2.kafka.position import ShardPosition, SymbolPosition
from k2.market import StreamKind
from k2.observability import metrics
from k2.tape.silence import ALLOWED_MIN_S, Silence
from unit.ingestion.shard_world import FakeRest, ShardWorld, beside, until, virtual_host, virtually
from unit.trades import trade

AGG = StreamKind.AGG_TRADE
SHARE = 0.5


class Scene:
    """A shard whose tape stands at 100, with the rhythm of each symbol."""

    def __init__(self, *more: str, pace: ProbePace | None = None) -> None:
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
            pace=pace or ProbePace(AGG, share=SHARE, host=self.host),
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


def test_an_exchange_that_began_its_ids_anew_is_refused_while_it_runs() -> None:
    async def tell() -> None:
        scene = Scene()
        _told(scene, last_ts_us=trade(3).trade_ts_us - 2_000_000)
        scene.rest.newest = 3
        with pytest.raises(ExceptionGroup) as caught:
            await scene.play(asyncio.sleep(10 * PROBE_EVERY_S))
        assert "its ids were reset" in str(first_of(caught.value))
        assert isinstance(first_of(caught.value), StopError)

    virtually(tell())


@pytest.mark.parametrize("lacking", ["nothing", "a younger trade", "a row", "the tape's time"])
def test_without_evidence_of_new_ids_a_rest_that_trails_is_asked_again(lacking: str) -> None:
    async def tell() -> None:
        scene = Scene()
        younger_us = {"a younger trade": 0}.get(lacking, 2_000_000)
        last_ts_us = trade(3).trade_ts_us - younger_us
        _told(scene, last_ts_us=None if lacking == "the tape's time" else last_ts_us)
        scene.rest.newest = 3
        if lacking == "a row":
            scene.rest.bad = {3: "void"}

        async def story() -> None:
            if lacking == "nothing":  # it trailed at one look
                await until(lambda: scene.rest.asked_newest != [])
                scene.rest.newest = 99
            await asyncio.sleep(10 * PROBE_EVERY_S)
            assert len(scene.rest.asked_newest) > 5

        await scene.play(story())
        assert scene.found == []

    virtually(tell())


def _told(scene: Scene, *, last_ts_us: int | None) -> None:
    """Have the log say when the tape's last trade was traded."""
    where = SymbolPosition(100, 99, 0, last_ts_us)
    scene.world.log.say(ShardPosition({"BTCUSDT": where}))
    scene.world.follow()


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
            await asyncio.sleep(PROBE_EVERY_S + 600)

        await scene.play(story())
        assert 550 < len(scene.rest.asked_newest) <= 600, "60 a minute"
        assert set(scene.rest.asked_newest) == {"BTCUSDT", *names}
        counts = [scene.rest.asked_newest.count(name) for name in names]
        assert max(counts) - min(counts) <= 1

    virtually(tell())


@pytest.mark.parametrize("kind", list(StreamKind))
@pytest.mark.parametrize("share", [0.1, SHARE])
def test_all_shards_of_a_process_share_one_small_part_of_its_weight(
    kind: StreamKind, share: float
) -> None:
    async def tell() -> None:
        pace = ProbePace(kind, share=share, host=virtual_host())
        names = [f"S{number}USDT" for number in range(100)]
        scenes = [Scene(*names, pace=pace) for _ in range(4)]

        async def watch() -> None:
            await asyncio.gather(*(scene.probe.run() for scene in scenes))

        await beside(watch(), asyncio.sleep(PROBE_EVERY_S + 3600))
        asked = [len(scene.rest.asked_newest) for scene in scenes]
        most = 60 * PROBES_SHARE * share * WEIGHT_PER_MINUTE / WEIGHTS[PATHS[kind]]
        assert most * 0.95 < sum(asked) <= most + 1
        assert max(asked) - min(asked) <= 1, "each has its turn"

    virtually(tell())


def test_symbols_that_are_halted_for_hours_hide_no_other() -> None:
    async def tell() -> None:
        halted = [f"H{number}USDT" for number in range(60)]
        quiet = [f"Q{number}USDT" for number in range(20)]
        scene = Scene(*halted, *quiet)

        async def story() -> None:
            async with asyncio.TaskGroup() as group:
                for symbol in halted:
                    group.create_task(scene.trade(every_s=1, times=30, symbol=symbol))
            scene.rest.asked_newest.clear()
            await asyncio.sleep(3600)

        await scene.play(story())
        asked = scene.rest.asked_newest
        for symbols in (halted, quiet):
            counts = [asked.count(symbol) for symbol in symbols]
            assert min(counts) >= 20
            assert max(counts) - min(counts) <= 1

    virtually(tell())


def test_silence_is_news_whatever_asking_waits_for() -> None:
    async def tell() -> None:
        scene = Scene()
        scene.rest.way_s = 3600
        silent = metrics.symbol_silent.labels("BTCUSDT")

        async def story() -> None:
            await scene.trade(every_s=0.1, times=600)
            await asyncio.sleep(ALLOWED_MIN_S + LOOK_EVERY_S)
            assert silent.value == 1
            await scene.trade(every_s=0.1, times=100)
            assert silent.value == 0

        silent.set(0)
        await scene.play(story())

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
