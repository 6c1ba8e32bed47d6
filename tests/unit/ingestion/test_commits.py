import pytest

from k2.observability import metrics
from unit.ingestion.shard_world import NAMES, ShardWorld, virtually

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
