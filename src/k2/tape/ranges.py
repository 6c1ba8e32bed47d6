"""PURE: arithmetic on runs of consecutive ids."""

from collections.abc import Iterable, Sequence
from itertools import islice

from k2.market import IdRange


def without(ranges: Iterable[IdRange], taken: Sequence[IdRange]) -> list[IdRange]:
    """Return what of ``ranges`` no range of ``taken`` covers. Both ascending by first id.

    In one pass over both: there may be thousands of each.
    """
    left: list[IdRange] = []
    begin = 0
    for ids in ranges:
        start = ids.first_id
        while begin < len(taken) and taken[begin].last_id < start:
            begin += 1
        for other in islice(taken, begin, None):
            if other.first_id > ids.last_id:
                break
            if other.last_id < start:
                continue
            if other.first_id > start:
                left.append(IdRange(start, other.first_id - 1))
            start = other.last_id + 1
        if start <= ids.last_id:
            left.append(IdRange(start, ids.last_id))
    return left
