"""A status as a test wants it, and a service that says it on a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from k2.ingestion.health import (
    ArchiveHealth,
    CommitHealth,
    DependencyHealth,
    Health,
    LakeHealth,
    LatencyHealth,
    LegHealth,
    MemoryHealth,
    RotationHealth,
    Stretch,
    TapeHealth,
    TopicHealth,
)
from k2.ingestion.health_pages import health_pages, page_answer
from k2.observability.http import serve_pages

MEMORY = MemoryHealth(80 << 20, 0.1, 2.0, [])
KAFKA = DependencyHealth("kafka:9092", True, 5.0)
ARCHIVE = ArchiveHealth(
    status="healthy",
    phase="recording",
    version="1",
    uptime_seconds=100.0,
    problems=[],
    kafka=KAFKA,
    topics=[TopicHealth("trades", 500, 3.0)],
    tables=[],
    freshness_s=1.0,
    freshness_p99_s=2.5,
    promise_broken=0,
    memory=MEMORY,
)
GOOD = Health(
    status="healthy",
    connection_state="CONNECTED",
    symbols=["BTCUSDT"],
    uptime_seconds=100.0,
    messages_received=0,
    last_message_age_seconds=None,
    version="1",
    phase="recording",
    ready=True,
    problems=[],
    now_ts_us=0,
    stream="aggTrade",
    environment="production",
    role="auto",
    member=True,
    shards=[],
    legs=[],
    tapes=[],
    rotation=RotationHealth(None, None, []),
    latency=LatencyHealth(-0.75, -0.8, 0.002, 0.03, 0.05),
    kafka=KAFKA,
    schema_registry=KAFKA,
    commits=CommitHealth(None, None, 0),
    lake=LakeHealth("http://a", True, True, 9.0, ARCHIVE),
    memory=MEMORY,
    compared=[],
    promise_broken=0,
)

TAPE = TapeHealth(
    symbol="BTCUSDT",
    shard=0,
    first_id=1,
    last_id=100,
    next_id=101,
    rate_per_s=12.5,
    last_price="93711.17",
    last_quantity="0.5",
    last_side="BUY",
    last_trade_ts_us=1,
    silent_s=0.2,
    silent_allowed_s=5.0,
    silent=False,
    hole=None,
    open_gap_ids=0,
    recent=[Stretch("written", 100)],
)
LEG = LegHealth("a", True, "live", 12.0, 75, 25, 0.001, 3600.0, None)
HEALTHY = msgspec.structs.replace(GOOD, tapes=[TAPE], legs=[LEG])


class Pretended:
    """A service that says what a test wants."""

    def __init__(self) -> None:
        self.said: Health = HEALTHY
        self.started = True
        self.reasons: list[str] = []
        self.asked = 0
        """How often somebody wanted to know."""

    def health(self) -> Health:
        self.asked += 1
        return self.said

    def not_ready(self) -> list[str]:
        return self.reasons


@asynccontextmanager
async def serving(service: Pretended, port: int) -> AsyncIterator[str]:
    pages = {"/": page_answer(), **health_pages(service)}
    runner = await serve_pages(port, pages, variables="K2_X")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
