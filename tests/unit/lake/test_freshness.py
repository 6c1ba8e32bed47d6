from k2.lake.freshness import in_words, older_than, row_ages
from k2.lake.proof import Proof, SymbolProof

NOW_US = 1_800_000_000_000_000


def of(symbol: str, age_s: float) -> SymbolProof:
    newest_ts_us = NOW_US - round(age_s * 1e6)
    return SymbolProof(symbol, 1, 1, 0, 7, 7, 0, 0, [], 1, newest_ts_us)


PROOF = Proof(True, [of("BTCUSDT", 400.0), of("ETHUSDT", 14.2), of("XRPUSDT", -0.5)], [])


def test_ages_are_told_freshest_first_and_never_below_nothing() -> None:
    ages = row_ages(PROOF, now_us=NOW_US)
    assert [(one.symbol, one.age_s) for one in ages] == [
        ("XRPUSDT", 0.0),
        ("ETHUSDT", 14.2),
        ("BTCUSDT", 400.0),
    ]


def test_older_is_older_and_not_as_old() -> None:
    ages = row_ages(PROOF, now_us=NOW_US)
    assert [one.symbol for one in older_than(ages, age_max_s=14.1)] == ["ETHUSDT", "BTCUSDT"]
    assert [one.symbol for one in older_than(ages, age_max_s=14.2)] == ["BTCUSDT"]


def test_an_age_in_words_has_the_unit_people_use() -> None:
    found = [in_words(age_s) for age_s in (0.2, 14.4, 119, 400, 7300, 200_000)]
    assert found == ["0 s", "14 s", "119 s", "7 min", "2 h", "2 days"]
