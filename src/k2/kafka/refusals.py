"""PURE: the states in which writing could corrupt a tape, each with the command that repairs it."""

from collections.abc import Iterable, Mapping

from k2.errors import StopError
from k2.kafka.position import Identity, ShardPosition, SymbolPosition


def check_identity(found: Identity | None, expected: Identity) -> None:
    """Refuse a tape of something else.

    Raises:
        StopError: If venue, environment, stream kind, topics or partition count differ.
    """
    if found is None:
        return
    if found.topic_ids != expected.topic_ids:
        changed = sorted(
            topic
            for topic in found.topic_ids.keys() | expected.topic_ids.keys()
            if found.topic_ids.get(topic) != expected.topic_ids.get(topic)
        )
        raise StopError(
            f"topic {', '.join(changed)} was deleted and created again since the position was "
            "written. If the lake is intact: `k2 positions rebuild --from-lake`; "
            "else `k2 positions rebuild --from-topic`"
        )
    for name in ("venue", "environment", "stream_kind", "partitions"):
        was, now = getattr(found, name), getattr(expected, name)
        if was != now:
            raise StopError(
                f"this topic holds {name} {was!r}, this process writes {now!r}. Two tapes never "
                "share a topic: set KAFKA_TOPIC_PREFIX to another prefix"
            )


def check_position(
    position: ShardPosition | None, *, topic_has_records: bool, tail: Mapping[str, int]
) -> None:
    """Refuse when the end of the trades partition and the position tell different stories.

    Raises:
        StopError: If there are trades but no position, or their last ids disagree.
    """
    if position is None:
        if topic_has_records:
            raise _no_position()
        return
    for symbol, last_id in sorted(tail.items()):
        said = _last_id(position, symbol)
        if said != last_id:
            raise _disagreement(symbol, topic_ends_at=last_id, position_says=said)


def check_symbols(active: Iterable[str], configured: Iterable[str]) -> None:
    """Refuse a process that has no symbol in common with the tape it would stand by for.

    Raises:
        StopError: If neither set is empty and no symbol is in both (contract C11).
    """
    recorded, mine = set(active), set(configured)
    if recorded and mine and not recorded & mine:
        raise StopError(
            f"the tape records {_some(recorded)}, this process is set to {_some(mine)}: none in "
            "common. All instances of a tape carry the same symbols. To spread them over machines "
            "create the topics with more shards (K2_SHARDS); to change them while running use "
            "K2_SYMBOLS_FILE; to record others on a tape of their own set KAFKA_TOPIC_PREFIX"
        )


def check_newest(
    symbol: str,
    position: SymbolPosition,
    *,
    newest_id: int | None,
    newest_ts_us: int | None,
) -> None:
    """Refuse an exchange whose newest id is below the tape: its ids were reset.

    Without this every trade of a reset exchange would look like an endless duplicate. A REST that
    merely trails shows a newest trade from before the tape's last one.

    Args:
        symbol: Whose.
        position: Where its tape ends.
        newest_id: The exchange's newest id; None if the symbol never traded there.
        newest_ts_us: Trade time of that id.

    Raises:
        StopError: If the exchange's newest id is below the last id of the tape and not older.
    """
    next_id, last_ts_us = position.next_id, position.last_ts_us
    if (-1 if newest_id is None else newest_id) >= next_id - 1:
        return
    if newest_ts_us is not None and last_ts_us is not None and newest_ts_us <= last_ts_us:
        return
    raise StopError(
        f"{symbol}: the tape ends at id {next_id - 1}, the exchange's newest id is "
        f"{newest_id if newest_id is not None else 'none'}: its ids were reset (testnets do "
        "this monthly) or this is another exchange. Start a new tape: set KAFKA_TOPIC_PREFIX"
    )


def _last_id(position: ShardPosition, symbol: str) -> int | None:
    return position.symbols[symbol].last_id if symbol in position.symbols else None


def _no_position() -> StopError:
    return StopError(
        "the trades topic has records but no position says which: .positions was deleted "
        "or trimmed. Rebuild it: `k2 positions rebuild --from-topic`"
    )


def _disagreement(symbol: str, *, topic_ends_at: int, position_says: int | None) -> StopError:
    return StopError(
        f"{symbol}: the topic ends at id {topic_ends_at}, the position says {position_says}. "
        "Somebody else wrote here, or part of the log was lost. Look with `k2 tail` and "
        "`k2 positions show`; repair with `k2 positions rebuild --from-topic`"
    )


def _some(symbols: set[str]) -> str:
    names = sorted(symbols)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
