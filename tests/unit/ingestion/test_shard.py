import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from k2.ingestion import ring
from k2.ingestion.commits import Told
from k2.ingestion.own_past import OWN_PAST_S
from k2.ingestion.shard import Offer, Role
from k2.kafka.encoding import TradeEncoder
from k2.kafka.position import Identity, ShardPosition, ShardRecord, SymbolPosition
from k2.kafka.transaction import FencedError, Record
from k2.market import Gap, GapClass, IdRange, StreamKind, Symbol
from k2.tape.arbiter import Placed
from unit.ingestion.shard_world import (
    IDENTITY,
    NAMES,
    ShardWorld,
    beside,
    until,
    virtual_host,
    virtually,
)
from unit.trades import trade


def _nothing() -> tuple[Record, ...]:
    return ()


def _same(told: Told) -> Told:
    return told


# Standing by.


def test_a_standby_keeps_what_the_log_does_not_have_and_drops_what_it_has() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 9)
        assert world.shard.pending == 5
        world.log.stand_at(8)
        world.follow()
        assert [i.trade.source_id for i in world.shard._ring if isinstance(i, Placed)] == [8, 9]
        assert world.shard.seen_writing
        assert world.written == []

    virtually(story())


def test_a_standby_that_missed_trades_goes_on_where_the_writer_is() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(8, 9)
        assert (world.shard.pending, world.holes) == (0, ["BTCUSDT", "BTCUSDT"])
        world.log.stand_at(8)
        world.follow()
        assert world.shard.tapes["BTCUSDT"].next_id == 10
        assert world.shard.pending == 2

    virtually(story())


def test_a_standby_learns_where_a_new_symbol_begins() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        world.stream(3, 6)
        assert world.shard.pending == 0
        world.log.stand_at(5)
        world.follow()
        assert world.shard.pending == 2
        assert not world.shard.seen_writing, "there was nothing before to compare with"

    virtually(story())


def test_a_standby_lets_go_of_its_oldest_and_takes_in_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 3)

    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 12)
        assert [i.trade.source_id for i in world.shard._ring if isinstance(i, Placed)] == [
            *(10, 11, 12)
        ]
        assert world.losses == []

    virtually(story())


def test_a_standby_hears_of_another_active_set() -> None:
    async def story() -> None:
        world, told = ShardWorld(), list[str]()
        world.shard.on_identity = lambda: told.append("changed")
        world.follow()
        assert told == []
        other = Identity("binance", "simulated", "aggTrade", {}, 1, ["ADAUSDT", "BTCUSDT"])
        world.log.committed = world.log.committed.__class__(other, world.log.committed.position)
        world.follow()
        assert told == ["changed"]

    virtually(story())


def test_a_writer_is_not_moved_by_what_it_follows() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.shard.news.clear()
        world.log.stand_at(50)
        world.follow()
        assert world.shard.tapes["BTCUSDT"].next_id == 5
        assert world.shard.news.is_set()

    virtually(story())


def test_a_symbol_that_comes_back_goes_on_after_what_still_waits_of_it() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.stream(5, 7)
        world.shard.drop("BTCUSDT")
        tape = world.shard.carry("BTCUSDT")
        assert (tape.next_id, tape.previous_id) == (8, 7)
        world.stream(7, 9)
        await world.write_all()
        assert world.written == ["4>5", "5>6", "6>7", "7>8", "8>9"]

    virtually(story())


# Taking over.


def _takes_over(world: ShardWorld) -> Coroutine[Any, Any, None]:
    async def story() -> None:
        await world.shard.take_over()
        assert world.shard.role is Role.WRITER
        await world.write_all()

    return story()


def test_a_successor_goes_on_exactly_where_the_log_ends() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 9)
        world.log.stand_at(7)
        world.follow()
        world.log.stand_at(8)  # committed, not followed yet
        await _takes_over(world)
        assert world.written == ["7>8", "8>9"]
        assert world.log.calls == ["take_over"]
        assert world.admitted == [True], "a writer was seen, which had been admitted"

    virtually(story())


