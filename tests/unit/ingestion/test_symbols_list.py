from types import SimpleNamespace
from typing import Any

from k2.ingestion.symbols_list import SymbolLine, symbol_lines
from k2.kafka.position import Identity, ShardPosition, ShardRecord, SymbolPosition
from k2.market.wanted import parse_lines

WANTED = parse_lines("BTCUSDT\nNEWUSDT")


def test_each_symbol_says_whether_it_is_recorded_wanted_and_why_not() -> None:
    identity = Identity("BINANCE", "production", "aggTrade", {}, 1, ["BTCUSDT"])
    position = ShardPosition({name: SymbolPosition(9, 8, 0) for name in ("BTCUSDT", "OLDUSDT")})
    records = [ShardRecord(identity, position)]
    room: Any = SimpleNamespace(partitions=1, record=lambda shard: records[shard])
    assert symbol_lines(WANTED, room) == [
        SymbolLine("BTCUSDT", recorded=True, wanted=True, shard=0, next_id=9, note=""),
        SymbolLine(
            *("NEWUSDT", False, True, None, None),
            note="no `k2 stream` has taken it up",
        ),
        SymbolLine("OLDUSDT", recorded=False, wanted=False, shard=0, next_id=9, note=""),
    ]


def test_without_kafka_what_is_wanted_is_told_all_the_same() -> None:
    assert [(one.symbol, one.recorded, one.note) for one in symbol_lines(WANTED, None)] == [
        ("BTCUSDT", None, ""),
        ("NEWUSDT", None, ""),
    ]
