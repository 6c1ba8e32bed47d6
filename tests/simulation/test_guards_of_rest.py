"""Guards that lose nothing when taken away, as REST has the rows: they save a pause or REST."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from k2.ingestion.capture import Capture
from k2.ingestion.shard import Role
from k2.kafka.transaction import transactional_id
from simulation import mutations
from simulation.capture_node import capture_main, limited, sim_settings
from simulation.mutations import Mutation
from simulation.run import quiet
from simulation.variation import Limits
from simulation.world.checker import is_caught_up, judge
from simulation.world.fault_strikes import glitches_of
from simulation.world.kafka_faults import CommitFate, KafkaFaults
from simulation.world.node import Node
from simulation.world.world import World, simulated_world


@pytest.fixture(autouse=True)
def _without_logs() -> None:
    quiet()


class Scene:
    """A world with shipped captures in it."""

    def __init__(self, world: World, limits: Limits, names: list[str], **settings: object) -> None:
        self.world = world
        self.captures: dict[str, Capture] = {}
        symbols = list(world.exchange.markets)
        main = capture_main(
            world, sim_settings(symbols, **settings), limits=limits, made=self.captures.__setitem__
        )
        for name in names:
            instance = world.add_instance(name, main)
            instance.restarts = False
            instance.start()
            world.run(for_s=2)

    @property
    def pages(self) -> int:
        return self.world.exchange.rest_state.pages

    def role(self, name: str) -> Role:
        return self.captures[name].shards[0].role

    def judge_at_end(self) -> None:
        self.world.exchange.halt()
        assert self.world.run_until(lambda: is_caught_up(self.world), within_s=200, every_s=5)
        assert judge(self.world).violations == []


@contextmanager
def scene(
    seed: int,
    names: list[str],
    *,
    rate_per_s: float = 8.0,
    limits: Limits | None = None,
    **settings: object,
) -> Iterator[Scene]:
    limits = limits or Limits()
    rates = {"BTCUSDT": rate_per_s}
    with limited(limits), simulated_world(seed, rates_per_s=rates, burst_share=0) as world:
        world.exchange.open(history=3)
        yield Scene(world, limits, names, **settings)


def pages_of_a_hand_over(seed: int) -> int:
    with scene(seed, ["blue", "green"], rate_per_s=40, batch_timeout_s=0.2) as one:
        one.world.run(for_s=12)
        assert (one.role("blue"), one.role("green")) == (Role.WRITER, Role.STANDBY)
        before = one.pages
        one.world.instances[0].terminate()
        assert one.world.run_until(lambda: one.role("green") is Role.WRITER, within_s=5)
        one.world.run(for_s=5)
        pages = one.pages - before
        one.judge_at_end()
        return pages


def test_a_hand_over_costs_no_rest() -> None:
    assert [pages_of_a_hand_over(seed) for seed in range(5)] == [0] * 5


@pytest.mark.parametrize(
    "mutation", [mutations.ring_dropped_at_take_over, mutations.standby_trims_all]
)
def test_without_the_ring_a_hand_over_costs_rest(mutation: Mutation) -> None:
    with mutation():
        assert any(pages_of_a_hand_over(seed) for seed in range(5))


def pages_of_rotations(seed: int) -> int:
    with scene(seed, ["blue"], rate_per_s=3, legs=1, connection_age_max_s=20.0) as one:
        one.world.run(for_s=10)
        before = one.pages
        one.world.run(for_s=200)
        pages = one.pages - before
        one.judge_at_end()
        return pages


def test_a_rotation_of_the_only_leg_costs_no_rest() -> None:
    assert pages_of_rotations(1) == 0


def test_a_rotation_that_closes_first_costs_rest() -> None:
    with mutations.rotation_closes_first():
        assert pages_of_rotations(1) > 0


def most_held(seed: int) -> int:
    with scene(seed, ["blue"], limits=Limits(hold_max=10, spill_max_bytes=0)) as one:
        world = one.world
        world.run(for_s=5)
        world.exchange.rest_state.down_until_s = world.loop.time() + 20
        for connection in world.exchange.connections:
            glitches_of(connection).skip["BTCUSDT"] += 1
        world.run(for_s=15)
        held = one.captures["blue"].shards[0]._hold.taken
        one.judge_at_end()
        return held


def test_a_hold_has_a_bound_and_what_was_let_go_comes_back() -> None:
    assert most_held(1) == 10


def test_a_hold_without_bound_is_noticed() -> None:
    with mutations.hold_without_bound():
        assert most_held(1) > 10


class OneReplyLost(KafkaFaults):
    def __init__(self) -> None:
        self.due = False

    def commit_fate(self, node: Node) -> CommitFate:
        if self.due:
            self.due = False
            return CommitFate.REPLY_LOST
        return super().commit_fate(node)


def fences_of_a_sleeper(mutation: Mutation) -> int:
    """A writer sleeps, having to initialise anew; return how often it fences its successor."""
    with scene(1, ["blue", "green"], rate_per_s=1e-6) as one, mutation():
        world, faults = one.world, OneReplyLost()
        market = world.exchange.markets["BTCUSDT"]
        world.kafka.faults = faults
        world.run(for_s=10)
        faults.due = True
        world.exchange.trade(market)
        log = one.captures["blue"].shards[0].log
        assert world.run_until(lambda: not log.initialised, within_s=30, every_s=0.1)
        world.instances[0].freeze(for_s=15)
        world.run(for_s=10)
        world.exchange.trade(market)
        world.run(for_s=3)
        assert one.role("green") is Role.WRITER
        name = transactional_id(world.topics.trades, 0)
        epoch = world.kafka.transactions.epoch_of(name)
        world.run(for_s=20)
        fences = world.kafka.transactions.epoch_of(name) - epoch
        one.judge_at_end()
        return fences


def test_a_sleeper_that_has_to_initialise_anew_looks_first() -> None:
    assert fences_of_a_sleeper(nullcontext) == 0


def test_a_sleeper_that_does_not_look_fences_a_healthy_writer() -> None:
    assert fences_of_a_sleeper(mutations.no_look_before_regaining) > 0
