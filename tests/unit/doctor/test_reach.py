"""Names, ports and certificates: each looked at on a real socket."""

import pytest

from k2.doctor.finding import Finding, Level, Unseen
from k2.doctor.reach_judgement import (
    Certificate,
    Place,
    Refused,
    judge_certificate,
    judge_names,
)
from k2.doctor.reach_look import look_at_address, place_of, reached, shake_hands
from unit.doctor.servers import DAY, Authority, tls_port

SETTING = "BINANCE_WS_URL"


def _at(port: int, *, tls: bool) -> list[Finding]:
    return list(look_at_address(Place("127.0.0.1", port, SETTING), tls=tls))


def test_the_port_of_an_address_is_its_schemes_unless_it_says_another() -> None:
    assert place_of("wss://stream.binance.com:9443/ws", setting=SETTING).port == 9443
    assert place_of("wss://data-stream.binance.vision/ws", setting=SETTING).port == 443
    assert place_of("http://localhost", setting=SETTING).port == 80
    secret = place_of("https://name:secret@registry:8085", setting=SETTING)
    assert str(secret) == "registry:8085"


def test_a_host_without_an_address_is_a_failure_of_dns_and_nothing_more_is_tried() -> None:
    (found,) = reached("wss://nowhere.invalid/ws", setting=SETTING)
    assert (found.check, found.level) == ("nowhere.invalid DNS", Level.FAIL)
    assert SETTING in found.fix


def test_a_closed_port_is_a_failure_of_tcp(closed_port: int) -> None:
    name, port = _at(closed_port, tls=True)
    assert name.level is Level.OK
    assert (port.check, port.level) == (f"127.0.0.1:{closed_port} TCP", Level.FAIL)
    assert "refused" in port.seen
    assert "firewall" in port.fix


def test_a_certificate_that_holds_is_shown_with_its_days(authority: Authority) -> None:
    with tls_port(authority.context("127.0.0.1", left=90 * DAY)) as port:
        found = _at(port, tls=True)
    assert [one.level for one in found] == [Level.OK] * 3
    assert "certificate of 127.0.0.1 by doctor test authority" in found[-1].seen
    assert "90 days left" in found[-1].seen
    assert "TLSv1.3" in found[-1].seen


def test_a_certificate_that_ends_within_days_is_a_warning(authority: Authority) -> None:
    with tls_port(authority.context("127.0.0.1", left=3 * DAY)) as port:
        found = _at(port, tls=True)[-1]
    assert found.level is Level.WARN
    assert "3 days left" in found.seen


def test_a_certificate_of_another_name_fails(authority: Authority) -> None:
    with tls_port(authority.context("stream.binance.com")) as port:
        found = _at(port, tls=True)[-1]
    assert found.level is Level.FAIL
    assert "not valid for '127.0.0.1'" in found.seen
    assert "the name the certificate is for" in found.fix


def test_a_certificate_that_has_ended_fails_and_the_clock_is_suspected(
    authority: Authority,
) -> None:
    with tls_port(authority.context("127.0.0.1", left=-DAY)) as port:
        found = _at(port, tls=True)[-1]
    assert found.level is Level.FAIL
    assert "expired" in found.seen
    assert "`date`" in found.fix


def test_a_certificate_by_an_unknown_authority_fails(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with tls_port(authority.context("127.0.0.1")) as port:
        found = _at(port, tls=True)[-1]
    assert found.level is Level.FAIL
    assert "CA file in BINANCE_TLS_CA" in found.fix


def test_a_port_that_does_not_speak_tls_fails(plain_port: int) -> None:
    found = _at(plain_port, tls=True)[-1]
    assert found.level is Level.FAIL
    assert found.seen.startswith("no TLS handshake")
    assert "scheme" in found.fix


def test_without_tls_no_certificate_is_asked_for(deaf_port: int) -> None:
    found = list(reached(f"ws://127.0.0.1:{deaf_port}/ws", setting=SETTING))
    assert [one.check.split()[-1] for one in found] == ["DNS", "TCP"]
    assert {one.level for one in found} == {Level.OK}


def test_a_handshake_that_is_never_answered_ends(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.doctor.reach_look.CONNECT_TIMEOUT_S", 0.2)
    seen = shake_hands(Place("127.0.0.1", deaf_port, SETTING))
    assert seen == Unseen("nothing answered within 0.2 s")


@pytest.mark.parametrize(
    ("code", "word"), [(62, "name"), (64, "name"), (10, "date"), (20, "ca-"), (7, "s_client")]
)
def test_each_reason_to_disbelieve_has_its_own_remedy(code: int, word: str) -> None:
    found = judge_certificate(Place("h", 443, SETTING), Refused(code, "why"))
    assert found.level is Level.FAIL
    assert word in found.fix


def test_of_a_registry_it_is_the_registrys_file_that_names_an_authority() -> None:
    found = judge_certificate(Place("h", 443, "SCHEMA_REGISTRY_URL"), Refused(19, "self-signed"))
    assert "CA file in SCHEMA_REGISTRY_CA_LOCATION" in found.fix


def test_seven_days_are_enough_and_less_is_not() -> None:
    place = Place("h", 443, SETTING)
    for left_days, level in ((7.0, Level.OK), (6.9, Level.WARN)):
        seen = Certificate("h", "ca", left_days, "TLSv1.3")
        assert judge_certificate(place, seen).level is level


def test_what_dns_said_is_told() -> None:
    found = judge_names(Place("h", 1, SETTING), Unseen("Name or service not known"))
    assert found.seen == "Name or service not known"
