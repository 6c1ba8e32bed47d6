"""A real process that leaks, or only fragments, watched by the shipped watch in scaled time.

Each turn of the workload stands for the 30 s between two samples; memory is the real process's.
"""

import json
import os
import random
import sys
from collections.abc import Callable, Iterator

from k2.observability.leak import HOUR, MB
from k2.observability.memory import MemoryWatch, own_memory

TURNS_PER_HOUR = 120
HELD_BYTES = 20 * MB


def leak(mb_per_h: float) -> Iterator[None]:
    """Forget to let go of a little each turn, beside ordinary churn."""
    kept: list[bytes] = []
    while True:
        kept.append(os.urandom(int(mb_per_h * MB / TURNS_PER_HOUR)))
        churned = [bytes(size) for size in range(1, 4000)]
        del churned
        yield


def fragment() -> Iterator[None]:
    """Hold as many bytes as ever, in objects of changing sizes.

    Each turn a part of them is let go, here and there, and as many bytes are taken anew, each half
    hour in another size: small holes do not fit larger objects, so that the heap grows until
    enough of them meet. Once a large block is taken and kept; now and then a backlog comes and
    goes.
    """
    rng = random.Random(11)
    live: list[bytes] = []
    held_bytes, block = 0, b""
    for turn in range(1_000_000):
        size_bytes = (600, 1700, 1000, 2900)[turn // 60 % 4]
        rng.shuffle(live)
        while live and held_bytes > 0.8 * HELD_BYTES:
            held_bytes -= len(live.pop())
        while held_bytes < HELD_BYTES:
            live.append(bytes(size_bytes + rng.randrange(200)))
            held_bytes += len(live[-1])
        if turn == 2 * TURNS_PER_HOUR:
            block = os.urandom(60 * MB)
        if turn % 90 == 80:
            backlog = [bytes(rng.randrange(100, 50_000)) for _ in range(1000)]
            yield
            del backlog
        yield
    del block


def watched(workload: Iterator[None], *, hours: float) -> dict[str, float]:
    """Run it for so many hours of scaled time; return last and worst score, first and last RSS."""
    now_s = 0.0
    watch = MemoryWatch(read=own_memory, monotonic_s=lambda: now_s)
    worst, sizes_mb = 0.0, []
    for _turn in range(int(hours * TURNS_PER_HOUR)):
        next(workload)
        watch.take_sample()
        now_s += HOUR.sample_every_s
        worst = max(worst, watch.leak_score)
        sizes_mb.append(watch.use().rss_bytes / MB)
    return {
        "score": watch.leak_score,
        "worst": worst,
        "first_mb": sizes_mb[0],
        "last_mb": sizes_mb[-1],
    }


WORKLOADS: dict[str, Callable[[], dict[str, float]]] = {
    "leak": lambda: watched(leak(60), hours=1),
    "slow-leak": lambda: watched(leak(2.2), hours=8),
    "fragment": lambda: watched(fragment(), hours=7),
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(WORKLOADS[sys.argv[1]]()) + "\n")
