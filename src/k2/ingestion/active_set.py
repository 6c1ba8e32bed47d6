"""The symbols a process records now, joined and left while it runs; the writers record the set."""

from collections.abc import Mapping, Sequence

from k2.ingestion.admission import Prepared, identity_of, of_shard
from k2.ingestion.commits import Told
from k2.ingestion.duties import Duties
from k2.ingestion.intake import Intake
from k2.ingestion.legs import Legs
from k2.ingestion.shard import Role, Shard
from k2.ingestion.term import Terms
from k2.kafka.partitioning import shard_of
from k2.market import Gap, GapClass, IdRange, Symbol
from k2.settings import Settings


class ActiveSet:
    """Carries each symbol on its shard, its legs and its duties (``Carrier``)."""

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        *,
        terms: Sequence[Terms],
        legs: Legs,
        intake: Intake,
        duties: Duties,
        listed: dict[str, Symbol],
    ) -> None:
        """Begin with none; ``listed`` is what the exchange says of each, for the encoder."""
        self._settings = settings
        self._prepared = prepared
        self._terms = terms
        self._legs = legs
        self._intake = intake
        self._duties = duties
        self._listed = listed
        self._told: dict[int, frozenset[str]] = {}
        """By shard, the active set that its log named last."""

    def carried(self) -> set[str]:
        """Return what is recorded now."""
        return set(self._intake.symbols)

    def recorded(self) -> set[str]:
        """Return the active set, as the log told it last.

        A log that names none (its topic was made again) has not said that anybody left.
        """
        for terms in self._terms:
            if (identity := terms.shard.log.record.identity) is not None:
                self._told[terms.shard.settings.shard] = frozenset(identity.symbols)
        return {symbol for told in self._told.values() for symbol in told}

    def next_id(self, symbol: str) -> int | None:
        """Return where a symbol's tape stands, if it has one."""
        where = self._terms_of(symbol).shard.told.position.stands(symbol)
        return where.next_id if where is not None else None

    def begin(self, listed: Mapping[str, Symbol], newest_ids: Mapping[str, int | None]) -> None:
        """Record the symbols a process starts with; nobody writes yet."""
        for symbol in listed.values():
            self._carry(symbol, newest_ids[symbol.name])
        self._legs.carry(listed)

    def add(self, listed: Symbol, *, newest_id: int | None, declare: bool) -> None:
        """Record one more symbol; ``declare`` passes over what was missed while it was away."""
        terms = self._carry(listed, newest_id)
        self._legs.carry(self._intake.symbols)
        shard = terms.shard
        if shard.role is not Role.WRITER:
            return
        self.record_identity(shard)
        tape = shard.tapes[listed.name]
        if declare and newest_id is not None and tape.next_id and tape.next_id <= newest_id:
            ids = IdRange(tape.next_id, newest_id)
            shard.append([Gap(listed.name, ids, GapClass.MISSING, "away, not wanted back")])
            shard.append(tape.declare(ids))
        terms.also(self._duties.heal(shard, listed.name))
        self._duties.look(listed.name)

    def remove(self, symbol: str) -> None:
        """Record a symbol no more; its tape can be gone on with later."""
        shard = self._terms_of(symbol).shard
        if symbol in self._intake.symbols:
            self._legs.carry([name for name in self._intake.symbols if name != symbol])
            self._intake.drop(symbol)
            self._duties.drop(symbol)
            shard.drop(symbol)
        self.record_identity(shard, without=symbol)

    def record_identity(self, shard: Shard, *, without: str = "") -> None:
        """Have the active set recorded, if we write: a take-over keeps it."""
        if shard.role is not Role.WRITER:
            return
        number, partitions = shard.settings.shard, self._prepared.partitions

        def change(told: Told) -> Told | None:
            known = set(told.identity.symbols) if told.identity is not None else set()
            mine = of_shard(known | set(shard.tapes), number, partitions=partitions) - {without}
            identity = identity_of(self._settings, self._prepared, mine)
            return told._replace(identity=identity) if identity != told.identity else None

        shard.do(tuple, change)

    def _carry(self, listed: Symbol, newest_id: int | None) -> Terms:
        terms = self._terms_of(listed.name)
        self._listed[listed.name] = listed
        self._duties.newest_ids[listed.name] = newest_id
        terms.shard.carry(listed.name)
        self._intake.carry(listed.name, terms.shard)
        return terms

    def _terms_of(self, symbol: str) -> Terms:
        return self._terms[shard_of(symbol, partitions=self._prepared.partitions)]