def test_a_successor_whose_ring_begins_too_late_leaves_the_hole_to_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 3)

    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 12)
        world.log.stand_at(6)
        await _takes_over(world)
        tape = world.shard.tapes["BTCUSDT"]
        assert (tape.hole, tape.held, world.written) == (IdRange(6, 9), 3, [])
        for source_id in range(6, 10):
            world.shard.append(tape.offer(trade(source_id)))
        await world.write_all()
        assert world.written == [f"{i - 1}>{i}" for i in range(6, 13)]

    virtually(story())


def test_a_successor_that_heard_less_than_the_log_has_goes_on_behind_the_log() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 6)
        world.stream(22, 22)
        world.log.stand_at(20)
        await _takes_over(world)
        tape = world.shard.tapes["BTCUSDT"]
        assert (tape.next_id, tape.previous_id, tape.hole) == (20, 19, IdRange(20, 21))
        world.stream(20, 21)
        await world.write_all()
        assert world.written == ["19>20", "20>21", "21>22"]

    virtually(story())


def test_gaps_of_an_earlier_term_are_not_declared_by_the_next() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        tape = world.shard.tapes["BTCUSDT"]
        world.stream(5, 5)
        world.stream(8, 8)
        ids = IdRange(6, 7)
        world.shard.append([Gap("BTCUSDT", ids, GapClass.MISSING, ""), *tape.declare(ids)])
        await world.shard.step_down()
        assert world.shard.pending == 2
        await _takes_over(world)
        assert (world.written, tape.hole) == (["4>5"], IdRange(6, 7))
        world.stream(6, 7)  # they came after all
        await world.write_all()
        assert world.ids == [5, 6, 7, 8]

    virtually(story())


def test_a_tape_that_was_begun_and_never_written_is_begun_anew() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        await world.shard.take_over()
        tape = world.shard.tapes["BTCUSDT"]
        world.shard.append(tape.begin(3))
        world.stream(3, 5)
        await world.shard.step_down()
        await world.shard.take_over()
        assert (tape.next_id, tape.held, world.shard.pending) == (None, 3, 0)
        world.shard.append(tape.begin(3))
        await world.write_all()
        assert world.written == ["None>3", "3>4", "4>5"]

    virtually(story())


def test_trades_of_a_symbol_carried_no_more_are_not_taken_into_the_next_term() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 6)
        world.shard.drop("BTCUSDT")
        await _takes_over(world)
        assert world.written == []

    virtually(story())


def test_a_kafka_that_is_away_is_asked_until_it_answers_and_the_pause_is_told() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.log.away = 3
        await world.shard.take_over()
        assert world.log.calls == ["take_over"] * 4
        assert world.shard.last_takeover_s > 0.2
        assert world.shard.takeovers == 1

    virtually(story())


def test_the_pause_counts_from_the_logs_last_word_whoever_wrote_it() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.log.last_written_ms = virtual_host().wall_ns() // 10**6 - 20_000
        world.stream(5, 6)
        await _takes_over(world)
        assert 20 <= world.shard.last_pause_s < 21

    virtually(story())


def test_the_pause_of_a_new_tape_counts_from_its_take_over() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.stream(5, 6)
        await _takes_over(world)
        assert 0 <= world.shard.last_pause_s < 1

    virtually(story())


# Writing.


def test_trades_gaps_identity_and_position_go_in_one_transaction() -> None:
    async def story() -> None:
        world = ShardWorld()
        shard = world.shard
        await shard.take_over()
        identity = Identity("binance", "simulated", "aggTrade", {}, 1, ["ADAUSDT", "BTCUSDT"])
        shard.do(_nothing, lambda told: told._replace(identity=identity))
        world.stream(5, 5)
        ids = IdRange(6, 7)
        shard.append([Gap("BTCUSDT", ids, GapClass.MISSING, "")])
        shard.append(shard.tapes["BTCUSDT"].declare(ids))
        world.stream(8, 8)
        await world.write_all()
        (transaction,) = world.log.transactions
        assert [(record.topic, record.key) for record in transaction] == [
            (NAMES.trades, b"BTCUSDT"),
            (NAMES.gaps, b"BTCUSDT"),
            (NAMES.trades, b"BTCUSDT"),
            (NAMES.positions, b"identity"),
            (NAMES.positions, b"position"),
        ]
        assert world.log.committed.identity == identity
        assert world.log.committed.position == shard.told.position
        assert world.stands_at == (9, 8, 0)
        assert [gap.ids for gap in shard.told.position.open_gaps] == [ids]

    virtually(story())


