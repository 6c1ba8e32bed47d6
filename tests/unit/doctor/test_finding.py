import pytest

from k2.doctor.finding import Level, duration_text, fail, merged, ok, warn, with_spares, worst


def test_the_worst_finding_counts() -> None:
    assert worst([]) is Level.OK
    assert worst([ok("a", ""), warn("b", "", fix="x")]) is Level.WARN
    assert worst([fail("a", "", fix="x"), warn("b", "", fix="x")]) is Level.FAIL


def test_a_failed_address_is_a_warning_while_another_works() -> None:
    found = with_spares(
        {
            "one": [ok("one DNS", "1 address"), fail("one TCP", "refused", fix="start it")],
            "two": [ok("two DNS", "1 address"), warn("two TLS", "3 days", fix="renew")],
        }
    )
    assert [one.level for one in found["one"]] == [Level.OK, Level.WARN]
    assert found["one"][1].seen == "refused (two works)"
    assert found["one"][1].fix == "start it"
    assert [one.level for one in found["two"]] == [Level.OK, Level.WARN]


def test_where_every_address_fails_they_are_failures() -> None:
    broken = [fail("x", "refused", fix="start it")]
    assert with_spares({"one": broken, "two": broken}) == {"one": broken, "two": broken}
    assert with_spares({"one": broken}) == {"one": broken}


def test_names_of_which_the_same_is_true_share_a_line() -> None:
    found = merged(
        "keeping",
        {"a": ok("", "7 days"), "b": fail("", "1 day", fix="more"), "c": ok("", "7 days")},
    )
    assert found == [fail("keeping", "1 day: b", fix="more"), ok("keeping", "7 days: a, c")]


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 ms"),
        (0.0034, "3.4 ms"),
        (0.034, "34 ms"),
        (1.25, "1.2 s"),
        (60, "60 s"),
        (900, "15 min"),
        (7200, "2.0 h"),
        (259_200, "3 days"),
    ],
)
def test_durations_are_said_as_people_do(duration_s: float, text: str) -> None:
    assert duration_text(duration_s) == text
