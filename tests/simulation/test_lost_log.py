"""A broker comes back without the end of its log: power was lost, or an unclean leader elected."""

from dataclasses import dataclass

import pytest

from k2.ingestion.supervision import first_of
from simulation.capture_node import capture_main, sim_settings
from simulation.run import quiet
from simulation.world.checker import is_caught_up, judge
from simulation.world.kafka_faults import CommitFate, KafkaFaults
from simulation.world.node import Node
from simulation.world.world import Exit, simulated_world

LOST = 10
"""Transactions, acknowledged and gone."""


class OnceRefused(KafkaFaults):
    """Refuses one batch: the broker knows the producer's sequence no more."""

    due = False

    def commit_fate(self, node: Node) -> CommitFate:
        del node
        due, self.due = self.due, False
        return CommitFate.ABORTABLE if due else CommitFate.FINE


@dataclass
class Loss:
    """What became of a capture whose broker lost the end of some topics."""

    violations: list[str]
    exits: list[Exit]


def lose(seed: int, *topics: str) -> Loss:
    """Let a broker be down for a moment and come back without the end of these topics."""
    quiet()
    with simulated_world(seed, rates_per_s={"BTCUSDT": 3.0}) as world:
        world.kafka.faults = faults = OnceRefused()
        instance = world.add_instance("one", capture_main(world, sim_settings(["BTCUSDT"])))
        instance.start()
        world.exchange.open(history=30)
        world.run(for_s=60)
        world.kafka.go_down()
        world.run(for_s=3)
        for name in topics:
            world.kafka.logs[getattr(world.topics, name), 0].lose_end(LOST)
        faults.due = True
        world.kafka.come_up()
        world.run(for_s=60)
        world.exchange.halt()
        world.run_until(lambda: is_caught_up(world), within_s=200)
        assert not faults.due
        return Loss(judge(world).violations, instance.exits)


# With 23 and 70 the position is asked for while its follower does not know of the loss yet.
@pytest.mark.parametrize("seed", [0, 1, 2, 23, 70])
def test_a_writer_that_lives_on_writes_again_what_kafka_has_lost(seed: int) -> None:
    assert lose(seed, "trades", "positions") == Loss([], [])


@pytest.mark.parametrize("seed", range(3))
def test_trades_lost_below_their_position_are_refused_with_the_repair(seed: int) -> None:
    ends = lose(seed, "trades").exits
    assert ends, "it does not write on"
    for end in ends:  # it is started again, and refuses each time
        assert isinstance(end.error, ExceptionGroup)
        assert "k2 positions rebuild --from-topic" in str(first_of(end.error))
