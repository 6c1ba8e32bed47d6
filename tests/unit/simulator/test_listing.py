import pytest

from k2.simulator.listing import LISTINGS, exchange_info_symbol, select
from k2.simulator.rows import parse_e8


def test_the_listing_holds_what_clients_stumble_over() -> None:
    assert sum(listing.status == "TRADING" for listing in LISTINGS.values()) >= 20
    assert {"TRADING", "BREAK", "HALT", "CANCEL_ONLY", "END_OF_DAY"} == {
        listing.status for listing in LISTINGS.values()
    }
    assert max(LISTINGS.values(), key=lambda listing: listing.activity).name == "BTCUSDT"
    assert any(not name.isascii() for name in LISTINGS)
    assert LISTINGS["BTCUSDT"].first_agg_id > 2**31
    assert LISTINGS["这是测试币456"].first_agg_id == 0


@pytest.mark.parametrize("name", list(LISTINGS))
def test_assets_spell_the_symbol_and_numbers_fit_the_filters(name: str) -> None:
    listing = LISTINGS[name]
    assert listing.base + listing.quote == name
    described = exchange_info_symbol(listing)
    assert (described["baseAsset"], described["quoteAsset"]) == (listing.base, listing.quote)
    filters = {entry["filterType"]: entry for entry in described["filters"]}
    assert parse_e8(listing.price) % parse_e8(filters["PRICE_FILTER"]["tickSize"]) == 0
    assert parse_e8(listing.typical_quantity) % parse_e8(filters["LOT_SIZE"]["stepSize"]) == 0
    assert {"NOTIONAL", "MARKET_LOT_SIZE", "PERCENT_PRICE_BY_SIDE"} <= filters.keys()


def test_a_symbol_that_is_not_listed_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown symbol NOPEUSDT.*BTCUSDT"):
        select(["BTCUSDT", "NOPEUSDT"])
