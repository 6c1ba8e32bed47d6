from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from k2.ingestion.health import Health, health
from k2.ingestion.legs import LegFigures
from k2.ingestion.membership import Wish
from k2.kafka.position import OpenGap
from k2.market import IdRange
from unit.ingestion.shard_world import ShardWorld, virtual_host, virtually

NOW_S = 5_000.0


def _feed(name: str, *, live: bool) -> Any:
    return SimpleNamespace(
        leg=SimpleNamespace(name=name, live=live, age_s=lambda now_s: now_s - 4_990.04)
    )


def _capture(world: ShardWorld, *, legs: dict[str, bool], connected: bool = True) -> Any:
    """Return what ``health`` looks at of a capture."""
    figures = {"a": LegFigures(first=70, copies=30, lag_s=0.0123456789), "b": LegFigures(30)}
    return SimpleNamespace(
        started_s=4_000.0,
        shards=[world.shard],
        legs=SimpleNamespace(
            live=connected,
            feeds=[_feed(name, live=live) for name, live in legs.items()],
            figures=figures,
            figures_of=lambda leg: figures[leg.name[0]],
        ),
        membership=SimpleNamespace(wish=Wish.AUTO, member=True),
        comparing={},
    )


def _health(world: ShardWorld, **given: Any) -> Health:
    return health(_capture(world, **given), now_s=NOW_S)


BOTH = {"a": True, "b": True}


@pytest.mark.parametrize(
    ("legs", "connected", "hole", "status"),
    [
        (BOTH, True, False, "healthy"),
        ({"a": True, "b": False}, True, False, "degraded"),
        (BOTH, True, True, "degraded"),
        ({"a": False, "b": False}, False, False, "unhealthy"),
        ({"a": False, "b": False}, False, True, "unhealthy"),
    ],
)
def test_the_status_follows_the_legs_and_the_holes(
    legs: dict[str, bool], connected: bool, hole: bool, status: str
) -> None:
    async def story() -> None:
        world = ShardWorld()
        if hole:
            world.stream(9, 9)
        found = _health(world, legs=legs, connected=connected)
        assert found.status == status
        assert found.connection_state == ("CONNECTED" if connected else "CONNECTING")
        assert found.shards[0].holes == (["BTCUSDT"] if hole else [])

    virtually(story())


def test_the_contracts_fields_are_there_with_role_shards_and_legs_beside_them() -> None:
    async def story() -> None:
        world = ShardWorld()
        found = msgspec.json.decode(msgspec.json.encode(_health(world, legs=BOTH)))
        assert found["symbols"] == ["BTCUSDT"]
        assert (found["uptime_seconds"], found["messages_received"]) == (1_000.0, 100)
        assert (found["role"], found["member"]) == ("auto", True)
        (shard,) = found["shards"]
        assert (shard["role"], shard["symbols"]) == ("standby", {"BTCUSDT": 4})
        assert (shard["takeovers"], shard["last_takeover_pause_s"]) == (0, None)
        assert found["legs"][0] == {
            "leg": "a",
            "live": True,
            "age_s": 10.0,
            "first_copies": 70,
            "copies": 30,
            "lag_s": 0.012346,
        }

    virtually(story())


def test_what_waits_is_told_of_a_writer_only() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 7)
        assert _health(world, legs=BOTH).shards[0].pending == 0
        await world.shard.take_over()
        (shard,) = _health(world, legs=BOTH).shards
        assert (shard.role, shard.pending, shard.takeovers) == ("writer", 3, 1)
        assert shard.last_takeover is not None

    virtually(story())


def test_open_gaps_and_symbols_without_a_tape_are_told() -> None:
    async def story() -> None:
        world = ShardWorld()
        position = world.shard.told.position
        gap = OpenGap("BTCUSDT", IdRange(1, 2), virtual_host().wall_ns() // 1000)
        world.log.say(msgspec.structs.replace(position, open_gaps=(gap,)))
        world.follow()
        world.shard.carry("NEWUSDT")
        (shard,) = _health(world, legs=BOTH).shards
        assert (shard.open_gaps, shard.symbols) == (1, {"BTCUSDT": 4, "NEWUSDT": None})

    virtually(story())
