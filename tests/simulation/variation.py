"""What differs from seed to seed beside the faults: the exchange, the instances, their settings."""

import random
from dataclasses import dataclass, field
from typing import Any

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
"""Two shards get some each."""

INSTANCES = ("blue", "green", "red")


@dataclass(frozen=True)
class Limits:
    """Bounds of the product, for a seed that shall meet them; the shipped ones are far away."""

    ring_max: int = 100_000
    hold_max: int = 50_000
    spill_max_bytes: int = 256 << 20
    page_rows: int = 1_000


@dataclass(frozen=True)
class Wish:
    """An operator asks for a symbol's past."""

    at_s: float
    symbol: str
    history: int
    ids: int
    """How many of the trades before the simulation."""


@dataclass(frozen=True)
class Variation:
    """One seed's setup."""

    rates_per_s: dict[str, float]
    history: dict[str, int]
    """Trades of each symbol before the simulation; one without history has never traded."""
    shards: int = 1
    roles: tuple[str, ...] = ("auto", "auto")
    """One per instance."""
    start_s: tuple[float, ...] = (0.0, 0.0)
    settings: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    wishes: tuple[Wish, ...] = ()
    faults_for_s: float = 60.0
    catch_up_within_s: float = 900.0
    """After the last fault; deaf legs and rows that REST lacks take their time."""


def variation_of(seed: int) -> Variation:
    """Draw the setup of a seed."""
    rng = random.Random(f"variation {seed}")
    symbols = SYMBOLS[: rng.choices((1, 2, 3), (1, 2, 3))[0]]
    # The first trades enough for a seed to mean something; others may be quiet.
    rates = {SYMBOLS[0]: rng.choice((3.0, 2.0, 1.5))}
    rates |= {symbol: rng.choice((1.0, 0.5, 0.3, 0.05)) for symbol in symbols[1:]}
    limits = _limits(rng)
    history = {symbol: rng.randrange(1, 60) for symbol in symbols}
    wishes = []
    if rng.random() < 0.3:
        symbol = rng.choice(symbols)
        for _ in range(rng.choice((1, 1, 2))):
            wish = Wish(
                rng.uniform(1, 70), symbol, history[symbol], rng.randrange(1, history[symbol] + 1)
            )
            wishes.append(wish)
    if len(symbols) > 1 and rng.random() < 0.25:
        history[rng.choice(symbols[1:])] = 0
    roles = rng.choices(
        [("auto",), ("auto", "auto"), ("auto", "auto", "auto"), ("auto", "auto", "observer")],
        (2, 6, 1, 1),
    )[0]
    late = rng.random() < 0.3
    return Variation(
        rates_per_s=rates,
        history=history,
        shards=rng.choice((1, 1, 2)),
        roles=roles,
        start_s=tuple(
            rng.uniform(0, 30) if late and number else 0.0 for number in range(len(roles))
        ),
        settings={
            "legs": rng.choice((2, 2, 2, 1)),
            "connection_age_max_s": rng.choice((14_400.0, 60.0, 15.0)),
            "heal_wait_max_s": rng.choice((5.0, 10.0, 30.0)),
            "batch_size": rng.choice((10_000, 10_000, 3, 1)),
            "batch_timeout_s": rng.choice((0.05, 0.05, 0.2, 0.0)),
        },
        limits=limits,
        wishes=tuple(wishes),
    )


def _limits(rng: random.Random) -> Limits:
    if rng.random() < 0.5:
        return Limits()
    return Limits(
        ring_max=rng.choice((100_000, 5, 30)),
        hold_max=rng.choice((50_000, 2, 10)),
        spill_max_bytes=rng.choice((256 << 20, 0, 2_000)),
        page_rows=rng.choice((1_000, 1_000, 15)),
    )
