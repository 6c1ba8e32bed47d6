from types import SimpleNamespace
from typing import Any, cast

from k2.ingestion.active_set import ActiveSet
from k2.kafka.position import NOTHING_RECORDED, Identity, ShardRecord


def recorded_by(*symbols: str) -> ShardRecord:
    return ShardRecord(Identity("binance", "simulated", "aggTrade", {}, 2, list(symbols)), None)


def test_only_a_log_that_names_the_symbols_says_that_one_has_left() -> None:
    logs = [SimpleNamespace(record=NOTHING_RECORDED) for _ in range(2)]
    terms: Any = [
        SimpleNamespace(shard=SimpleNamespace(settings=SimpleNamespace(shard=n), log=log))
        for n, log in enumerate(logs)
    ]
    unused = cast("Any", None)
    active = ActiveSet(
        unused, unused, terms=terms, legs=unused, intake=unused, duties=unused, listed={}
    )
    assert active.recorded() == set()
    logs[0].record, logs[1].record = recorded_by("A", "B"), recorded_by("C")
    assert active.recorded() == {"A", "B", "C"}
    logs[1].record = NOTHING_RECORDED  # its topic was deleted and made again
    assert active.recorded() == {"A", "B", "C"}
    logs[0].record = recorded_by("B")
    assert active.recorded() == {"B", "C"}
