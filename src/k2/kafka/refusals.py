"""PURE: the states in which writing could corrupt a tape, each with the command that repairs it."""

from collections.abc import Mapping

from k2.errors import StopError
from k2.kafka.position import Identity, Position


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
    position: Position | None, *, topic_has_records: bool, tail: Mapping[str, int]
) -> None:
    """Refuse when the end of the trades partition and the position tell different stories.

    Raises:
        StopError: If there are trades but no position, or their last ids disagree.
    """
    if position is None:
        if topic_has_records:
            raise StopError(
                "the trades topic has records but no position says which: .positions was deleted "
                "or trimmed. Rebuild it: `k2 positions rebuild --from-topic`"
            )
        return
    for symbol, last_id in sorted(tail.items()):
        said = position[symbol].last_id if symbol in position else None
        if said != last_id:
            raise StopError(
                f"{symbol}: the topic ends at id {last_id}, the position says {said}. Somebody "
                "else wrote here, or part of the log was lost. Look with `k2 tail` and "
                "`k2 positions show`; repair with `k2 positions rebuild --from-topic`"
            )


def check_newest(symbol: str, *, next_id: int, newest_id: int | None) -> None:
    """Refuse an exchange whose newest id is below the tape: its ids were reset.

    Without this every trade of a reset exchange would look like an endless duplicate.

    Raises:
        StopError: If the exchange's newest id is below the last id of the tape.
    """
    newest = -1 if newest_id is None else newest_id
    if newest < next_id - 1:
        raise StopError(
            f"{symbol}: the tape ends at id {next_id - 1}, the exchange's newest id is "
            f"{newest if newest_id is not None else 'none'}: its ids were reset (testnets do "
            "this monthly) or this is another exchange. Start a new tape: set KAFKA_TOPIC_PREFIX"
        )
