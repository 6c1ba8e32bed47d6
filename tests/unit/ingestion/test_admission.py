import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from k2.errors import RetryError, StopError
from k2.ingestion.admission import (
    NEWEST_ID_PATIENCE_S,
    Prepared,
    admit,
    ask_exchange,
    identity_of,
    look,
    of_shard,
    recorded_symbols,
)
from k2.ingestion.supervision import UnavailableError
from k2.kafka.partitioning import shard_of
from k2.kafka.position import ShardPosition, ShardRecord, SymbolPosition
from k2.kafka.topics import TopicFacts
from k2.kafka.transaction import FencedError
from k2.market.wanted import Wanted, parse_lines
from k2.settings import Settings, load_settings
from unit.ingestion.shard_world import (
    NAMES,
    FakeLog,
    FakeRest,
    ShardWorld,
    virtual_host,
    virtually,
)
from unit.trades import trade

PREPARED = Prepared(
    NAMES, {topic: TopicFacts(f"id-{topic}", 4) for topic in NAMES.all()}, schema_id=1
)


def _settings(**given: Any) -> Settings:
    return load_settings({"ws_url": "ws://box/ws", **given})


def _record(*symbols: str, next_id: int = 100, last_ts_us: int | None = None) -> ShardRecord:
    positions = {
        name: SymbolPosition(next_id, next_id - 1, 0, last_ts_us=last_ts_us) for name in symbols
    }
    return ShardRecord(identity_of(_settings(), PREPARED, symbols), ShardPosition(positions))


def _asked(text: str, rest: FakeRest, *records: ShardRecord, fail_fast: bool = False) -> Any:
    wanted: Wanted = parse_lines(text)
    return virtually(_in_loop(wanted, records, rest, fail_fast=fail_fast))


async def _in_loop(
    wanted: Wanted, records: tuple[ShardRecord, ...], rest: FakeRest, *, fail_fast: bool
) -> Any:
    return await ask_exchange(wanted, records, rest, host=virtual_host(), fail_fast=fail_fast)


def _rest(newest: int = 500) -> FakeRest:
    rest = FakeRest()
    rest.newest = newest
    return rest


# What the exchange says.


def test_what_is_recorded_stays_recorded_and_what_leaves_is_left_out() -> None:
    record = _record("BTCUSDT", "ETHUSDT", "XRPUSDT")
    start = _asked("BTCUSDT\nADAUSDT\n-XRPUSDT", _rest(), record)
    assert sorted(start.listed) == ["ADAUSDT", "BTCUSDT", "ETHUSDT"]
    assert start.newest_ids == dict.fromkeys(start.listed, 500)
    assert start.listed["ETHUSDT"].quote_currency == "USDT"


def test_a_quote_asset_is_whatever_trades_against_it_but_for_what_leaves() -> None:
    rest = _rest()
    rest.trading = {"BTCUSDT", "ETHUSDT", "XRPUSDT", "ETHBTC"}
    assert sorted(_asked("all:USDT\n-XRPUSDT", rest).listed) == ["BTCUSDT", "ETHUSDT"]


def test_a_symbol_that_never_traded_has_no_newest_id() -> None:
    assert _asked("NEWUSDT", _rest(-1)).newest_ids == {"NEWUSDT": None}


def test_a_name_the_exchange_does_not_list_is_refused_unless_it_has_a_tape() -> None:
    rest = _rest()
    rest.unlisted = {"OLDUSDT"}
    with pytest.raises(StopError, match=r"does not list OLDUSDT$"):
        _asked("BTCUSDT\nOLDUSDT", rest)
    assert list(_asked("BTCUSDT\nOLDUSDT", rest, _record("OLDUSDT")).listed) == ["BTCUSDT"]
    with pytest.raises(StopError, match="none of the symbols"):
        _asked("OLDUSDT", rest, _record("OLDUSDT"))


def test_an_exchange_that_is_away_is_waited_for_unless_asked_not_to() -> None:
    rest = _rest()
    rest.failures = 5
    assert list(_asked("BTCUSDT", rest).listed) == ["BTCUSDT"]
    rest.failures = 1
    with pytest.raises(UnavailableError, match="exchange"):
        _asked("BTCUSDT", rest, fail_fast=True)


TRADED_US = trade(1).trade_ts_us


def test_an_exchange_whose_ids_were_reset_is_refused_once_patience_is_over() -> None:
    rest = _rest(50)
    with pytest.raises(StopError, match=r"BTCUSDT: the tape ends at id 99.*newest id is 50"):
        _asked("BTCUSDT", rest, _record("BTCUSDT", last_ts_us=TRADED_US - 1))
    assert len(rest.asked_newest) > 5
    with pytest.raises(StopError, match="newest id is none"):
        _asked("BTCUSDT", _rest(-1), _record("BTCUSDT", last_ts_us=TRADED_US + 1))


def test_a_rest_that_merely_trails_is_not() -> None:
    rest = _rest(50)
    found = _asked("BTCUSDT", rest, _record("BTCUSDT", last_ts_us=TRADED_US + 1))
    assert found.newest_ids == {"BTCUSDT": 50}
    assert _asked("BTCUSDT", _rest(99), _record("BTCUSDT")).newest_ids == {"BTCUSDT": 99}


