from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from k2.errors import RetryError, StopError
from k2.ingestion import topic_archive
from k2.ingestion.archive_figures import RecordAccount
from k2.ingestion.reading_trouble import ASK_AGAIN_S
from k2.ingestion.topic_archive import HELD_FLUSHES_MAX, TopicArchive
from k2.kafka.dead_letters import DeadLetters
from k2.lake.commit_plan import Offsets, Source
from k2.lake.decoding import Undecodable
from k2.settings import Settings

FLUSH_ROWS = 10
TORN_FROM_ROWS = 6
NOWHERE = Path("nowhere")


class Message:
    def __init__(
        self, offset: int = 0, *, value: bytes = b"v", partition: int = 0, error: int | None = None
    ) -> None:
        self._offset, self._value, self._partition = offset, value, partition
        self._error = None if error is None else KafkaError(error)

    def error(self) -> KafkaError | None:
        return self._error

    def value(self) -> bytes:
        return self._value

    def partition(self) -> int:
        return self._partition

    def topic(self) -> str | None:
        return "t.repairs"

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self._offset


def end(partition: int = 0, *, at: int = 0) -> Message:
    return Message(at, partition=partition, error=KafkaError._PARTITION_EOF)


class FakeConsumer:
    """Gives out what a test lays ready, one list per poll."""

    made: "FakeConsumer"

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.ready: list[list[Message]] = []
        self.assigned: dict[int, int] = {}
        self.sought: list[tuple[int, int]] = []
        FakeConsumer.made = self

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = {one.partition: one.offset for one in partitions}

    def consume(self, _records: int, _timeout_s: float) -> list[Message]:
        return self.ready.pop(0) if self.ready else []

    def get_watermark_offsets(self, _tp: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached, "a request in every turn would cost what it measures"
        return 0, 20

    def seek(self, place: TopicPartition) -> None:
        self.sought.append((place.partition, place.offset))

    def commit(self, **_how: Any) -> None: ...


class FakeFigures:
    """Keeps what it is told."""

    made: "FakeFigures"

    def __init__(self) -> None:
        self.lags: list[tuple[int, int, int | None]] = []
        self.commits: list[list[int]] = []
        self.unaccounted: list[int] = []

    def waiting(self, records: int) -> None: ...

    def accounted(self, account: RecordAccount, *, waiting: int) -> None:
        self.unaccounted.append(account.unaccounted(waiting=waiting))

    def lag(self, partition: int, *, behind: int, oldest_ms: int | None) -> None:
        self.lags.append((partition, behind, oldest_ms))

    def landed(self, _landed: Any, *, took_s: float, produced_ms: list[int]) -> None:
        assert took_s >= 0
        self.commits.append(produced_ms)


class FakeWriter:
    name = "trades"
    snapshots = 1

    def __init__(self, held: dict[Source, Offsets]) -> None:
        self.held = held
        self.written: list[tuple[int, Offsets, Source]] = []
        self.refuses = False
        self.undecodable: list[Undecodable] = []
        self.repeated: list[str] = []

    def offsets(self, source: Source) -> Offsets:
        return self.held[source]

    def write(self, values: Sequence[bytes | None], *, offsets: Offsets, source: Source) -> Any:
        if self.refuses:
            raise RetryError("not now")
        self.written.append((len(values), offsets, source))

        decoded = SimpleNamespace(undecodable=self.undecodable, repeated=self.repeated)
        rows = len(values) - len(self.undecodable) - len(self.repeated)
        return SimpleNamespace(rows=rows, rereads=False, decoded=decoded)


Made = tuple[TopicArchive, FakeConsumer, FakeWriter]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    monkeypatch.setattr(topic_archive, "Consumer", FakeConsumer)
    monkeypatch.setattr("k2.ingestion.topic_archive.time.sleep", lambda _s: None)

    def made(
        torn_from_rows: int = TORN_FROM_ROWS, partitions: int = 1, letters: Path = NOWHERE
    ) -> Made:
        FakeFigures.made = figures = FakeFigures()
        writer: Any = FakeWriter({Source.MAIN: {0: 99}, Source.REPAIRS: {1: 7}})
        one = TopicArchive(
            Settings(flush_rows=FLUSH_ROWS),
            "t.repairs",
            writer,
            figures=cast("Any", figures),
            dead_letters=DeadLetters(letters, topic="t", connection_id="archive"),
            partitions=partitions,
            source=Source.REPAIRS,
            torn_from_rows=torn_from_rows,
        )
        return one, FakeConsumer.made, writer

    return made


def test_each_source_starts_where_the_table_says_that_it_ends(make: Callable[..., Made]) -> None:
    _, consumer, _ = make(partitions=2)
    assert consumer.assigned == {0: OFFSET_BEGINNING, 1: 7}
    assert consumer.settings["isolation.level"] == "read_committed"


def test_a_page_of_the_past_waits_for_its_upper_half(make: Callable[..., Made]) -> None:
    one, consumer, writer = make()
    consumer.ready = [[Message(0), Message(1)], [Message(2)], [end()]]
    assert one.poll(0.1) == 2
    assert (one.due, one.flush(), writer.written) == (False, True, [])
    assert one.poll(0.1) == 1
    assert (one.due, one.flush(), writer.written) == (False, True, [])
    assert one.poll(0.1) == 0
    assert one.due
    assert one.flush()
    assert writer.written == [(3, {0: 3}, Source.REPAIRS)]
    assert (one.due, one.flush(), len(writer.written)) == (False, True, 1)


def test_the_end_of_one_partition_is_not_that_of_another(make: Callable[..., Made]) -> None:
    one, consumer, writer = make(partitions=2)
    consumer.ready = [[Message(0), Message(7, partition=1), end(0)], [end(1)]]
    one.poll(0.1)
    one.flush()
    assert writer.written == [(1, {0: 1}, Source.REPAIRS)]
    one.poll(0.1)
    one.flush()
    assert writer.written[1:] == [(1, {1: 8}, Source.REPAIRS)]


def test_pages_that_come_without_a_pause_are_not_waited_for(make: Callable[..., Made]) -> None:
    # The end of a transaction has an offset of its own: 2 here.
    one, consumer, writer = make()
    consumer.ready = [[Message(0), Message(1), Message(3)], [Message(4), Message(6)]]
    one.poll(0.1)
    one.flush()
    assert writer.written == [(2, {0: 2}, Source.REPAIRS)]
    one.poll(0.1)
    one.flush()
    assert writer.written[1:] == [(2, {0: 5}, Source.REPAIRS)]


def test_a_page_that_goes_on_behind_an_end_is_not_whole_again(make: Callable[..., Made]) -> None:
    one, consumer, writer = make()
    consumer.ready = [[Message(0), end(), Message(2)]]
    one.poll(0.1)
    one.flush()
    assert writer.written == [(1, {0: 1}, Source.REPAIRS)]


def test_a_transaction_too_long_to_be_kept_is_cut_anywhere(make: Callable[..., Made]) -> None:
    one, consumer, writer = make()
    consumer.ready = [[Message(i) for i in range(TORN_FROM_ROWS + 1)]]
    one.poll(0.1)
    assert one.due
    one.flush()
    assert writer.written == [(TORN_FROM_ROWS, {0: TORN_FROM_ROWS}, Source.REPAIRS)]


def test_a_live_tape_does_not_wait_for_the_end_of_a_transaction(make: Callable[..., Made]) -> None:
    one, consumer, _ = make(torn_from_rows=0)
    assert not one.due
    consumer.ready = [[Message(0)]]
    one.poll(0.1)
    assert one.due


def test_a_batch_the_table_cannot_take_is_kept(make: Callable[..., Made]) -> None:
    one, consumer, writer = make(torn_from_rows=0)
    consumer.ready = [[Message(0)], [Message(1)]]
    one.poll(0.1)
    writer.refuses = True
    assert not one.flush()
    writer.refuses = False
    one.poll(0.1)
    assert one.flush()
    assert writer.written == [(2, {0: 2}, Source.REPAIRS)]


def test_nothing_more_is_taken_while_the_lake_cannot_keep_up(make: Callable[..., Made]) -> None:
    one, consumer, _ = make()
    consumer.ready = [[Message(i) for i in range(HELD_FLUSHES_MAX * FLUSH_ROWS)], [Message(99)]]
    consumer.ready[0].append(end())
    one.poll(0.1)
    told = len(FakeFigures.made.lags)
    assert one.poll(0.1) == 0
    assert len(consumer.ready) == 1
    assert len(FakeFigures.made.lags) > told, "its age goes on"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "k2 archive --from-first"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "was deleted"),
    ],
)
def test_what_cannot_be_gone_on_from_stops(make: Callable[..., Made], code: int, says: str) -> None:
    one, consumer, _ = make()
    consumer.ready = [[Message(error=code)]]
    with pytest.raises(StopError, match=says):
        one.poll(0.1)


