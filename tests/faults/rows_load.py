"""No fault at all: what the capture costs."""

import time

from faults.bench import Bench
from faults.matrix import row

GROUP = "No fault: memory and CPU"
SETTLE_S = 10.0
MEASURED_S = 40.0


@row(GROUP, "One instance with two legs.")
def steady(bench: Bench) -> None:
    _measure(bench)


@row(GROUP, "One instance with one leg.", settings={"BINANCE_LEGS": "1"})
def steady_one_leg(bench: Bench) -> None:
    _measure(bench)


@row(GROUP, "Two instances with two legs each.", instances=2)
def steady_two_instances(bench: Bench) -> None:
    _measure(bench)


def _measure(bench: Bench) -> None:
    bench.go_on(SETTLE_S)
    since_s = time.time()
    with bench.fault():
        bench.go_on(MEASURED_S)
    rss = bench.load.rss_mb(since_s=since_s)
    bench.figures["rss_mb"] = sum(rss.values())
    bench.figures["cores"] = bench.load.cores(since_s=since_s)
