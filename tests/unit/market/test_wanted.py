import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.errors import StopError
from k2.market.wanted import (
    Return,
    Wanted,
    could_be_listed,
    parse_lines,
    parse_names,
    with_added,
    with_removed,
)

NAMES = st.sampled_from(["BTCUSDT", "ETHUSDT", "XRPUSDT", "1000SATSUSDT", "币安人生USDT"])
LINES = st.lists(
    st.one_of(
        NAMES,
        NAMES.map(lambda name: f"-{name}"),
        NAMES.map(lambda name: f"  {name.lower()} heal  # why"),
        NAMES.map(lambda name: f"{name} gap"),
        st.sampled_from(["all:USDT", "", "# a comment", "   "]),
    ),
    max_size=8,
).map("\n".join)


def test_the_file_is_names_one_a_line() -> None:
    assert parse_lines(
        """
        # what we record
        btcusdt            # the first
        all:usdt
        -XRPUSDT
        ETHUSDT heal
        BNBUSDT Gap
        币安人生USDT
        """
    ) == Wanted(
        names=frozenset({"BTCUSDT", "ETHUSDT", "BNBUSDT", "币安人生USDT"}),
        quotes=frozenset({"USDT"}),
        leaving=frozenset({"XRPUSDT"}),
        returns=(("BNBUSDT", Return.GAP), ("ETHUSDT", Return.HEAL)),
    )


def test_a_plain_list_wants_names_and_quotes() -> None:
    assert parse_names(["btcusdt", "all:usdc", "BTCUSDT"]) == Wanted(
        frozenset({"BTCUSDT"}), frozenset({"USDC"})
    )
    assert parse_names([]) == Wanted()


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "   \n"])
def test_an_empty_file_wants_nothing(text: str) -> None:
    assert parse_lines(text) == Wanted()


def test_a_name_that_is_wanted_is_not_leaving() -> None:
    for text in ("BTCUSDT\n-BTCUSDT", "-BTCUSDT\nBTCUSDT"):
        wanted = parse_lines(text)
        assert (wanted.names, wanted.leaving) == (frozenset({"BTCUSDT"}), frozenset())


@pytest.mark.parametrize(
    "line",
    [
        "BTCUSDT ETHUSDT",
        "BTCUSDT heal gap",
        "BTCUSDT healed",
        "BTCUSDT,ETHUSDT",
        "BTC/USDT",
        "-",
        "--BTCUSDT",
        "all:",
        "all:USDT:BTC",
        "BTCUSDT:heal",
        "btcusdt@aggTrade",
        '"BTCUSDT"',
        "\ufeffBTCUSDT",
        "X" * 65,
    ],
)
def test_a_line_that_cannot_be_understood_is_named(line: str) -> None:
    with pytest.raises(StopError, match="line 2 of the symbols file"):
        parse_lines(f"ETHUSDT\n{line}\n")


def test_what_a_symbol_can_be_called() -> None:
    assert all(could_be_listed(name) for name in ("BTCUSDT", "1INCHUSDT", "币安人生USDT", "A" * 64))
    for name in ("", "A" * 65, "BTC USDT", "BTC,ETH", "BTC\n", "[BTC]", "BTC%20"):
        assert not could_be_listed(name)


@given(text=LINES, names=st.lists(NAMES, max_size=3), how=st.sampled_from([None, *Return]))
def test_what_is_added_is_wanted_and_nothing_else_changes(
    text: str, names: list[str], how: Return | None
) -> None:
    before, after = parse_lines(text), parse_lines(with_added(text, names, how=how))
    assert after.names == before.names | set(names)
    assert after.leaving == before.leaving - set(names)
    assert after.quotes == before.quotes
    for name, told in (dict(before.returns) | dict(after.returns)).items():
        if name in names:
            assert dict(after.returns).get(name) is how
        else:
            assert dict(before.returns).get(name) is dict(after.returns).get(name) is told


@given(text=LINES, names=st.lists(NAMES, max_size=3))
def test_what_is_removed_is_leaving_and_nothing_else_changes(text: str, names: list[str]) -> None:
    before, after = parse_lines(text), parse_lines(with_removed(text, names))
    assert after.names == before.names - set(names)
    assert after.leaving == before.leaving | set(names)
    assert after.quotes == before.quotes
    assert dict(after.returns) == {name: how for name, how in before.returns if name not in names}


@given(text=LINES, names=st.lists(NAMES, max_size=3), how=st.sampled_from([None, *Return]))
def test_adding_and_removing_twice_is_once_and_comments_stay(
    text: str, names: list[str], how: Return | None
) -> None:
    added, removed = with_added(text, names, how=how), with_removed(text, names)
    assert parse_lines(with_added(added, names, how=how)) == parse_lines(added)
    assert with_removed(removed, names) == removed
    assert parse_lines(with_added(removed, names, how=how)) == parse_lines(added)
    for line in text.splitlines():
        if line.strip().startswith("#"):
            assert line in added
            assert line in removed


def test_a_quote_asset_is_added_and_removed_like_a_name() -> None:
    text = with_added("BTCUSDT\n", ["all:usdt"], how=None)
    assert parse_lines(text).quotes == {"USDT"}
    assert parse_lines(with_removed(text, ["all:usdt"])).quotes == frozenset()