def test_a_gap_that_moves_no_position_is_written_all_the_same() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.shard.append([Gap("BTCUSDT", IdRange(1, 2), GapClass.VOID, "")])
        await world.write_all()
        assert [record.topic for record in world.log.records] == [NAMES.gaps, NAMES.positions]
        assert world.stands_at == (5, 4, 0)

    virtually(story())


def test_an_identity_that_did_not_change_is_not_written() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.stream(5, 5)
        await world.write_all()
        assert [record.key for record in world.log.records] == [b"BTCUSDT", b"position"]
        assert world.log.committed.identity == IDENTITY

    virtually(story())


def test_batches_are_of_the_set_size_and_in_order() -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.stream(5, 99)
        await world.write_all()
        assert world.ids == list(range(5, 100))
        assert [len(records) for records in world.log.transactions] == [11] * 9 + [6]

    virtually(story())


def test_a_batch_grows_for_its_time_and_no_longer() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()

        async def tell() -> None:
            await asyncio.sleep(1)
            world.stream(5, 5)
            await asyncio.sleep(0.02)
            world.stream(6, 6)
            await asyncio.sleep(0.035)
            assert world.shard.pending == 2, "the transaction is under way"
            world.stream(7, 7)
            await until(lambda: not world.shard.pending)

        await beside(world.shard.write(asyncio.Event()), tell())
        assert [len(records) - 1 for records in world.log.transactions] == [2, 1]

    virtually(story())


def test_ending_commits_what_is_there_and_not_what_comes_meanwhile() -> None:
    async def story() -> None:
        world, ending = ShardWorld(batch_size=2), asyncio.Event()
        await world.shard.take_over()
        world.stream(5, 9)
        ending.set()

        async def more() -> None:
            await asyncio.sleep(0.005)
            world.stream(10, 200)

        await asyncio.gather(world.shard.write(ending), more())
        assert world.ids == [*range(5, 11)]

    virtually(story())


def test_an_aborted_batch_is_written_again_whole() -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.log.outcomes = ["lands", "aborted", "aborted"]
        world.stream(5, 29)
        await world.write_all()
        assert world.ids == list(range(5, 30))
        assert [len(records) for records in world.log.transactions] == [11, 11, 6]
        assert world.log.calls == ["take_over"], "the producer is fine"

    virtually(story())


@pytest.mark.parametrize("outcome", ["landed", "lost"])
def test_an_unknown_outcome_is_read_back(outcome: str) -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.log.outcomes, world.log.away = ["lands", outcome, outcome], 0
        world.stream(5, 29)
        await world.write_all()
        assert world.ids == list(range(5, 30))
        assert world.log.calls[:3] == ["take_over", "look", "take_over"]
        assert world.stands_at == (30, 29, 0)

    virtually(story())


def test_a_kafka_that_cannot_tell_the_outcome_is_asked_until_it_can() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.log.outcomes, world.log.away = ["landed"], 5
        world.stream(5, 9)
        await world.write_all()
        assert world.ids == [5, 6, 7, 8, 9]
        assert world.log.calls.count("look") == 6

    virtually(story())


def test_a_writer_that_lost_its_place_does_not_fence_the_one_that_took_it() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.log.outcomes = ["moved"]
        world.stream(5, 7)
        with pytest.raises(FencedError, match="position moved"):
            await world.shard.write(asyncio.Event())
        assert world.log.calls == ["take_over", "look"]
        assert (world.ids, world.shard.pending) == ([], 3)

    virtually(story())


def test_a_fenced_writer_ends_with_everything_it_could_not_write() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.log.outcomes = ["fenced"]
        world.stream(5, 9)
        with pytest.raises(FencedError):
            await world.shard.write(asyncio.Event())
        assert world.shard.pending == 5

    virtually(story())


def test_after_a_resumed_commit_the_position_is_read_before_a_new_producer_goes_on() -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.log.outcomes = ["resumed"]
        world.stream(5, 19)
        await world.write_all()
        assert world.ids == list(range(5, 20))
        assert world.log.calls == ["take_over", "look", "take_over", "tail"]

    virtually(story())


