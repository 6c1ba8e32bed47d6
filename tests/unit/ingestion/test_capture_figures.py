from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from k2.binance.limits import Breaker
from k2.ingestion import ring
from k2.ingestion.capture import _tell_fill_breaks
from k2.ingestion.capture_figures import CaptureFigures, broken_accounts
from k2.ingestion.healer import Healing, SymbolHealer
from k2.ingestion.legs import LegFigures
from k2.market import Gap, GapClass, IdRange
from k2.observability import metrics
from k2.tape.healing import declare_missing, place_page
from unit.ingestion.shard_world import (
    NAMES,
    FakeRest,
    ShardWorld,
    beside,
    until,
    virtual_host,
    virtually,
)
from unit.trades import trade


def capture_of(*worlds: ShardWorld, frames: int = 0) -> Any:
    """Return a capture of these shards that heard so many frames, none of them a trade."""
    told_apart = {"trade": 0, "control": frames, "rejected": 0, "retired": 0}
    nothing = dict.fromkeys(("copies", "last_trade_ns", "last_ping_ns", "last_pong_ns"), 0)
    return SimpleNamespace(
        legs=SimpleNamespace(any_live=False, feeds=[], figures={}),
        intake=SimpleNamespace(frames=frames, kinds=lambda: told_apart, **nothing),
        shards=[world.shard for world in worlds],
        spill=SimpleNamespace(bytes=0),
    )


def hear(capture: Any, world: ShardWorld, *source_ids: int) -> None:
    """Let trades come as frames."""
    for source_id in source_ids:
        capture.intake.frames += 1
        capture.intake.kinds()["trade"] += 1
        world.stream(source_id, source_id)


