"""The words of the field: frozen values that every other room passes around."""

from k2.market.gap import Gap, GapClass
from k2.market.ids import IdRange
from k2.market.symbol import Symbol
from k2.market.trade import (
    DECIMAL_PRECISION,
    DECIMAL_SCALE,
    BadRow,
    Origin,
    Side,
    StreamKind,
    Trade,
)

__all__ = [
    "DECIMAL_PRECISION",
    "DECIMAL_SCALE",
    "BadRow",
    "Gap",
    "GapClass",
    "IdRange",
    "Origin",
    "Side",
    "StreamKind",
    "Symbol",
    "Trade",
]
