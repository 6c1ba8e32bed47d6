"""What the exchange lists: symbols, assets, statuses, filters, and how each one trades.

PURE. Assets and filters follow real listings; prices and activity are only plausible.
``BTTCUSDT`` trades quantities above 10^10, ``这是测试币456`` is Binance's own testnet symbol,
for clients that assume ASCII, and ``1000SATSUSDT`` begins with digits.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from k2.simulator.rows import format_e8, parse_e8


class Listing(msgspec.Struct, frozen=True):
    """One listed symbol.

    ``price``, ``tick``, ``step``, ``typical_quantity``, ``min_notional`` are decimal strings;
    ``activity`` is its share of the exchange's trades, in parts of the sum over all symbols.
    ``first_agg_id``/``first_fill_id`` are where a fresh tape starts: old symbols have ids far above
    2^31, the newest start at 0 as Spot does.
    """

    name: str
    base: str
    quote: str
    price: str
    tick: str
    step: str
    typical_quantity: str
    activity: int
    first_agg_id: int
    first_fill_id: int
    status: str = "TRADING"
    min_notional: str = "5.00000000"


_ROWS: tuple[tuple[str, str, str, str, str, str, str, int, int, int], ...] = (
    # name, base, quote, price, tick, step, typical quantity, activity, first a, first t
    ("BTCUSDT", "BTC", "USDT", "93712.01", "0.01", "0.00001", "0.012", 400, 3712345678, 5612345001),
    ("ETHUSDT", "ETH", "USDT", "3310.42", "0.01", "0.0001", "0.35", 220, 2144000123, 3050111222),
    ("SOLUSDT", "SOL", "USDT", "187.35", "0.01", "0.001", "5.5", 110, 988000456, 1502777000),
    ("BNBUSDT", "BNB", "USDT", "912.7", "0.01", "0.001", "0.8", 60, 905123000, 1204000777),
    ("XRPUSDT", "XRP", "USDT", "2.2154", "0.0001", "0.1", "420", 80, 840555000, 1111000222),
    ("DOGEUSDT", "DOGE", "USDT", "0.15632", "0.00001", "1", "5200", 60, 760000999, 1001222333),
    ("ADAUSDT", "ADA", "USDT", "0.4711", "0.0001", "0.1", "1500", 25, 560321000, 701000111),
    ("TRXUSDT", "TRX", "USDT", "0.2791", "0.0001", "0.1", "2100", 20, 410000222, 520000333),
    ("LINKUSDT", "LINK", "USDT", "13.42", "0.01", "0.01", "42", 20, 430111000, 530222000),
    ("AVAXUSDT", "AVAX", "USDT", "14.63", "0.01", "0.01", "36", 15, 390222000, 480333000),
    ("LTCUSDT", "LTC", "USDT", "88.51", "0.01", "0.001", "6.1", 12, 380777000, 470888000),
    ("ETHBTC", "ETH", "BTC", "0.03532", "0.00001", "0.0001", "0.42", 18, 620444000, 810555000),
    ("BNBBTC", "BNB", "BTC", "0.009741", "0.000001", "0.001", "0.7", 8, 310333000, 390444000),
    ("BTCEUR", "BTC", "EUR", "81405.12", "0.01", "0.00001", "0.008", 12, 220555000, 290666000),
    ("BTCFDUSD", "BTC", "FDUSD", "93698.4", "0.01", "0.00001", "0.02", 60, 1950123000, 2410456000),
    ("USDCUSDT", "USDC", "USDT", "0.9998", "0.0001", "1", "2400", 20, 270111000, 410222000),
    ("PEPEUSDT", "PEPE", "USDT", "0.00000461", "0.00000001", "1", "85000000", 30, 260700, 410800),
    ("SHIBUSDT", "SHIB", "USDT", "0.00000852", "0.00000001", "1", "61000000", 25, 520900, 640100),
    ("BTTCUSDT", "BTTC", "USDT", "0.00000041", "0.00000001", "1", "9000000000", 6, 81000, 93000),
    ("1000SATSUSDT", "1000SATS", "USDT", "0.00001612", "0.00000001", "1", "9000000", 5, 70, 95),
    ("这是测试币456", "这是测试币", "456", "1.2340", "0.0001", "0.1", "80", 4, 0, 0),
    ("VENUSDT", "VEN", "USDT", "1.5", "0.0001", "0.01", "50", 0, 100, 200),
    ("FTTUSDT", "FTT", "USDT", "1.1", "0.0001", "0.01", "50", 0, 100, 200),
    ("NBTUSDT", "NBT", "USDT", "0.0123", "0.0001", "1", "900", 0, 100, 200),
    ("OAXUSDT", "OAX", "USDT", "0.0456", "0.0001", "1", "900", 0, 100, 200),
)
_NOT_TRADING = {
    "VENUSDT": "BREAK",
    "FTTUSDT": "HALT",
    "NBTUSDT": "CANCEL_ONLY",
    "OAXUSDT": "END_OF_DAY",
}
_MIN_NOTIONAL = {"BTC": "0.00010000"}


def _eight(text: str) -> str:
    return format_e8(parse_e8(text))


LISTINGS: dict[str, Listing] = {
    name: Listing(
        name=name,
        base=base,
        quote=quote,
        price=_eight(price),
        tick=_eight(tick),
        step=_eight(step),
        typical_quantity=_eight(typical),
        activity=activity,
        first_agg_id=first_agg,
        first_fill_id=first_fill,
        status=_NOT_TRADING.get(name, "TRADING"),
        min_notional=_MIN_NOTIONAL.get(quote, "5.00000000"),
    )
    for name, base, quote, price, tick, step, typical, activity, first_agg, first_fill in _ROWS
}


def select(names: Iterable[str]) -> dict[str, Listing]:
    """Return the named listings in the order given; all of them when ``names`` is empty.

    Raises:
        ValueError: If a name is not listed; the message names those that are.
    """
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in LISTINGS]
    if unknown:
        raise ValueError(f"unknown symbol {', '.join(unknown)}: listed are {' '.join(LISTINGS)}")
    return {name: LISTINGS[name] for name in wanted} if wanted else dict(LISTINGS)


def with_status(listing: Listing, status: str) -> Listing:
    """Return the listing with another status."""
    return msgspec.structs.replace(listing, status=status)


def exchange_info_symbol(listing: Listing) -> dict[str, Any]:
    """Build one element of ``exchangeInfo.symbols``.

    Source: Binance spot API docs, "Exchange information" and "Filters" (fact sheet 6.3,
    checked 2026-11-21).
    """
    max_quantity = "92141578.00000000" if listing.step != "1.00000000" else "90000000000.00000000"
    return {
        "symbol": listing.name,
        "status": listing.status,
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": listing.tick,
                "maxPrice": "1000000.00000000",
                "tickSize": listing.tick,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": listing.step,
                "maxQty": max_quantity,
                "stepSize": listing.step,
            },
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": "0.00000000",
                "maxQty": max_quantity,
                "stepSize": "0.00000000",
            },
            {
                "filterType": "TRAILING_DELTA",
                "minTrailingAboveDelta": 10,
                "maxTrailingAboveDelta": 2000,
                "minTrailingBelowDelta": 10,
                "maxTrailingBelowDelta": 2000,
            },
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": "5",
                "bidMultiplierDown": "0.2",
                "askMultiplierUp": "5",
                "askMultiplierDown": "0.2",
                "avgPriceMins": 5,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": listing.min_notional,
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
