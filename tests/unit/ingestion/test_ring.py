import pytest

from k2.ingestion import ring
from k2.ingestion.ring import Item, Ring
from k2.market import Gap, GapClass, IdRange
from k2.tape.arbiter import Placed
from unit.trades import trade


def _items(first: int, last: int) -> list[Item]:
    return [Placed(trade(source_id), None) for source_id in range(first, last + 1)]


def test_the_rings_of_a_process_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 10)
    one = Ring(rings=2)
    one.put(_items(1, 4))
    assert not one.full
    one.put(_items(5, 5))
    assert one.full
    one.put(_items(6, 8))
    one.let_go_of_oldest()
    assert len(one) == 5
    assert one.passed == 3


def test_every_item_that_came_in_is_accounted_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "RING_MAX", 100)
    one = Ring()
    one.put(_items(1, 10))
    one.landed(3)
    one.keep(lambda item: isinstance(item, Placed) and item.trade.source_id != 5)
    assert (one.queued, one.written, one.passed, len(one)) == (10, 3, 1, 6)
    assert one.balances
    assert len(one.empty()) == 6
    assert one.balances
    one.put([*_items(12, 13), Gap("BTCUSDT", IdRange(14, 15), GapClass.MISSING, "why")])
    assert (one.queued, one.trades) == (13, 12)
    assert one.balances
    one.append(_items(11, 11)[0])
    assert not one.balances, "something came in past the account"