def test_another_writer_between_two_producers_of_ours_is_seen() -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=10)
        await world.shard.take_over()
        world.log.outcomes = ["resumed"]
        world.stream(5, 19)

        async def another() -> None:
            await until(lambda: world.ids != [])
            world.log.stand_at(40)

        with pytest.raises(FencedError):
            await asyncio.gather(world.shard.write(asyncio.Event()), another())
        assert world.ids == list(range(5, 15))
        assert "take_over" not in world.log.calls[1:]

    virtually(story())


def test_records_are_what_the_encoder_makes() -> None:
    async def story() -> None:
        world = ShardWorld()
        world.shard._commits._encoder = encoder = TradeEncoder(
            schema_id=1,
            kind=StreamKind.AGG_TRADE,
            environment="simulated",
            symbols={"BTCUSDT": Symbol("BTCUSDT", "BTC", "USDT")},
        )
        await world.shard.take_over()
        world.stream(5, 6)
        await world.write_all()
        told = [record.value for record in world.log.records if record.topic == NAMES.trades]
        assert told == [encoder.encode(Placed(trade(i), i - 1)) for i in (5, 6)]

    virtually(story())


# Beside the tape.


def test_an_extra_goes_in_the_transaction_of_the_trades_and_tells_when_it_landed() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.log.outcomes = ["aborted", "landed"]
        world.stream(5, 5)
        done = world.shard.do(lambda: [Record(NAMES.repairs, b"k", b"v")], _same)
        await world.write_all()
        assert await done
        (transaction,) = world.log.transactions
        assert [r.topic for r in transaction] == [NAMES.trades, NAMES.repairs, NAMES.positions]

    virtually(story())


def test_an_extra_that_is_out_of_date_writes_nothing_and_says_so() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        late = world.shard.do(lambda: [Record(NAMES.repairs, b"k", b"v")], lambda _: None)
        after = world.shard.do(lambda: [Record(NAMES.repairs, b"k", b"w")], _same)
        await world.write_all()
        assert (await late, await after) == (False, True)
        assert [r.value for r in world.log.records if r.topic == NAMES.repairs] == [b"w"]

    virtually(story())


def test_an_extra_sees_the_state_its_transaction_begins_with() -> None:
    async def story() -> None:
        world = ShardWorld(batch_size=2)
        await world.shard.take_over()
        seen: list[int] = []

        def look(told: Told) -> Told:
            seen.append(told.position.symbols["BTCUSDT"].next_id)
            return told

        world.stream(5, 8)
        world.shard.do(_nothing, look)
        world.shard.do(_nothing, look)
        await world.write_all()
        assert seen == [5, 7]

    virtually(story())


def test_extras_of_a_term_that_ends_are_cancelled() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        done = world.shard.do(_nothing, _same)
        await world.shard.step_down()
        assert done.cancelled()
        assert world.shard.role is Role.STANDBY
        assert not world.log.initialised
        await _takes_over(world)
        assert world.log.records == []

    virtually(story())


def test_stepping_down_keeps_the_trades_and_drops_what_the_successor_wrote() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.stream(5, 9)
        world.log.stand_at(8)
        world.log.record = world.log.committed
        await world.shard.step_down()
        assert world.shard.pending == 2
        assert world.shard.tapes["BTCUSDT"].next_id == 10

    virtually(story())


# When there is no room.


def test_a_writers_full_ring_lets_go_of_what_comes_and_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 3)

    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        offers = [world.shard.offer(trade(i)) for i in range(5, 10)]
        assert offers == [Offer.FIRST] * 3 + [Offer.LET_GO] * 2
        assert (world.shard.full, world.losses) == (True, ["BTCUSDT"] * 2)
        await world.write_all()
        assert not world.shard.full
        assert world.shard.offer(trade(8)) is Offer.FIRST
        await world.write_all()
        assert world.ids == [5, 6, 7, 8]

    virtually(story())


