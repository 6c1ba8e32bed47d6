from decimal import Decimal

import msgspec
import pytest

from k2.errors import RejectError
from k2.kafka.position import NOTHING_RECORDED
from k2.kafka.replay_request import (
    ReplayRequest,
    decode_replay,
    encode_replay,
    replay_key,
)
from unit.trades import trade

REQUEST = ReplayRequest("BTCUSDT", (trade(7), trade(9)), "r1")


def test_a_request_comes_back_as_it_was_written_to_the_last_digit() -> None:
    exact = msgspec.structs.replace(trade(9), price=Decimal("93712.0100000000"))
    request = msgspec.structs.replace(REQUEST, trades=(trade(7), exact))
    found = decode_replay(encode_replay(request))
    assert found == request
    assert str(found.trades[1].price) == "93712.0100000000"


@pytest.mark.parametrize(
    "request_",
    [
        msgspec.structs.replace(REQUEST, trades=(trade(9), trade(7))),
        msgspec.structs.replace(REQUEST, trades=(trade(7), trade(7))),
        msgspec.structs.replace(REQUEST, symbol="ETHUSDT"),
    ],
)
def test_trades_are_of_one_symbol_and_ascend(request_: ReplayRequest) -> None:
    with pytest.raises(RejectError, match="one symbol, ascending"):
        decode_replay(encode_replay(request_))


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"{}", b"\xff", b'{"symbol":"X","trades":[{}]}'),
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "no fields", "no text", "no trade", "deep"],
)
def test_what_is_no_request_is_said_to_be_none(value: bytes) -> None:
    with pytest.raises(RejectError, match="not a replay request"):
        decode_replay(value)


def test_a_request_waits_in_the_positions_until_it_is_deleted() -> None:
    said = NOTHING_RECORDED.taken_in(replay_key("r1"), encode_replay(REQUEST))
    assert said.replays == (REQUEST,)
    assert said.requests == ()
    other = msgspec.structs.replace(REQUEST, request_id="r2")
    said = said.taken_in(replay_key("r2"), encode_replay(other))
    assert said.replays == (REQUEST, other)
    assert said.taken_in(replay_key("r1"), None).replays == (other,)


def test_a_request_under_anothers_key_would_never_be_deleted_and_is_refused() -> None:
    with pytest.raises(RejectError, match="names itself"):
        NOTHING_RECORDED.taken_in(replay_key("r2"), encode_replay(REQUEST))
