from k2.market import StreamKind


def test_stream_kinds_have_codes_that_never_share_a_key_space() -> None:
    assert {kind: kind.code for kind in StreamKind} == {
        StreamKind.AGG_TRADE: "agg",
        StreamKind.TRADE: "trade",
    }
    assert StreamKind("aggTrade") is StreamKind.AGG_TRADE
