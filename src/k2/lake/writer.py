"""One table's writing side: batches of Kafka records in, landed table commits out.

The trades table is filled from two topics, by one writer: a trade may be in either, never in both.
The offsets, the batch id and the coverage are written in the same commit as the rows. After any
exception the table is loaded again and says what happened; nothing is replayed on a guess.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import pyarrow as pa
import structlog
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2.errors import ReconcileError, RetryError, StopError
from k2.lake.commit_plan import (
    COVERAGE,
    RANGES,
    Offsets,
    Reached,
    Source,
    TableState,
    Verdict,
    after_failure,
    encode_coverage,
    offset_marks,
    read_state,
    reread_marks,
    topic_marks,
)
from k2.lake.decoding import Decoded
from k2.lake.failures import AWAY, damage_stops, lake_failures
from k2.lake.snapshots import snapshots_to_forget
from k2.lake.tables import ensure_table
from k2.tape.coverage import Coverage

ATTEMPTS_MAX = 5
LOOK_DEADLINE_S = 30.0
LOOK_DELAY_S = 0.5

_log = structlog.get_logger()


class Decoder(Protocol):
    """What turns record values into rows."""

    def decode(self, values: Sequence[bytes | None], coverage: Coverage) -> Decoded:
        """Decode one batch against what the table holds."""
        ...


class Landed(msgspec.Struct, frozen=True):
    """One table commit that is in the table."""

    decoded: Decoded
    rows: int
    offsets: Offsets
    rereads: bool
    """Whether records the table holds already were expected."""


class TableWriter:
    """The only writer of one table; blocking."""

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        decoder: Decoder,
        *,
        topics: Mapping[Source, str],
        from_first: bool = False,
    ) -> None:
        """Load (or create) the table and read what it holds.

        Args:
            catalog: The lake's catalog.
            name: ``trades`` or ``gaps``.
            decoder: What makes rows of its records.
            topics: Name and id of each topic it is filled from.
            from_first: The operator says: go on from the first record Kafka still has, of these
                topics even if they are new ones. Coverage keeps every id from doubling; gaps, which
                it does not know, are read again only from a new topic.

        Raises:
            StopError: If the table contradicts itself or was filled from another topic.
        """
        self._catalog = catalog
        self._decoder = decoder
        self.name = name
        self._table = ensure_table(catalog, name)
        self._in_table = _state(self._table)
        """What the table itself says; ``state`` differs from it after ``from_first``."""
        sources, reread_to = dict(self._in_table.sources), dict(self._in_table.reread_to)
        self._reread_all: set[Source] = set()
        """Sources of which this process takes ids that the table holds for expected, all along."""
        for source, topic in topics.items():
            was = sources.get(source, Reached("", {}))
            moved = was.topic not in ("", topic)
            if moved:
                _refuse_another_tape(name, was.topic, topic)
            if moved and not from_first:
                raise StopError(
                    f"table {name} was filled from topic {was.topic}, this one is {topic}: the "
                    "topic was deleted and created again, or this is another Kafka. Start with "
                    "`k2 archive --from-first` to go on from the first offset of this one; ids the "
                    "table holds already are not written twice"
                )
            again = from_first and (moved or name == "trades")
            sources[source] = Reached(topic, {} if again else was.offsets)
            if moved:
                self._reread_all.add(source)
                reread_to[source] = {}
            elif again:
                # Reading again may itself be interrupted and begun anew.
                before = reread_to.get(source, {})
                reread_to[source] = {
                    partition: max(before.get(partition, 0), was.offsets.get(partition, 0))
                    for partition in before.keys() | was.offsets.keys()
                }
        self.state = msgspec.structs.replace(self._in_table, sources=sources, reread_to=reread_to)

    @property
    def snapshots(self) -> int:
        """How many snapshots the table keeps."""
        return len(self._table.metadata.snapshots)

    def rows(self) -> pa.Table:
        """Return every row of the table; for the small one of gaps.

        Raises:
            RetryError: If its files cannot be read.
            StopError: If one is damaged.
        """
        with lake_failures(f"the files of table {self.name} cannot be read"):
            return self._table.scan().to_arrow()

    def offsets(self, source: Source = Source.MAIN) -> Offsets:
        """Return, per partition of a source, the first offset not in the table."""
        return self.state.sources[source].offsets

    def write(
        self,
        values: Sequence[bytes | None],
        *,
        offsets: Offsets,
        source: Source = Source.MAIN,
    ) -> Landed:
        """Decode and commit one batch.

        Args:
            values: Record values in offset order.
            offsets: Partition to next offset, of the partitions the batch read from.
            source: Which of the table's topics they are from.

        Raises:
            RetryError: If nothing was written and it may work later.
            ReconcileError: If the table cannot be reached to see what happened.
            StopError: If another writer moved, changed or dropped the table.
        """
        decoded = self._decoder.decode(values, self.state.coverage)
        was = self.state.sources[source]
        rereads = self._rereads(source)
        reached = Reached(was.topic, {**was.offsets, **offsets})
        if decoded.rows.num_rows == 0 and self._table.current_snapshot() is None:
            # Nothing but undecodable records so far: an empty table needs no offsets.
            return Landed(decoded, 0, reached.offsets, rereads)
        target = msgspec.structs.replace(
            self.state,
            sources={**self.state.sources, source: reached},
            batch_id=uuid.uuid4().hex,
            coverage=decoded.coverage,
        )
        with damage_stops(self.name):
            files = self._write_files(decoded)
            self._land(files, decoded, target)
        return Landed(decoded, decoded.rows.num_rows, reached.offsets, rereads)

    def _land(self, files: list[DataFile], decoded: Decoded, target: TableState) -> None:
        for attempt in range(ATTEMPTS_MAX):
            try:
                self._commit(files, decoded, target)
            except AWAY as exc:
                verdict = self._look(target.batch_id)
                _log.warning(
                    "table_commit_unclear",
                    table=self.name,
                    verdict=verdict.value,
                    attempt=attempt,
                    reason=f"{type(exc).__name__}: {exc}"[:300],
                )
                if verdict is Verdict.ANOTHER_WRITER:
                    raise StopError(
                        f"table {self.name} moved under its writer: another archive runs on this "
                        "lake. Stop one of the two, then start this one again"
                    ) from exc
                if verdict is Verdict.APPEND_AGAIN:
                    continue
            self.state = self._in_table = target
            self._expire_snapshots()
            return
        raise RetryError(f"table {self.name} refused the same commit {ATTEMPTS_MAX} times")

    def _rereads(self, source: Source) -> bool:
        to, at = self.state.reread_to.get(source, {}), self.state.sources[source].offsets
        return source in self._reread_all or any(at.get(p, 0) < end for p, end in to.items())

    def _write_files(self, decoded: Decoded) -> list[DataFile]:
        if decoded.rows.num_rows == 0:
            return []
        try:
            return list(
                _dataframe_to_data_files(self._table.metadata, decoded.rows, self._table.io)
            )
        except OSError as exc:
            raise RetryError(f"the lake's files cannot be written: {exc}") from exc

    def _commit(self, files: list[DataFile], decoded: Decoded, target: TableState) -> None:
        marks = offset_marks(target.sources, target.batch_id)
        ranges = encode_coverage(decoded.ranges())
        with self._table.transaction() as transaction:
            append = transaction.update_snapshot(
                snapshot_properties={**marks, RANGES: ranges}
            ).merge_append()
            with append as producer:
                for file in files:
                    producer.append_data_file(file)
            transaction.set_properties(
                {
                    **marks,
                    **topic_marks(target.sources),
                    **reread_marks(target.reread_to),
                    COVERAGE: encode_coverage(target.coverage),
                }
            )

    def _look(self, batch_id: str) -> Verdict:
        """Load the table again and read off it what became of the commit."""
        self._reload()
        return after_failure(_state(self._table), before=self._in_table, batch_id=batch_id)

    def _reload(self) -> None:
        """Load the table again, waiting for a catalog that is away.

        Raises:
            ReconcileError: If it stays away.
        """
        deadline_s = time.monotonic() + LOOK_DEADLINE_S
        while True:
            try:
                self._table = self._catalog.load_table(self._table.name())
            except AWAY as exc:
                if time.monotonic() > deadline_s:
                    raise ReconcileError(
                        f"table {self.name} cannot be read after an unclear commit: {exc}. Start "
                        "the archive again when the catalog answers; the table decides"
                    ) from exc
                time.sleep(LOOK_DELAY_S)
            else:
                return

    def _expire_snapshots(self) -> None:
        """Forget old snapshots once there are many; the files stay for the sweep."""
        if not (old := snapshots_to_forget(self._table)):
            return
        try:
            self._table.maintenance.expire_snapshots().by_ids(old).commit()
            self._table = self._catalog.load_table(self._table.name())
        except AWAY as exc:
            # Housekeeping only: whatever became of it, the next load shows it.
            _log.warning("snapshots_not_expired", table=self.name, reason=str(exc)[:300])
            self._reload()


def _refuse_another_tape(table: str, was: str, topic: str) -> None:
    if was.partition("@")[0] != topic.partition("@")[0]:
        raise StopError(
            f"table {table} holds {was.partition('@')[0]}, this topic is "
            f"{topic.partition('@')[0]}: two tapes never share a lake. Name another one with "
            "K2_LAKE_DIR"
        )


def _state(table: Table) -> TableState:
    snapshot = table.current_snapshot()
    if snapshot is None:
        return read_state(properties=table.properties, summary=None, rows=0)
    told = {} if snapshot.summary is None else snapshot.summary.additional_properties
    rows = told.get("total-records", "")
    return read_state(
        properties=table.properties, summary=told, rows=int(rows) if rows.isdecimal() else None
    )
