from types import SimpleNamespace
from typing import Any

import pytest

from k2.errors import RejectError
from k2.ingestion.known_symbols import require_known
from k2.kafka.position import Identity, ShardPosition, ShardRecord, SymbolPosition


def room(*records: ShardRecord) -> Any:
    return SimpleNamespace(
        names=SimpleNamespace(trades="t"),
        partitions=len(records),
        record=lambda shard: records[shard],
    )


RECORDED = ShardRecord(Identity("BINANCE", "production", "aggTrade", {}, 2, ["NEWUSDT"]), None)
TAPED = ShardRecord(None, ShardPosition({"OLDUSDT": SymbolPosition(9, 8, 0)}))


def test_a_symbol_is_known_by_its_tape_or_by_being_recorded() -> None:
    require_known(room(RECORDED, TAPED), {"NEWUSDT", "OLDUSDT"})
    with pytest.raises(RejectError, match="no tape of NOPE NOSUCH, it has NEWUSDT OLDUSDT"):
        require_known(room(RECORDED, TAPED), {"NEWUSDT", "NOSUCH", "NOPE"})
    with pytest.raises(RejectError, match="it has none at all"):
        require_known(room(ShardRecord(None, None)), {"NOPE"})


def test_without_a_name_nothing_is_read() -> None:
    def unread(_shard: int) -> ShardRecord:
        raise AssertionError("read")

    nobody = room(RECORDED)
    nobody.record = unread
    require_known(nobody, set())
