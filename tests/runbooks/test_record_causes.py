"""Causes in the record, the roles and the lake: the runbook's commands show each as it says."""

import json
import signal
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from integration.harness import Process, Room, read_messages, wait_for
from k2.lake.tables import open_catalog
from k2.market import StreamKind
from k2.simulator import Ledger
from runbooks.causes import Line, overlaid
from runbooks.desk import Desk

pytestmark = pytest.mark.integration

X = "BTCUSDT"


def test_holes_gaps_a_missing_heartbeat_and_what_keeps_the_lake_from_being_written(
    room: Room, desk: Desk
) -> None:
    room.symbols = (X, "ETHUSDT")
    room.extra["K2_HEAL_WAIT_MAX"] = "2"
    room.exchange("--rate", "100")
    room.stream()
    archive = desk.archive()
    room.wait_until_archiving()

    room.control("faults", {"status": 503, "count": 1000})
    room.control("stream-faults", {"fault": "skip", "count": 3, "symbol": X, "stream": "aggTrade"})
    desk.sees("hole-open")
    desk.sees("memory-hole")
    room.forget_faults()
    # Trades come and no PING does: that it is missing shows after 75 s, beside all the rest.
    room.control("stream-faults", {"fault": "mute_pings"})
    desk.sees_health("healthy")

    archive.kill()
    desk.sees("archive-away")
    archive.start()
    desk.sees_health("healthy")
    elsewhere = {"K2_ARCHIVE_METRICS_PORT": "0", "K2_ARCHIVE_HEALTH_PORT": "0"}
    other = desk.archive(**elsewhere)
    desk.sees("archive-two")
    wait_for(lambda: archive.running != other.running, what="one archive to be left")
    for one in (archive, other):
        if one.running:
            one.end()
    archive.start()
    room.wait_until_archived(room.newest_ids())
    keep_the_lake_away(room, desk, archive)

    lose_three_ids(room)
    desk.sees("gap-open")
    desk.sees("heartbeat-missing", deadline_s=120)


def test_a_new_version_is_judged_let_in_and_takes_over_and_a_difference_is_told(
    room: Room, desk: Desk
) -> None:
    room.symbols = (X,)
    room.exchange("--rate", "100")
    first = room.stream()
    desk.archive()
    room.wait_until_archiving()
    second = desk.second("--role", "observer")
    desk.sees("green-judged")
    tell_otherwise(room, desk)
    desk.sees("standby-differs")
    # The runbook's own order: let it in, then stop the old one.
    second.signal(signal.SIGUSR1)
    wait_for(lambda: desk.health(8002)["member"], what="the second instance to be a member")
    assert first.end() == 0
    desk.sees("green-writes")


def test_a_deaf_writer_and_one_that_did_not_run_give_way(room: Room, desk: Desk) -> None:
    room.symbols = (X,)
    room.exchange("--rate", "200")
    port = urlsplit(room.exchange_url).port
    assert port is not None
    direct = _heard_at(f"127.0.0.1:{port}")
    with Line(room.stack, port) as line:
        room.extra |= _heard_at(line.address)
        first = room.stream()
        desk.archive()
        room.wait_until_archiving()
        second = desk.second(**direct)
        wait_for(lambda: _role(desk, 8002) == "standby", what="a standby")
        line.cut()
        desk.sees("gave-way-deaf")
        wait_for(lambda: _role(desk, 8002) == "writer", what="the other to write")
        line.mend()
        wait_for(lambda: desk.health()["member"], what="the first to be a member again")
        assert second.end() == 0
        wait_for(lambda: _role(desk) == "writer", what="the first to write again")

        third = desk.second(**direct)
        wait_for(lambda: _role(desk, 8002) == "standby", what="a standby")
        first.signal(signal.SIGSTOP)
        wait_for(lambda: _role(desk, 8002) == "writer", what="the other to write")
        first.signal(signal.SIGCONT)
        desk.sees("gave-way-paused")
        assert (first.end(), third.end()) == (0, 0)


def _heard_at(address: str) -> dict[str, str]:
    """Return the settings of an instance both legs of which connect there."""
    return dict.fromkeys(("BINANCE_WS_URL", "BINANCE_WS_URL_FALLBACK"), f"ws://{address}/ws")


def _role(desk: Desk, port: int = 8001) -> str:
    """Return what an instance is to its one shard."""
    shards = desk.health(port).get("shards") or [{"role": "none yet"}]
    return str(shards[0]["role"])


