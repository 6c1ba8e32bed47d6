"""A tradable pair as the exchange lists it."""

import msgspec


class Symbol(msgspec.Struct, frozen=True):
    """One symbol with the assets ``exchangeInfo`` names for it (never guessed from a suffix)."""

    name: str
    base_currency: str
    quote_currency: str
