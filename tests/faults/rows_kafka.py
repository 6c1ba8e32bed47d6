"""Kafka and the registry dying, hanging and being away."""

import os
import signal

from faults.bench import Bench
from faults.matrix import row

GROUP = "Kafka and the registry"


@row(GROUP, "The broker is killed (SIGKILL) and started again at once.")
def broker_killed(bench: Bench) -> None:
    with bench.fault():
        _kill_broker(bench)
        bench.stack.call(bench.stack.stack.restart_broker())


@row(GROUP, "The broker is stopped (SIGSTOP) for 20 s.")
def broker_stopped_20_s(bench: Bench) -> None:
    broker = bench.stack.pids["kafka"]
    with bench.fault():
        os.kill(broker, signal.SIGSTOP)
        try:
            bench.go_on(20)
        finally:
            os.kill(broker, signal.SIGCONT)


@row(GROUP, "The broker is killed and stays away for 2 min.")
def broker_down_2_min(bench: Bench) -> None:
    with bench.fault():
        _kill_broker(bench)
        try:
            bench.go_on(120)
        finally:
            bench.stack.call(bench.stack.stack.restart_broker())
    bench.figures["rss_peak_kafka_down_mb"] = bench.load.rss_peak_mb()


@row(
    GROUP,
    "The broker is killed and stays away for 20 s, with a standby.",
    instances=2,
)
def broker_down_20_s_with_standby(bench: Bench) -> None:
    with bench.fault():
        _kill_broker(bench)
        try:
            bench.go_on(20)
        finally:
            bench.stack.call(bench.stack.stack.restart_broker())


@row(
    GROUP,
    "The registry is away when the process starts, for 5 s.",
    instances=0,
)
def registry_down_at_start(bench: Bench) -> None:
    with bench.fault():
        bench.registry.break_off()
        bench.start_instance()
        bench.until(
            lambda: bench.first.count("dependency_not_available"), "the wait for the registry"
        )
        bench.go_on(5)
        bench.registry.order("accept")
    bench.until_written()


@row(
    GROUP,
    "The registry goes away for 10 s while the process writes.",
    pause_max_s=0.5,
)
def registry_down_while_running(bench: Bench) -> None:
    with bench.fault():
        bench.registry.break_off()
        bench.go_on(10)
        bench.registry.order("accept")


def _kill_broker(bench: Bench) -> None:
    os.kill(bench.stack.pids["kafka"], signal.SIGKILL)
    bench.stack.call(bench.stack.stack.watch())
