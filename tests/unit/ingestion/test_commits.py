import asyncio

import pytest
from structlog.testing import capture_logs

from k2.observability import metrics
from simulation.world.node import EPOCH_NS
from unit.ingestion.shard_world import NAMES, ShardWorld, virtually
from unit.trades import trade

OF_TOPIC = (metrics.EXCHANGE, NAMES.trades)


@pytest.mark.parametrize(("outcome", "written_again"), [("landed", 0), ("lost", 1)])
def test_an_outcome_no_retry_can_tell_is_counted(outcome: str, written_again: int) -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.log.outcomes = ["lands", outcome]
        errors = metrics.produce_errors.labels(*OF_TOPIC, "unknown")
        exceeded = metrics.produce_retries_exceeded.labels(*OF_TOPIC, "unknown")
        again = metrics.produce_retries.labels(*OF_TOPIC, "unknown")
        before = errors.value, exceeded.value, again.value
        world.stream(5, 29)
        await world.write_all()
        assert world.ids == list(range(5, 30))
        assert (errors.value, exceeded.value) == (before[0] + 1, before[1] + 1)
        assert again.value == before[2] + written_again

    virtually(story())


def test_no_latency_is_made_up_where_the_clock_was_set_back_in_between() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        latency = metrics.message_latency.labels()
        count, total = latency.count, latency.total
        received_s = trade(5).recv_ts_ns / 1e9 - EPOCH_NS / 1e9
        with capture_logs() as logs:
            world.stream(5, 6)  # at a time the clock has not come to yet
            await world.write_all()
        now_s = asyncio.get_running_loop().time()
        assert 0 < now_s < received_s
        assert (latency.count, latency.total) == (count, total)
        (line,) = (line for line in logs if line["event"] == "clock_set_back")
        assert line["trades"] == 2
        assert 0 < line["at_least_s"] < received_s
        await asyncio.sleep(received_s)
        with capture_logs() as logs:
            world.stream(7, 7)
            await world.write_all()
        assert latency.count == count + 1
        assert 0 < latency.total - total < 1
        assert logs == []

    virtually(story())
