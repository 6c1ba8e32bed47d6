import json
from typing import Any

import pytest

from k2.simulator.control_messages import ErrorShape, Subscriptions, answer


def _ask(request: str | dict[str, Any], state: Subscriptions | None = None) -> Any:
    text = request if isinstance(request, str) else json.dumps(request)
    reply = answer(text, state or Subscriptions(combined=True), shape=ErrorShape.FLAT)
    assert reply is not None
    return json.loads(reply)


def test_the_five_methods_answer_null_list_and_boolean() -> None:
    state = Subscriptions(combined=False)
    subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade", "x@y"], "id": 1}
    assert _ask(subscribe, state) == {"result": None, "id": 1}
    assert _ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}, state) == {
        "result": ["btcusdt@aggTrade", "x@y"],
        "id": 3,
    }
    unsubscribe = {"method": "UNSUBSCRIBE", "params": ["x@y", "never@there"], "id": 2}
    assert _ask(unsubscribe, state) == {"result": None, "id": 2}
    assert list(state.stream_names) == ["btcusdt@aggTrade"]
    get = {"method": "GET_PROPERTY", "params": ["combined"], "id": 5}
    assert _ask(get, state) == {"result": False, "id": 5}
    assert _ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 4}, state) == {
        "result": None,
        "id": 4,
    }
    assert _ask(get, state) == {"result": True, "id": 5}


@pytest.mark.parametrize("name", ["BTCUSDT@aggTrade", "nosuch@aggTrade", "这是测试币456@trade", ""])
def test_unknown_and_uppercase_names_succeed(name: str) -> None:
    request = {"method": "SUBSCRIBE", "params": [name], "id": None}
    assert _ask(request) == {"result": None, "id": None}


def test_subscribing_twice_is_one_subscription() -> None:
    state = Subscriptions(combined=True)
    for _ in range(2):
        _ask({"method": "SUBSCRIBE", "params": ["a@trade", "a@trade"], "id": 1}, state)
    assert list(state.stream_names) == ["a@trade"]


UUID = "5494febb-d167-46a2-996d-70533eb4d976"


@pytest.mark.parametrize("request_id", [0, -1, 2**63 - 1, -(2**63), "abc", UUID, None])
def test_every_documented_id_comes_back(request_id: int | str | None) -> None:
    asked = {"method": "LIST_SUBSCRIPTIONS", "id": request_id}
    assert _ask(asked) == {"result": [], "id": request_id}


@pytest.mark.parametrize("request_id", [2**63, 1.5, True, [1], {}, "x" * 37, "", "a b"])
def test_other_ids_are_refused(request_id: object) -> None:
    error = _ask({"method": "LIST_SUBSCRIPTIONS", "id": request_id})
    assert error == {
        "code": 2,
        "msg": "Invalid request: request ID must be an unsigned integer",
    }


ERRORS: list[tuple[str, int, str]] = [
    ('{"method":"LIST_SUBSCRIPTIONS"}', 2, "Invalid request: request ID must be an unsigned"),
    ('{"ping":1705228800000}', 2, "Invalid request: missing field `method` at line 1 column 22"),
    ("[object Object]", 3, "Invalid JSON: expected value at line 1 column 2"),
    ("", 3, "Invalid JSON: expected value at line 1 column 1"),
    ("{} {}", 3, "Invalid JSON: expected value at line 1 column 4"),
    ("[1]", 2, "Invalid request"),
    ('{"method":"subscribe","id":1}', 2, "Invalid request: unknown variant subscribe, expected"),
    ('{"method":["SUBSCRIBE"],"id":1}', 2, "Invalid request: unknown variant"),
    ('{"method":"SUBSCRIBE","id":1}', 2, "Invalid request"),
    ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2, "Invalid request"),
    ('{"method":"SUBSCRIBE","params":"a@b","id":1}', 2, "Invalid request"),
    ('{"method":"SET_PROPERTY","params":["fast",true],"id":1}', 0, "Unknown property"),
    ('{"method":"GET_PROPERTY","params":["fast"],"id":1}', 0, "Unknown property"),
    (
        '{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}',
        1,
        "Invalid value type: expected Boolean",
    ),
    ('{"method":"SET_PROPERTY","params":["combined"],"id":1}', 1, "Invalid value type"),
    (
        '{"method":"SET_PROPERTY","params":[1,true],"id":1}',
        2,
        "Invalid request: property name must be a string",
    ),
    ('{"method":"GET_PROPERTY","id":1}', 2, "Invalid request: property name must be a string"),
    (
        '{"method":"GET_PROPERTY","params":["combined",true],"id":1}',
        2,
        "Invalid request: too many parameters",
    ),
    (
        '{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":1}',
        2,
        "Invalid request: too many parameters",
    ),
]


@pytest.mark.parametrize(("text", "code", "msg"), ERRORS)
def test_errors_have_the_documented_code_and_text(text: str, code: int, msg: str) -> None:
    error = _ask(text)
    assert error["code"] == code
    assert error["msg"].startswith(msg)


def test_an_unknown_variant_names_the_known_ones() -> None:
    error = _ask({"method": "PING", "id": 1})
    assert "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`" in error["msg"]
    assert "at line 1 column" in error["msg"]


def test_the_nested_shape_carries_the_id_when_it_could_be_read() -> None:
    state = Subscriptions(combined=True)
    bad_property = '{"method":"GET_PROPERTY","params":[],"id":7}'
    reply = answer(bad_property, state, shape=ErrorShape.NESTED)
    assert json.loads(reply or "") == {
        "error": {"code": 2, "msg": "Invalid request: property name must be a string"},
        "id": 7,
    }
    reply = answer("nonsense", state, shape=ErrorShape.NESTED)
    assert json.loads(reply or "").keys() == {"error"}


def test_only_1024_streams_fit_on_a_connection_and_a_refused_request_changes_nothing() -> None:
    state = Subscriptions(combined=True)
    for start in range(0, 1024, 128):
        names = [f"s{n}@trade" for n in range(start, start + 128)]
        assert _ask({"method": "SUBSCRIBE", "params": names, "id": 1}, state)["result"] is None
    error = _ask({"method": "SUBSCRIBE", "params": ["new@trade"], "id": 19}, state)
    assert (error["code"], error["msg"]) == (4, "Too many subscriptions")
    assert len(state.stream_names) == 1024
    assert _ask({"method": "SUBSCRIBE", "params": ["s5@trade"], "id": 1}, state)["id"] == 1


def test_an_oversized_request_gets_no_reply() -> None:
    state = Subscriptions(combined=True)
    names = [f"symbol{n}usdt@aggTrade" for n in range(500)]
    request = json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1})
    assert answer(request, state, shape=ErrorShape.FLAT) is None
    assert not state.stream_names
