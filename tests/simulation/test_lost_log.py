"""A broker comes back without the end of its log: power was lost, or an unclean leader elected."""

import pytest

from simulation.capture_node import capture_main, sim_settings
from simulation.run import quiet
from simulation.world.checker import is_caught_up, judge
from simulation.world.kafka_faults import CommitFate, KafkaFaults
from simulation.world.node import Node
from simulation.world.world import simulated_world

LOST = 10
"""Transactions, acknowledged and gone."""


class OnceRefused(KafkaFaults):
    """Refuses one batch: the broker knows the producer's sequence no more."""

    due = False

    def commit_fate(self, node: Node) -> CommitFate:
        del node
        due, self.due = self.due, False
        return CommitFate.ABORTABLE if due else CommitFate.FINE


@pytest.mark.parametrize("seed", range(4))
def test_a_writer_that_lives_on_writes_again_what_kafka_has_lost(seed: int) -> None:
    quiet()
    with simulated_world(seed, rates_per_s={"BTCUSDT": 3.0}) as world:
        world.kafka.faults = faults = OnceRefused()
        instance = world.add_instance("one", capture_main(world, sim_settings(["BTCUSDT"])))
        instance.start()
        world.exchange.open(history=30)
        world.run(for_s=60)
        world.kafka.go_down()
        world.run(for_s=3)
        for topic in (world.topics.trades, world.topics.positions):
            world.kafka.logs[topic, 0].lose_end(LOST)
        faults.due = True
        world.kafka.come_up()
        world.run(for_s=60)
        world.exchange.halt()
        assert world.run_until(lambda: is_caught_up(world), within_s=200)
        assert not faults.due
        assert judge(world).violations == []
        assert instance.exits == []