def test_what_becomes_of_an_offer() -> None:
    async def story() -> None:
        world = ShardWorld()
        shard = world.shard
        assert shard.offer(trade(5)) is Offer.FIRST
        assert shard.offer(trade(5)) is Offer.COPY
        assert shard.offer(trade(8)) is Offer.FIRST
        assert shard.offer(trade(8)) is Offer.COPY
        assert world.holes == ["BTCUSDT"]
        shard._hold.limit = 1
        assert shard.offer(trade(9)) is Offer.LET_GO
        assert world.losses == ["BTCUSDT"]
        shard.drop("BTCUSDT")
        assert shard._hold.taken == 0

    virtually(story())


def test_what_a_full_hold_spilled_goes_on_the_tape_once_the_hole_is_closed() -> None:
    async def story() -> None:
        world = ShardWorld(spill_max_bytes=1 << 20)
        shard = world.shard
        shard._hold.limit = 1
        offers = [shard.offer(trade(i)) for i in (7, 8, 9, 8)]
        assert offers == [*[Offer.FIRST] * 3, Offer.COPY]
        assert (set(world.losses), shard.tapes["BTCUSDT"].held) == ({"BTCUSDT"}, 1)
        assert not shard.unspill("BTCUSDT"), "the hole is still open"
        world.stream(5, 6)
        assert shard.pending == 3
        assert shard.unspill("BTCUSDT")
        assert not shard.unspill("BTCUSDT")
        await _takes_over(world)
        assert world.ids == [5, 6, 7, 8, 9]

    virtually(story())


def test_what_nobody_wrote_stands_nowhere() -> None:
    async def story() -> None:
        world = ShardWorld(next_id=None)
        assert world.shard.told == Told(None, ShardPosition({}))
        await _takes_over(world)
        assert world.log.records == []

    virtually(story())


def test_our_own_commits_followed_late_are_not_another_process() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.follow()
        world.stream(5, 20)
        await world.write_all()
        own = world.log.committed
        world.log.record = _standing(own, 12)
        world.shard.stop_writing()
        world.shard.followed()  # while its duties end
        await world.shard.step_down()
        assert world.stands_at[0] == 21, "what we wrote is not forgotten"
        for record in (_standing(own, 15), own):
            world.log.record = record
            world.shard.followed()
        assert (world.shard.seen_writing, world.shard.followed_s) == (False, 0.0)
        world.log.stand_at(30)
        world.follow()
        assert world.shard.seen_writing

    virtually(story())


def test_a_log_that_went_back_is_believed_after_a_while() -> None:
    async def story() -> None:
        world = ShardWorld()
        await world.shard.take_over()
        world.stream(5, 20)
        await world.write_all()
        world.log.record = _standing(world.log.committed, 12)
        await world.shard.step_down()
        await asyncio.sleep(OWN_PAST_S)
        world.shard.followed()
        assert world.stands_at[0] == 12

    virtually(story())


def _standing(record: ShardRecord, next_id: int) -> ShardRecord:
    """Return what a log says when BTCUSDT's tape ends before an id."""
    where = SymbolPosition(next_id, next_id - 1, 5)
    return ShardRecord(record.identity, ShardPosition({"BTCUSDT": where}))


def test_a_standby_forgets_what_it_spilled_once_the_writer_has_written_it() -> None:
    async def story() -> None:
        world = ShardWorld(spill_max_bytes=1 << 20)
        world.shard._hold.limit = 1
        world.stream(7, 9)
        world.log.stand_at(9)
        world.follow()
        assert world.shard.spilled("BTCUSDT") == 2
        world.log.stand_at(10)
        world.follow()
        assert world.shard.spilled("BTCUSDT") == 0

    virtually(story())


def test_what_the_disk_does_not_give_back_is_looked_for() -> None:
    async def story() -> None:
        world = ShardWorld(spill_max_bytes=1 << 20)
        shard = world.shard
        shard._hold.limit = 1
        world.stream(7, 9)
        world.stream(5, 6)
        world.losses.clear()
        shard._spill._queues["BTCUSDT"].file.truncate(10)
        assert shard.unspill("BTCUSDT")
        assert (shard.spilled("BTCUSDT"), world.losses) == (0, ["BTCUSDT"])
        assert shard.tapes["BTCUSDT"].next_id == 8

    virtually(story())
