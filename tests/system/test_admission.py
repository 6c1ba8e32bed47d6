"""Who may write: refusals with the command that repairs each, absent dependencies."""

import json
import socket

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from integration.harness import Room, read_topic, read_values, wait_for
from k2.kafka.transaction import transactional_id

pytestmark = pytest.mark.integration


def record_some(room: Room) -> None:
    """Start a tape, and end its writer cleanly."""
    stream = room.stream()
    wait_for(
        lambda: stream.events("took_over") and set(room.topic_records()) == set(room.symbols),
        what="every symbol to be recorded",
    )
    assert stream.end() == 0
    assert json.loads(stream.log().splitlines()[-1])["event"] == "Shutdown complete"


def refusal(room: Room, *flags: str) -> str:
    """Start the stream, expect it to stop by itself with 1, return why."""
    stream = room.stream(*flags, name="refused")
    assert stream.wait() == 1, stream.log()
    return str(stream.events("stream_stopped")[-1]["reason"])


def ids_of(room: Room, symbol: str) -> list[int]:
    return [record["source_sequence"] for record in room.topic_records()[symbol]]


def delete_topic(room: Room, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    for future in admin.delete_topics([topic]).values():
        future.result(10)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, what="the topic to go")


def test_a_topic_of_another_stream_kind_is_refused_and_its_writer_goes_on(room: Room) -> None:
    room.exchange("--rate", "400")
    writer, archive = room.stream(), room.archive()
    room.wait_until_archiving()
    why = refusal(room, "--stream", "trade")
    assert "stream_kind 'aggTrade'" in why
    assert "KAFKA_TOPIC_PREFIX" in why
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    assert writer.running, "a process that is refused must not end a healthy writer"
    assert archive.running
    room.check_promise(newest)


def test_deleted_positions_are_refused_and_rebuilt_from_the_topic(room: Room) -> None:
    room.exchange("--rate", "400")
    room.archive()
    record_some(room)
    delete_topic(room, f"{room.topic}.positions")
    why = refusal(room)
    assert "k2 positions rebuild --from-topic" in why
    room.k2("positions", "rebuild", "--from-topic")
    room.stream(name="again")
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)
    shown = json.loads(room.k2("positions", "show", "--json").stdout)
    next_ids = {s: p["next_id"] for s, p in shown[0]["record"]["position"]["symbols"].items()}
    assert next_ids == {symbol: last + 1 for symbol, last in newest.items()}


def test_positions_are_rebuilt_over_a_transaction_a_dead_writer_left_open(room: Room) -> None:
    room.exchange("--rate", "400")
    record_some(room)
    dead = Producer(
        {
            "bootstrap.servers": room.stack.address.bootstrap,
            "transactional.id": transactional_id(room.topic, 0),
        }
    )
    dead.init_transactions(10)
    dead.begin_transaction()
    dead.produce(f"{room.topic}.gaps", value=b"never committed", partition=0)
    dead.flush(10)
    room.k2("positions", "rebuild", "--from-topic")
    room.stream(name="again")
    newest = room.stop_trading()
    wait_for(
        lambda: all(ids_of(room, s)[-1] == newest[s] for s in room.symbols),
        what="the tape to go on to the newest ids",
    )


def test_a_topic_created_again_is_refused(room: Room) -> None:
    room.exchange("--rate", "400")
    record_some(room)
    delete_topic(room, room.topic)
    why = refusal(room)
    assert "was deleted and created again" in why
    assert "k2 positions rebuild --from-topic" in why
    shown = json.loads(room.k2("positions", "show", "--json").stdout)[0]["record"]
    ends = {s: p["next_id"] for s, p in shown["position"]["symbols"].items()}
    room.k2("positions", "rebuild", "--from-topic")
    again = room.stream(name="again")
    wait_for(
        lambda: again.events("took_over") and set(room.topic_records()) == set(room.symbols),
        what="the tape to go on",
    )
    first = {s: records[0]["source_sequence"] for s, records in room.topic_records().items()}
    assert first == ends, "it goes on where it ended, in the new topic"


def test_a_lost_kafka_goes_on_from_the_lake(room: Room) -> None:
    room.exchange("--rate", "400")
    archive = room.archive()
    record_some(room)
    room.wait_until_archived({s: r[-1]["source_sequence"] for s, r in room.topic_records().items()})
    assert archive.end() == 0
    for topic in (room.topic, f"{room.topic}.positions", f"{room.topic}.gaps"):
        delete_topic(room, topic)
    room.k2("positions", "rebuild", "--from-lake")
    room.stream(name="again")
    refused = room.archive()
    assert refused.wait() == 1
    assert "k2 archive --from-first" in refused.events("archive_stopped")[-1]["reason"]
    room.archive("--from-first")
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    assert room.proof().complete, room.proof()


