"""Kafka's addresses behind TLS: the doctor believes whom the services believe, and until when.

That a broker's own demands are met (its certificate of ours) is tested on one, in tests/system.
"""

from pathlib import Path

import pytest

from k2.doctor.checks import checks_of
from k2.doctor.finding import Finding, Level
from k2.settings import Settings
from unit.doctor.servers import DAY, Authority, make_authority, tls_port


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Return an authority that only the settings of Kafka name."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", str(tmp_path / "authority.pem"))
    return make_authority(tmp_path)


def _seen(port: int, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Return what the look at the one address of Kafka finds."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", f"127.0.0.1:{port}")
    first = checks_of(Settings(), subjects=["kafka"], outage_s=1.0, log_dir=Path())[0]
    return list(first.look())


def test_a_certificate_the_settings_believe_is_told_with_its_days(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_port(authority.context("127.0.0.1", left=20 * DAY)) as port:
        found = _seen(port, monkeypatch)
    assert [one.check.split()[-1] for one in found] == ["DNS", "TCP", "TLS"]
    assert found[-1].level is Level.OK
    assert "by doctor test authority, 20 days left" in found[-1].seen


def test_one_that_ends_this_week_is_a_warning(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_port(authority.context("127.0.0.1", left=3 * DAY)) as port:
        found = _seen(port, monkeypatch)[-1]
    assert (found.level, "3 days left" in found.seen) == (Level.WARN, True)


def test_one_of_another_authority_fails_and_the_fix_names_kafkas_setting(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAFKA_SSL_CA_LOCATION")
    with tls_port(authority.context("127.0.0.1")) as port:
        found = _seen(port, monkeypatch)[-1]
    assert found.level is Level.FAIL
    assert "not believed" in found.seen
    assert "KAFKA_SSL_CA_LOCATION" in found.fix
    assert "BINANCE" not in found.fix


def test_a_listener_without_tls_fails_and_the_fix_names_the_protocol(
    authority: Authority, plain_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del authority
    found = _seen(plain_port, monkeypatch)[-1]
    assert found.level is Level.FAIL
    assert "KAFKA_SECURITY_PROTOCOL" in found.fix


def test_files_that_hold_no_certificates_are_named(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    del authority
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("KAFKA_SSL_CA_LOCATION", str(empty))
    (found,) = _seen(9, monkeypatch)
    assert (found.check, found.level) == ("certificates", Level.FAIL)
    assert "KAFKA_SSL_CA_LOCATION" in found.seen


def test_without_tls_no_certificate_is_asked_for(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [one.check.split()[-1] for one in _seen(deaf_port, monkeypatch)] == ["DNS", "TCP"]
