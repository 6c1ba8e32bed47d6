"""REST that refuses, fails, is slow or trails, just when it is needed."""

from faults.bench import Bench
from faults.matrix import row

GROUP = "REST, while both legs were reset and must be healed"


@row(GROUP, "The next 3 calls answer 429 with `Retry-After: 2`.", quick=True)
def rest_429(bench: Bench) -> None:
    _heal_against(bench, status=429, count=3, retry_after_s=2)


@row(GROUP, "The next call answers 418 with `Retry-After: 10`.")
def rest_418(bench: Bench) -> None:
    _heal_against(bench, status=418, count=1, retry_after_s=10)


@row(GROUP, "The next 40 calls answer 403 with HTML.")
def rest_403(bench: Bench) -> None:
    _heal_against(bench, status=403, count=40)


@row(GROUP, "The next 40 calls answer 451.")
def rest_451(bench: Bench) -> None:
    _heal_against(bench, status=451, count=40)


@row(GROUP, "The next 20 calls answer 500, then 20 answer 503.")
def rest_5xx(bench: Bench) -> None:
    bench.rest_fault(status=500, count=20)
    _heal_against(bench, status=503, count=20)


@row(
    GROUP,
    "The next 5 calls never answer within the client's 10 s, then 20 take 2 s.",
)
def rest_slow(bench: Bench) -> None:
    bench.rest_fault(delay_s=15, count=5)
    _heal_against(bench, delay_s=2, count=20)


@row(GROUP, "REST trails the stream by 5 s.")
def rest_lags(bench: Bench) -> None:
    bench.rest_shows(delay_s=5)
    bench.go_on(1)
    with bench.fault():
        bench.drop("abort")


def _heal_against(bench: Bench, **fault: object) -> None:
    bench.rest_fault(**fault)
    with bench.fault():
        bench.drop("abort")
