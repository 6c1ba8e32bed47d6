from k2.ingestion.memory_trail import POINTS_MAX, MemoryTrail
from k2.observability.memory import MemoryUse


def test_the_trend_is_bounded_for_a_day_and_reaches_back_an_hour() -> None:
    now_bytes = 0

    def read() -> MemoryUse:
        return MemoryUse(now_bytes, 0)

    trail = MemoryTrail(read=read, leak_score=lambda: 0.25)
    for second in range(86_400):
        now_bytes = second
        trail.sample(float(second))
        assert len(trail.health().trend_bytes) <= POINTS_MAX
    found = trail.health()
    assert (found.rss_bytes, found.leak_score) == (86_399, 0.25)
    assert found.trend_bytes == sorted(found.trend_bytes)
    assert found.trend_bytes[-1] - found.trend_bytes[0] >= 1800
    steps = {b - a for a, b in zip(found.trend_bytes, found.trend_bytes[1:], strict=False)}
    assert steps == {int(found.every_s)}


def test_the_start_is_no_trend() -> None:
    trail = MemoryTrail(read=lambda: MemoryUse(1, 1), leak_score=lambda: 0)
    trail.sample(100.0)
    assert (trail.health().rss_bytes, trail.health().trend_bytes) == (1, [])
    trail.sample(110.0)
    assert trail.health().trend_bytes == [1]