def test_no_writer_a_refusal_its_repair_and_a_doubled_record(room: Room, desk: Desk) -> None:
    room.symbols = (X,)
    room.exchange("--rate", "100")
    stream = room.stream()
    archive = desk.archive()
    room.wait_until_archiving()
    assert stream.end() == 0
    observer = room.stream("--role", "observer")
    wait_for(lambda: desk.health().get("role") == "observer", what="the observer to answer")
    # That nobody writes shows after 15 s; meanwhile others are refused.
    assert room.stream().wait() == 1
    desk.sees("refused-port")
    log = str(desk.log("binance_client"))
    assert desk.second("--symbols", "DOGEUSDT", K2_LOG_FILE=log).wait() == 1
    desk.sees("refused-symbols")
    desk.sees("setting-wrong")
    desk.sees("no-writer")
    assert observer.end() == 0

    write_first_record_again(room)
    desk.sees("topic-duplicates")
    assert room.stream().wait() == 1
    desk.sees("refused")
    delete_topic(room, f"{room.topic}.positions")
    assert room.stream().wait() == 1
    desk.sees("refused-no-position")
    room.k2("positions", "rebuild", "--from-topic")
    stream = room.stream()
    desk.sees("refusal-repaired")

    assert archive.end() == 0
    standby = desk.second(K2_LOG_FILE=log)
    wait_for(
        lambda: [one["role"] for one in desk.health(8002).get("shards", [])] == ["standby"],
        what="a standby",
    )
    delete_topic(room, room.topic)  # under its writer
    desk.sees("topic-missing")
    stream.kill()
    desk.sees("takeover-stalled")
    standby.kill()
    assert room.stream().wait() == 1
    desk.sees("refused-new-topic")


def delete_topic(room: Room, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    admin.delete_topics([topic])[topic].result(10)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, what=f"{topic} to be gone")


def keep_the_lake_away(room: Room, desk: Desk, archive: Process) -> None:
    """Have its files, its catalog and its table be no good in turn, and mend each."""
    with overlaid(room.lake_dir / "warehouse"):
        desk.sees("lake-storage-away")
    room.wait_until_archived(room.newest_ids())

    assert archive.end() == 0
    with overlaid(room.lake_dir / "catalog.db"):
        archive.start()
        desk.sees("lake-catalog-away")
    room.wait_until_archived(room.newest_ids())

    assert archive.end() == 0
    table = open_catalog(lake_dir=room.lake_dir).load_table("crypto.trades")
    table.append(table.scan(limit=1).to_arrow())
    assert archive.start().wait() == 1
    desk.sees("lake-table-changed")
    desk.sees("lake-table-restored")
    archive.start()
    room.wait_until_archived(room.newest_ids())
    assert room.proof().complete


def write_first_record_again(room: Room) -> None:
    """Do what another program would that writes to the topic."""
    first = read_messages(room.stack.address.bootstrap, room.topic)[0]
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    producer.produce(room.topic, first.value(), key=first.key(), partition=0)
    assert producer.flush(10) == 0


def lose_three_ids(room: Room) -> None:
    """Have three ids that no source has."""
    newest = room.stop_trading()[X]
    which = {"symbol": X, "stream": "aggTrade"}
    room.control("stream-faults", {"fault": "skip", "count": 3, **which})
    missing = {"first_id": newest + 1, "last_id": newest + 3, **which}
    room.control("rest", {"missing": missing})
    room.control("trading", {"on": True})


def tell_otherwise(room: Room, desk: Desk) -> None:
    """Have the second instance hear a trade before it happens, and not as it will happen."""
    newest = room.stop_trading()[X]
    wait_for(
        lambda: desk.health(8002)["shards"][0]["symbols"][X] == newest,
        what="the second instance to have seen all",
    )
    ledger = Ledger.read(room.path / "exchange")
    (last,) = ledger.rows(X, StreamKind.AGG_TRADE, from_id=newest, limit=1)
    told = {
        "e": "aggTrade",
        "E": last.event_ts_us,
        "s": X,
        "a": newest + 1,
        "p": "1",
        "q": "1",
        "f": last.last_trade_id + 1,
        "l": last.last_trade_id + 1,
        "T": last.trade_ts_us,
        "m": True,
    }
    heard = desk.health(8002)["messages_received"]
    for connection in room.connections()[-2:]:
        order = {"fault": "malformed", "text": json.dumps(told), "which": connection}
        room.control("stream-faults", order)
    wait_for(
        lambda: desk.health(8002)["messages_received"] > heard,
        what="the second instance to have heard it",
    )
    room.control("trading", {"on": True})