def test_somebody_elses_trade_at_the_end_of_the_topic_is_refused(room: Room) -> None:
    room.exchange("--rate", "400")
    record_some(room)
    values = [r for r in read_values(room.stack.address.bootstrap, room.topic) if r[:1] == b"\0"]
    producer = Producer({"bootstrap.servers": room.stack.address.bootstrap})
    producer.produce(room.topic, value=values[0], key=b"BTCUSDT", partition=0)
    producer.flush(10)
    records = read_topic(room.stack.address.bootstrap, room.topic, poison=room.poison)
    stranger = next(s for s, r in records.items() if len(r) > len({x["message_id"] for x in r}))
    why = refusal(room)
    assert "the position says" in why
    assert "k2 positions show" in why
    assert "k2 positions rebuild --from-topic" in why
    room.k2("positions", "rebuild", "--from-topic")
    again = room.stream(name="again")
    newest = room.stop_trading()
    wait_for(
        lambda: (
            again.events("took_over")
            and all(ids_of(room, s)[-1] == newest[s] for s in room.symbols)
        ),
        what="the tape to go on to the newest ids",
    )
    foreign = 1  # the one somebody else put there stays
    for symbol in room.symbols:
        ids = ids_of(room, symbol)
        doubled = len(ids) - len(set(ids))
        assert doubled == (foreign if symbol == stranger else 0), symbol
        assert set(ids) == set(range(min(ids), newest[symbol] + 1)), symbol


def test_an_exchange_whose_ids_were_reset_is_refused(room: Room) -> None:
    exchange = room.exchange("--rate", "400")
    record_some(room)
    exchange.kill()
    for path in (room.path / "exchange").iterdir():
        path.unlink()
    room.exchange("--rate", "0.001")
    assert "its ids were reset" in refusal(room)


def test_a_shorter_list_of_symbols_ends_no_tape(room: Room) -> None:
    room.exchange("--rate", "400")
    room.archive()
    record_some(room)
    stream = room.stream("--symbols", "BTCUSDT", name="shorter")
    wait_for(lambda: stream.events("Subscribed"), what="the stream to subscribe")
    assert sorted(stream.events("Subscribed")[0]["symbols"]) == sorted(room.symbols)
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    room.check_promise(newest)


@pytest.mark.parametrize("absent", ["KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL", "BINANCE_REST_URL"])
def test_an_absent_dependency_is_one_clear_line_and_exit_4_when_told_to_fail_fast(
    room: Room, absent: str
) -> None:
    room.exchange("--rate", "10")
    with socket.socket() as held:  # bound, never listening: every connect is refused
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        room.extra[absent] = (
            f"127.0.0.1:{port}" if absent == "KAFKA_BOOTSTRAP" else f"http://127.0.0.1:{port}"
        )
        stream = room.stream("--fail-fast")
        assert stream.wait() == 4, stream.log()
    reason = stream.events("stream_stopped")[-1]["reason"]
    assert "is not available" in reason
    assert "\n" not in reason
    assert str(port) in reason


def test_an_absent_exchange_is_waited_for(room: Room) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    room.exchange_url = f"http://127.0.0.1:{port}"
    stream = room.stream()
    wait_for(lambda: stream.events("dependency_not_available"), what="one line about it")
    room.exchange("--rate", "400", "--port", str(port))
    wait_for(lambda: stream.events("Subscribed"), what="the stream to go on by itself")
    assert stream.end() == 0


def test_an_unlisted_symbol_is_exit_2_and_leaves_no_topics_beside_it(room: Room) -> None:
    room.exchange("--rate", "400")
    stream = room.stream("--symbols", "BTCUSDT", "NOSUCH")
    assert stream.wait() == 2, stream.log()
    assert stream.events("stream_stopped")[-1]["reason"] == (
        "the exchange does not list NOSUCH, named by --symbols or BINANCE_SYMBOLS; leave NOSUCH "
        "out there"
    )
    admin = AdminClient({"bootstrap.servers": room.stack.address.bootstrap})
    assert not [name for name in admin.list_topics(timeout=10).topics if room.prefix in name]
    # Beside a tape it is refused as well: it has never had one of its own.
    room.symbols = ("BTCUSDT",)
    record_some(room)
    assert room.stream("--symbols", "BTCUSDT", "NOSUCH").wait() == 2


def test_ports_in_use_are_named_together_before_anything_else(room: Room) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        metrics_port, health_port = one.getsockname()[1], other.getsockname()[1]
        room.exchange_url = "http://127.0.0.1:1"
        room.extra = {"K2_METRICS_PORT": str(metrics_port), "K2_HEALTH_PORT": str(health_port)}
        why = refusal(room)
    assert f"K2_METRICS_PORT={metrics_port}, K2_HEALTH_PORT={health_port}" in why


def test_invalid_settings_are_exit_2_before_any_socket(room: Room) -> None:
    room.exchange_url = "http://127.0.0.1:1"
    room.extra["BINANCE_BATCH_TIMEOUT"] = "soon"
    stream = room.stream()
    assert stream.wait() == 2
    assert "BINANCE_BATCH_TIMEOUT='soon': expected" in stream.log()
    assert len(stream.log().splitlines()) == 1