def test_what_kafka_does_not_give_out_is_told_until_it_does(make: Callable[..., Made]) -> None:
    one, consumer, _ = make(partitions=2)
    assert one.unread == ""
    for well in (Message(1), end()):
        consumer.ready = [[Message(error=KafkaError.TOPIC_AUTHORIZATION_FAILED)], [], [well]]
        one.poll(0.1)
        one.poll(0.1)
        assert "Topic authorization failed" in one.unread
        one.poll(0.1)
        assert one.unread == ""


def test_another_partitions_records_do_not_say_that_this_one_is_read(
    make: Callable[..., Made],
) -> None:
    one, consumer, _ = make(partitions=2)
    consumer.ready = [[Message(error=KafkaError.TOPIC_AUTHORIZATION_FAILED)]]
    consumer.ready.append([Message(8, partition=1)])
    one.poll(0.1)
    one.poll(0.1)
    assert one.unread


def test_what_is_refused_is_asked_for_again_where_reading_stands(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("k2.ingestion.reading_trouble.time.monotonic", lambda: now_s)
    one, consumer, _ = make(partitions=2)
    consumer.ready = [[Message(8, partition=1)]]
    consumer.ready.append([Message(partition=1, error=KafkaError.TOPIC_AUTHORIZATION_FAILED)])
    for _ in range(3):
        now_s += ASK_AGAIN_S
        one.poll(0.1)
    one.poll(0.1)
    assert consumer.sought == [(1, 9)], "only what is refused, and not all the time"


def test_what_is_not_about_a_partition_says_nothing_of_reading(make: Callable[..., Made]) -> None:
    one, consumer, _ = make()

    class OfTheGroup(Message):
        def topic(self) -> str | None:
            return None

    consumer.ready = [
        [OfTheGroup(error=code)]
        for code in (KafkaError._ALL_BROKERS_DOWN, KafkaError.GROUP_AUTHORIZATION_FAILED)
    ]
    one.poll(0.1)
    one.poll(0.1)
    assert one.unread == ""


def test_the_lag_counts_from_the_table_and_its_age_from_the_oldest_record(
    make: Callable[..., Made],
) -> None:
    one, consumer, writer = make(torn_from_rows=0, partitions=2)
    one.poll(0.1)
    assert FakeFigures.made.lags == [(0, 20, None), (1, 13, None)]
    consumer.ready = [[Message(3), Message(4)]]
    one.poll(0.1)
    assert FakeFigures.made.lags[-2:] == [(0, 20, 1_003), (1, 13, None)], "each has its own age"
    consumer.ready = [[Message(7, partition=1)]]
    one.poll(0.1)
    assert FakeFigures.made.lags[-2:] == [(0, 20, 1_003), (1, 13, 1_007)]
    writer.held[Source.REPAIRS] = {0: 5, 1: 7}
    assert one.flush()
    assert FakeFigures.made.lags[-2:] == [(0, 15, None), (1, 13, None)]
    assert FakeFigures.made.commits == [[1_003, 1_004, 1_007]]


def test_a_record_of_an_unfinished_page_is_the_oldest_of_its_own_partition(
    make: Callable[..., Made],
) -> None:
    one, consumer, _ = make(partitions=2)
    consumer.ready = [[Message(3), end(0), Message(7, partition=1)], [Message(5), Message(6)]]
    one.poll(0.1)
    assert FakeFigures.made.lags[-2:] == [(0, 20, 1_003), (1, 13, 1_007)]
    one.poll(0.1)
    assert one.flush()
    assert FakeFigures.made.lags[-2:] == [(0, 20, 1_005), (1, 13, 1_007)], "these are of no batch"


def test_every_record_read_is_a_row_a_letter_a_copy_or_waits(
    make: Callable[..., Made], tmp_path: Path
) -> None:
    one, consumer, writer = make(partitions=2, letters=tmp_path)
    consumer.ready = [
        [Message(0), Message(1), Message(2), end(0), Message(7, partition=1)],
        [Message(3), end(0)],
        [end(1)],
    ]
    one.poll(0.1)
    writer.refuses = True
    assert not one.flush()
    writer.refuses = False
    writer.undecodable, writer.repeated = [Undecodable(b"x", "why", "serialize")], ["id"]
    assert one.flush()
    writer.undecodable, writer.repeated = [], []
    for _ in range(2):
        one.poll(0.1)
        assert one.flush()
    assert set(FakeFigures.made.unaccounted) == {0}
    account = one._account
    assert (account.read, account.rows, account.dead_letters, account.repeated) == (5, 3, 1, 1)


def test_a_record_that_came_to_nothing_shows_at_once(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, consumer, _ = make(torn_from_rows=0)
    consumer.ready = [[Message(0)], [Message(1)]]
    one.poll(0.1)
    assert FakeFigures.made.unaccounted[-1] == 0
    monkeypatch.setattr(one, "_take", lambda *_: None)
    one.poll(0.1)
    assert FakeFigures.made.unaccounted[-1] == 1


def test_ends_of_transactions_and_what_was_aborted_are_behind_the_table_too(
    make: Callable[..., Made],
) -> None:
    # Kafka forgets them with the records: a table that stops before them seems to have lost some.
    one, consumer, writer = make(torn_from_rows=0, partitions=2)
    consumer.ready = [[Message(4), end(0, at=6), end(1, at=12)], [Message(9), Message(10)]]
    one.poll(0.1)
    assert one.flush()
    assert writer.written == [(1, {0: 6, 1: 12}, Source.REPAIRS)]
    one.poll(0.1)
    assert one.flush()
    assert writer.written[1:] == [(2, {0: 11}, Source.REPAIRS)]


def test_an_end_goes_into_the_table_without_rows_once_the_topic_is_quiet(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, consumer, writer = make(torn_from_rows=0)
    consumer.ready = [[Message(4)], [end(at=6)], [end(at=6)]]
    one.poll(0.1)
    assert one.flush()
    one.poll(0.1)
    assert not one.due, "not for each of them, while anything trades"
    assert one.flush()
    assert len(writer.written) == 1
    monkeypatch.setattr(topic_archive, "QUIET_COMMIT_AGE_S", 0.0)
    assert one.due
    writer.refuses = True
    assert not one.flush()
    writer.refuses = False
    assert one.flush()
    assert writer.written[1:] == [(0, {0: 6}, Source.REPAIRS)]
    writer.held[Source.REPAIRS] = {0: 6}
    one.poll(0.1)
    assert not one.due, "it is there"


def test_a_table_that_holds_nothing_needs_no_end(
    make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_archive, "QUIET_COMMIT_AGE_S", 0.0)
    one, consumer, writer = make()
    writer.snapshots = 0
    consumer.ready = [[end(at=6)]]
    one.poll(0.1)
    assert not one.due
    assert one.finish()
    assert writer.written == []


def test_what_was_read_to_the_end_is_left_in_the_table_before_a_long_absence(
    make: Callable[..., Made],
) -> None:
    one, consumer, writer = make(torn_from_rows=0)
    consumer.ready = [[Message(4)], [end(at=6)]]
    one.poll(0.1)
    assert one.flush()
    one.poll(0.1)
    writer.refuses = True
    assert not one.finish()
    writer.refuses = False
    assert one.finish()
    assert writer.written[1:] == [(0, {0: 6}, Source.REPAIRS)]
    assert one.finish()
    assert len(writer.written) == 2


def test_nothing_is_behind_once_all_that_can_be_read_is_in_the_table(
    make: Callable[..., Made],
) -> None:
    one, consumer, writer = make(torn_from_rows=0)
    consumer.ready = [[Message(18)], [end(at=20)], [Message(20)]]
    one.poll(0.1)
    writer.held[Source.REPAIRS] = {0: 19}
    one.flush()
    one.poll(0.1)
    one.poll(0.1)
    assert FakeFigures.made.lags == [
        (0, 20, 1_018),
        (0, 1, None),
        (0, 0, None),
        (0, 1, 1_020),  # from the table on, while anything waits
    ]