def test_a_rest_that_is_back_in_time_is_believed() -> None:
    rest = _rest(50)

    async def story() -> Any:
        asyncio.get_running_loop().call_later(
            NEWEST_ID_PATIENCE_S / 2, lambda: setattr(rest, "newest", 120)
        )
        record = _record("BTCUSDT", last_ts_us=TRADED_US - 1)
        return await _in_loop(parse_lines("BTCUSDT"), (record,), rest, fail_fast=False)

    assert virtually(story()).newest_ids == {"BTCUSDT": 120}


# What Kafka says.


def _differing() -> list[tuple[str, Callable[[], Prepared | Settings]]]:
    facts = dict(PREPARED.facts)
    facts[NAMES.trades] = TopicFacts("another", 4)
    return [
        ("deleted and created again", lambda: PREPARED._replace(facts=facts)),
        (
            "partitions 4, this process writes 8",
            lambda: PREPARED._replace(facts={t: TopicFacts(f"id-{t}", 8) for t in NAMES.all()}),
        ),
        ("stream_kind", lambda: _settings(stream="trade")),
        ("environment", lambda: _settings(ws_url="wss://stream.binance.com/ws")),
    ]


@pytest.mark.parametrize(("text", "change"), _differing())
@pytest.mark.parametrize("asks", ["look", "admit"])
def test_a_tape_of_something_else_is_refused(
    text: str, change: Callable[[], Prepared | Settings], asks: str
) -> None:
    changed = change()
    prepared = changed if isinstance(changed, Prepared) else PREPARED
    settings = changed if isinstance(changed, Settings) else _settings()

    async def story() -> None:
        world = ShardWorld()
        world.log.committed = _record("BTCUSDT")
        log: Any = world.log
        call: Awaitable[Any]
        if asks == "look":
            call = look(settings, prepared, [log], host=virtual_host(), fail_fast=False)
        else:
            world.follow()
            world.shard.seen_writing = True
            call = admit(settings, prepared, world.shard, host=virtual_host())
        with pytest.raises(StopError, match=text):
            await call
        assert "take_over" not in world.log.calls

    virtually(story())


def test_a_look_fences_nobody_and_waits_for_kafka() -> None:
    async def story() -> None:
        logs: list[Any] = [FakeLog(), FakeLog()]
        logs[0].committed, logs[1].away = _record("BTCUSDT"), 2
        found = await look(_settings(), PREPARED, logs, host=virtual_host(), fail_fast=False)
        assert recorded_symbols(found) == {"BTCUSDT"}
        assert [log.calls for log in logs] == [["look"], ["look"] * 3]
        logs[1].away = 1
        with pytest.raises(UnavailableError, match="Kafka at"):
            await look(_settings(), PREPARED, logs, host=virtual_host(), fail_fast=True)

    virtually(story())


async def _admitted(world: ShardWorld) -> None:
    await world.log.take_over()
    world.follow()
    await admit(_settings(), PREPARED, world.shard, host=virtual_host())


def test_whoever_takes_over_compares_the_position_with_the_end_of_the_topic() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        await _admitted(world)
        world.log.trades_tail = (True, {})
        with pytest.raises(StopError, match="no position says which"):
            await _admitted(world)
        world.log.committed = _record("BTCUSDT")
        world.log.trades_tail = (True, {"BTCUSDT": 99})
        world.shard.seen_writing = False
        await _admitted(world)
        for tail in ({"BTCUSDT": 100}, {"BTCUSDT": 98}, {"ADAUSDT": 1}):
            world.log.trades_tail = (True, tail)
            with pytest.raises(StopError, match="the topic ends at"):
                await _admitted(world)

    virtually(story())


def test_a_topic_that_is_ahead_because_a_successor_wrote_meanwhile_is_no_corruption() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        world.log.committed = _record("BTCUSDT")
        world.log.trades_tail = (True, {"BTCUSDT": 120})

        async def tail(_records: int) -> tuple[bool, dict[str, int]]:
            world.log.committed = _record("BTCUSDT", next_id=140)
            return True, {"BTCUSDT": 120}

        world.log.tail = tail  # type: ignore[method-assign]
        with pytest.raises(FencedError, match="position moved"):
            await _admitted(world)

    virtually(story())


def test_a_successor_that_saw_its_predecessor_write_does_not_read_the_topic() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.log.committed = _record("BTCUSDT")
        world.log.trades_tail = (True, {"BTCUSDT": 12_345})
        world.shard.seen_writing = True
        await _admitted(world)
        assert "tail" not in world.log.calls

    virtually(story())


def test_a_topic_that_cannot_be_read_is_read_again() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        world.log.committed = _record("BTCUSDT")
        failures = [RetryError("away"), RetryError("away")]

        async def tail(_records: int) -> tuple[bool, dict[str, int]]:
            if failures:
                raise failures.pop()
            return True, {"BTCUSDT": 98}

        world.log.tail = tail  # type: ignore[method-assign]
        with pytest.raises(StopError, match="the topic ends at"):
            await _admitted(world)

    virtually(story())


# Who is whose.


def test_every_symbol_lives_in_one_shard() -> None:
    names = {f"S{number}USDT" for number in range(50)}
    shards = [of_shard(names, shard, partitions=4) for shard in range(4)]
    assert set.union(*shards) == names
    assert sum(len(shard) for shard in shards) == 50
    assert all(shard_of(name, partitions=4) == 2 for name in shards[2])
