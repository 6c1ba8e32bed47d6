from collections.abc import Iterator

import msgspec
import pytest

from k2.market import StreamKind
from k2.simulator.database import Database, MissingRows
from k2.simulator.ledger import Ledger
from k2.simulator.rest_rules import RowsRequest
from k2.simulator.rows import TapeRow

AGG, FILL = StreamKind.AGG_TRADE, StreamKind.TRADE


def _rows(first_id: int, last_id: int, kind: StreamKind = AGG) -> list[TapeRow]:
    return [
        TapeRow("BTCUSDT", kind, n, "1.00000000", "1.00000000", n, n, 1000 * n, 1000 * n, True)
        for n in range(first_id, last_id + 1)
    ]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger.write(None) as opened:
        opened.append(_rows(1, 100) + _rows(1, 100, FILL))
        yield opened


def _find(
    database: Database, kind: StreamKind = AGG, *, now_s: float = 0.0, limit: int = 5, **by: int
) -> list[int]:
    wanted = RowsRequest(symbol="BTCUSDT", limit=limit, **by)
    return [row.row_id for row in database.find(wanted, kind, now_s=now_s)]


def _missing(first_id: int, last_id: int, **more: object) -> MissingRows:
    fields = {"symbol": "BTCUSDT", "first_id": first_id, "last_id": last_id}
    return msgspec.convert(fields | more, MissingRows)


def test_missing_rows_are_passed_over_and_do_not_use_up_the_limit(ledger: Ledger) -> None:
    database = Database(ledger, delay_s=0)
    database.miss(_missing(12, 15), now_s=0)
    database.miss(_missing(16, 17), now_s=0)
    database.miss(_missing(98, 99), now_s=0)
    assert _find(database, from_id=10) == [10, 11, 18, 19, 20]
    assert _find(database, from_id=13) == [18, 19, 20, 21, 22]
    assert _find(database) == [94, 95, 96, 97, 100]
    assert _find(database, from_id=97) == [97, 100]
    assert _find(database, start_ts_us=11_000, end_ts_us=19_000) == [11, 18, 19]
    assert _find(database, FILL, from_id=13) == [13, 14, 15, 16, 17]
    database.miss(_missing(50, 2**62), now_s=0)
    assert _find(database, from_id=48) == [48, 49]
    assert _find(database) == [45, 46, 47, 48, 49]
    database.miss(_missing(0, 49), now_s=0)
    assert _find(database) == []
    database.miss_nothing()
    assert _find(database, from_id=12) == [12, 13, 14, 15, 16]


def test_missing_rows_come_back_after_their_time(ledger: Ledger) -> None:
    database = Database(ledger, delay_s=0)
    database.miss(_missing(1, 3, duration_s=2.0), now_s=10)
    assert _find(database, from_id=1, now_s=11.9) == [4, 5, 6, 7, 8]
    assert len(database.describe_missing(11.9)) == 1
    assert _find(database, from_id=1, now_s=12) == [1, 2, 3, 4, 5]
    assert database.describe_missing(12) == []


def test_the_delay_changes_while_running_and_what_was_shown_stays_shown(ledger: Ledger) -> None:
    database = Database(ledger, delay_s=0)

    def publish(first_id: int, last_id: int, now_s: float) -> None:
        rows = _rows(first_id, last_id)
        database.lag.published(rows, now_s, lambda _symbol, _kind: first_id - 1)
        ledger.append(rows)

    publish(101, 110, 0)
    assert _find(database, limit=1) == [110]
    database.lag.change(3, now_s=1)
    publish(111, 120, 2)
    assert _find(database, limit=1, now_s=2) == [110]
    publish(121, 130, 4)
    assert _find(database, limit=1, now_s=5) == [120]
    # Longer: nothing shown goes back; shorter: what is old enough comes at once.
    database.lag.change(10, now_s=5)
    assert _find(database, limit=1, now_s=13.9) == [120]
    database.lag.change(1, now_s=6)
    assert _find(database, limit=1, now_s=6) == [130]
    publish(131, 140, 7)
    database.lag.change(0, now_s=7)
    assert _find(database, limit=1, now_s=7) == [140]
    publish(141, 150, 8)
    database.lag.change(5, now_s=9)
    publish(151, 160, 10)
    assert _find(database, limit=1, now_s=14.9) == [150]
    assert _find(database, limit=1, now_s=15) == [160]


@pytest.mark.parametrize(("first_id", "last_id"), [(5, 4), (-1, 4)])
def test_a_range_without_ids_is_refused(first_id: int, last_id: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        _missing(first_id, last_id)
