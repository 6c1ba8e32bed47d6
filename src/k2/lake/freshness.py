"""How old a proof's newest rows are. A record can be complete and have stopped growing."""

from collections.abc import Collection

import msgspec

from k2.lake.proof import Proof


class RowAge(msgspec.Struct, frozen=True):
    """How long ago a symbol's newest row reached us."""

    symbol: str
    age_s: float


def row_ages(proof: Proof, *, now_us: int) -> list[RowAge]:
    """Return the age of each symbol's newest row, freshest first."""
    ages = [
        RowAge(one.symbol, round(max(0, now_us - one.newest_ts_us) / 1e6, 3))
        for one in proof.symbols
    ]
    return sorted(ages, key=lambda one: (one.age_s, one.symbol))


def older_than(ages: Collection[RowAge], *, age_max_s: float) -> list[RowAge]:
    """Return those whose newest row is older than it may be."""
    return [one for one in ages if one.age_s > age_max_s]


def in_words(age_s: float) -> str:
    """Return an age as people say it."""
    if age_s < 120:
        return f"{age_s:.0f} s"
    if age_s < 7200:
        return f"{age_s / 60:.0f} min"
    return f"{age_s / 3600:.0f} h" if age_s < 172_800 else f"{age_s / 86_400:.0f} days"