def on_the_page() -> dict[tuple[str, ...], float]:
    """Return what a scrape of a capture shows: name and label values to value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.capture.collect()
        for sample in family.samples
    }


def test_what_several_shards_waited_for_is_added_up() -> None:
    async def story() -> None:
        worlds = ShardWorld(), ShardWorld()
        worlds[0].log.recalls, worlds[1].log.recalls = 2, 3
        measured = CaptureFigures(
            capture_of(*worlds), breaker=lambda: Breaker.CLOSED, host=virtual_host()
        )
        measured.measure()
        labels = (metrics.EXCHANGE, NAMES.trades, "timed_out")
        assert metrics.produce_retries.labels(*labels).value == 5
        assert metrics.produce_errors.labels(*labels).value == 5

    virtually(story())


def test_a_hop_that_does_not_balance_is_counted_and_told_once() -> None:
    async def story() -> None:
        capture = capture_of(ShardWorld(), frames=7)
        measured = CaptureFigures(capture, breaker=lambda: Breaker.CLOSED, host=virtual_host())
        measured.measure()
        assert metrics.promise_broken.labels().value == 0
        capture.intake.frames = 8  # one frame became nothing at all
        with capture_logs() as logs:
            measured.measure()
            measured.measure()
        assert metrics.promise_broken.labels().value == 1
        assert [line["hops"] for line in logs] == [["frames"]]
        capture.intake.frames = 7
        measured.measure()
        assert metrics.promise_broken.labels().value == 0

    virtually(story())


# Each hop, through all that a healthy shard does.


def test_a_writers_account_balances_whatever_way_its_trades_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 20)

    async def story() -> None:
        world = ShardWorld(spill_max_bytes=1_000_000)
        shard, capture = world.shard, capture_of(world)
        hear(capture, world, 5, 6, 6)
        assert broken_accounts(capture) == [], "standing by"
        await shard.take_over()
        assert shard.ring.queued == 4, "what stood by was put on its tape again"
        assert broken_accounts(capture) == [], "taken over"
        hear(capture, world, 9, 8, 7)
        assert shard.pending == 5, "a hole was closed"
        shard._hold.limit = 1
        hear(capture, world, 12, 13, 14)
        assert (shard.spilled("BTCUSDT"), shard.account.held) == (2, 1)
        assert broken_accounts(capture) == [], "held and spilled"
        tape = shard.tapes["BTCUSDT"]
        shard.append(place_page(tape, [trade(10)]).items)
        shard.append(declare_missing(tape, IdRange(11, 11), waited_s=60))
        assert shard.unspill("BTCUSDT")
        assert (shard.pending, shard.ring.trades) == (10, 11), "10 to 14, of them a gap"
        assert broken_accounts(capture) == [], "healed, declared and unspilled"
        hear(capture, world, *range(15, 30))
        assert (shard.turned_away, shard.pending) == (5, 20)
        assert broken_accounts(capture) == [], "full"
        await world.write_all()
        assert broken_accounts(capture) == [], "written"
        await shard.step_down()
        shard.drop("BTCUSDT")
        shard.carry("ETHUSDT")
        assert broken_accounts(capture) == [], "stepped down, with another symbol"

    virtually(story())


def test_a_standbys_account_balances_when_the_writer_is_ahead_of_it() -> None:
    async def story() -> None:
        world = ShardWorld()
        capture = capture_of(world)
        hear(capture, world, 5, 8, 9)
        world.log.stand_at(8)
        world.follow()
        assert world.shard.ring.trades == 3, "8 and 9 were held until the writer had 7"
        assert broken_accounts(capture) == []

    virtually(story())


def test_a_successors_account_balances_when_the_log_sets_free_what_it_held() -> None:
    async def story() -> None:
        world = ShardWorld()
        capture = capture_of(world)
        hear(capture, world, 8, 9)
        world.log.stand_at(8)
        await world.shard.take_over()
        assert (world.shard.pending, broken_accounts(capture)) == (2, [])

    virtually(story())


def test_a_healing_writers_account_balances() -> None:
    async def story() -> None:
        world, rest = ShardWorld(), FakeRest()
        shard, capture = world.shard, capture_of(world)
        rest.newest, rest.lost, rest.bad = 20, {12}, {10: "void"}
        await shard.take_over()
        healing = Healing(
            rest=rest,
            write=shard.append,
            unspill=shard.unspill,
            room=lambda: not shard.full,
            hears=lambda: True,
            reject_row=lambda _: None,
            reject_trade=lambda _: None,
            host=virtual_host(),
            heal_wait_max_s=1.0,
            leg_wait_s=0.0,
        )
        healer = SymbolHealer(shard.tapes["BTCUSDT"], healing, record_start=lambda _: None)
        hear(capture, world, 9, 21, 22)
        healer.look()
        await beside(healer.run(), until(lambda: shard.tapes["BTCUSDT"].next_id == 23))
        assert (shard.ring.trades, shard.ring.queued) == (16, 18), "10 and 12 are declared"
        assert broken_accounts(capture) == []

    virtually(story())


def _never_offered(world: ShardWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.shard.tapes["BTCUSDT"], "offer", lambda _: [])


def _lost_while_held(world: ShardWorld, _: pytest.MonkeyPatch) -> None:
    tape = world.shard.tapes["BTCUSDT"]
    tape.offer(trade(90))
    tape._held.clear()


def _never_queued(world: ShardWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.shard, "append", lambda _: None)


def _queued_as_something_else(world: ShardWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    append = world.shard.append
    gap = Gap("BTCUSDT", IdRange(5, 5), GapClass.MISSING, "for the trade")
    monkeypatch.setattr(world.shard, "append", lambda items: append([gap for _ in items]))


def _lost_from_the_ring(world: ShardWorld, _: pytest.MonkeyPatch) -> None:
    world.stream(5, 5)
    world.shard.heard -= 1  # no frame of the story
    world.shard.ring.pop()


@pytest.mark.parametrize(
    ("lose", "hop"),
    [
        (_never_offered, "streams"),
        (_lost_while_held, "tapes"),
        (_never_queued, "queues"),
        (_queued_as_something_else, "queues"),
        (_lost_from_the_ring, "rings"),
    ],
)
def test_a_trade_that_is_lost_at_a_hop_breaks_that_hop(
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[ShardWorld, pytest.MonkeyPatch], None],
    hop: str,
) -> None:
    async def story() -> None:
        world = ShardWorld()
        capture = capture_of(world, ShardWorld())
        lose(world, monkeypatch)
        hear(capture, world, 5)
        assert broken_accounts(capture) == [hop]

    virtually(story())


def test_what_one_shard_has_too_much_is_not_what_another_lacks() -> None:
    async def story() -> None:
        worlds = ShardWorld(), ShardWorld()
        capture = capture_of(*worlds)
        worlds[0].shard.ring.trades += 1
        worlds[1].shard.ring.trades -= 1
        assert broken_accounts(capture) == ["queues"]

    virtually(story())


# What a scrape shows.


def test_trades_and_declarations_queued_are_on_the_page() -> None:
    async def story() -> None:
        worlds = ShardWorld(), ShardWorld()
        capture = capture_of(*worlds)
        measured = CaptureFigures(capture, breaker=lambda: Breaker.CLOSED, host=virtual_host())
        measured.measure()
        assert on_the_page()["k2_items_queued_total",] == 0
        hear(capture, worlds[0], 5, 6, 6)
        hear(capture, worlds[1], 5)
        worlds[1].shard.append([Gap("BTCUSDT", IdRange(6, 7), GapClass.MISSING, "why")])
        measured.measure()
        page = on_the_page()
        assert page["k2_items_queued_total",] == 4
        assert page["k2_trades_emitted_total",] == 3
        assert page["k2_promise_broken",] == 0

    virtually(story())


def test_how_far_a_legs_copies_trail_is_on_the_page() -> None:
    async def story() -> None:
        capture = capture_of(ShardWorld())
        capture.legs.figures = {"a": LegFigures(), "b": LegFigures()}
        for _ in range(1_000):
            capture.legs.figures["b"].late(0.25)
        CaptureFigures(capture, breaker=lambda: Breaker.CLOSED, host=virtual_host()).measure()
        page = on_the_page()
        assert page["k2_leg_lag_seconds", "a"] == 0
        assert page["k2_leg_lag_seconds", "b"] == pytest.approx(0.25, rel=0.001)

    virtually(story())


def test_fills_that_do_not_follow_are_on_the_page_once() -> None:
    async def story() -> None:
        world = ShardWorld()
        series = "k2_fill_breaks_total", "BTCUSDT"
        before = on_the_page().get(series, 0)
        world.stream(5, 6)
        world.shard.offer(msgspec.structs.replace(trade(7), first_trade_id=70, last_trade_id=70))
        with capture_logs() as logs:
            _tell_fill_breaks(world.shard)
            assert on_the_page()[series] == before + 1
            _tell_fill_breaks(world.shard)
        assert on_the_page()[series] == before + 1
        assert [line["event"] for line in logs] == ["fill_ids_break"]

    virtually(story())
