"""The past comes later, downwards, restartable at any point: topic, repairs and lake stay one."""

import json

import pytest

from integration.harness import Room, read_topic, wait_for
from k2.market import IdRange, StreamKind
from k2.simulator import Ledger

pytestmark = pytest.mark.integration

PAST_IDS = 4_000


def test_a_backfill_is_killed_on_the_way_and_no_id_is_lost_or_doubled(room: Room) -> None:
    room.symbols = ("BTCUSDT", "ETHUSDT")
    room.exchange("--rate", "2000")
    ids = wait_for(lambda: long_past(room), what="a past to fill")
    room.control("trading", {"rate": 300})
    stream = room.stream()
    room.archive()
    room.wait_until_archiving()
    first_id = room.topic_records()["BTCUSDT"][0]["source_sequence"]
    # Ids below the exchange's first never existed; who asks does not know, the writer finds out.
    room.extra = {"BINANCE_REST_URL": "http://127.0.0.1:9"}
    room.k2("backfill", "--symbol", "BTCUSDT", "--from-id", str(ids.first_id - 678), "--no-wait")
    room.extra = {}
    # Mid-way, as far as one can tell: some pages are there, the rest is not.
    wait_for(lambda: repaired(room), what="the first page")
    stream.kill()
    stream.start()
    wait_for(lambda: min(repaired(room)) == ids.first_id, what="the backfill to end")
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    filled = repaired(room)
    assert sorted(filled) == list(range(ids.first_id, first_id)), "each id of the past once"
    wait_for(
        lambda: (
            next(o for o in room.proof().symbols if o.symbol == "BTCUSDT").first_id == ids.first_id
        ),
        what="the lake to have the past",
    )
    proof = room.proof()
    assert proof.complete, proof
    shown = json.loads(room.k2("positions", "show", "--json").stdout)[0]["record"]
    assert shown["position"]["symbols"]["BTCUSDT"]["first_id"] == ids.first_id
    assert not shown["position"].get("backfills")
    assert not shown["requests"]
    assert json.loads(room.k2("gaps", "--json").stdout)["gaps"] == []
    again = room.k2("backfill", "--symbol", "BTCUSDT", "--from-id", str(ids.first_id - 678))
    assert "nothing to do" in again.stdout
    assert "the exchange has nothing before" in again.stdout


def long_past(room: Room) -> IdRange | None:
    """Return the ids of BTCUSDT the exchange has, once they are many."""
    ids = Ledger.read(room.path / "exchange").range("BTCUSDT", StreamKind.AGG_TRADE)
    return ids if ids is not None and len(ids) > PAST_IDS else None


def repaired(room: Room) -> list[int]:
    """Return the ids of BTCUSDT in the repairs topic, in topic order."""
    bootstrap = room.stack.address.bootstrap
    records = read_topic(bootstrap, f"{room.topic}.repairs", poison=room.poison)
    return [record["source_sequence"] for record in records.get("BTCUSDT", [])]
