from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from k2.binance.limits import Breaker
from k2.ingestion.capture_figures import CaptureFigures
from k2.observability import metrics
from unit.ingestion.shard_world import NAMES, ShardWorld, virtual_host, virtually


def capture_of(*worlds: ShardWorld, frames: int = 0) -> Any:
    """Return a capture of these shards that heard so many frames, all of them trades."""
    heard = {"trade": frames, "control": 0, "rejected": 0, "retired": 0}
    nothing = dict.fromkeys(("copies", "last_trade_ns", "last_ping_ns", "last_pong_ns"), 0)
    return SimpleNamespace(
        legs=SimpleNamespace(any_live=False, feeds=[], figures={}),
        intake=SimpleNamespace(frames=frames, kinds=lambda: heard, **nothing),
        shards=[world.shard for world in worlds],
        spill=SimpleNamespace(bytes=0),
    )


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
