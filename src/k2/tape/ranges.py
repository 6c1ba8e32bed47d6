"""PURE: arithmetic on runs of consecutive ids."""

from collections.abc import Iterable, Sequence

from k2.market import IdRange


def without(ranges: Iterable[IdRange], taken: Sequence[IdRange]) -> list[IdRange]:
    """Return what of ``ranges`` no range of ``taken`` covers. Both ascending by first id."""
    left: list[IdRange] = []
    for ids in ranges:
        start = ids.first_id
        for other in taken:
            if other.last_id < start or other.first_id > ids.last_id:
                continue
            if other.first_id > start:
                left.append(IdRange(start, other.first_id - 1))
            start = other.last_id + 1
        if start <= ids.last_id:
            left.append(IdRange(start, ids.last_id))
    return left
