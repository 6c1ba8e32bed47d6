"""``k2 doctor`` from its command line to its exit code."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from k2.cli import main
from k2.cli.doctor import Subject
from k2.doctor.checks import SUBJECTS, checks_of
from k2.settings import Settings


@pytest.fixture(autouse=True)
def clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["k2", "doctor", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _nothing_there(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv("BINANCE_WS_URL", f"ws://{address}/ws")
    monkeypatch.setenv("BINANCE_REST_URL", f"http://{address}")
    monkeypatch.setenv("KAFKA_BOOTSTRAP", address)
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", f"http://{address}")


def _findings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return found


def test_every_subject_can_be_asked_for_by_name() -> None:
    assert get_args(Subject) == SUBJECTS
    for subject in SUBJECTS:
        checks = checks_of(Settings(), subjects=[subject], outage_s=1, log_dir=Path("logs"))
        assert {check.subject for check in checks} == {subject}


def test_help_has_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Usage: k2 doctor" in told
    assert "k2 doctor kafka registry --json" in told


def test_where_nothing_answers_every_dependency_fails_with_a_fix_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed_port: int
) -> None:
    _nothing_there(monkeypatch, closed_port)
    assert _run(monkeypatch, "--json") == 1
    found = _findings(capsys)
    failed = {one["subject"] for one in found if one["level"] == "fail"}
    assert failed == {"ws", "rest", "kafka", "registry"}
    assert all(one["seen"] for one in found)
    assert all(bool(one["fix"]) is (one["level"] != "ok") for one in found)


def test_a_dependency_that_never_answers_costs_its_own_lines_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], deaf_port: int
) -> None:
    _nothing_there(monkeypatch, deaf_port)
    monkeypatch.setattr("k2.doctor.checks.DEADLINE_S", 1.0)
    monkeypatch.setattr("k2.doctor.checks.KAFKA_DEADLINE_S", 1.0)
    assert _run(monkeypatch, "rest", "machine", "kafka", "--json") == 1
    levels = {one["check"]: one["level"] for one in _findings(capsys)}
    assert levels[f"127.0.0.1:{deaf_port}"] == "fail"
    assert levels["cluster"] == "fail"
    assert levels["open files"] != "fail"


def test_all_well_is_exit_0_and_warnings_are_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "lake", "--json") == 0
    assert [one["level"] for one in _findings(capsys)] == ["warn"]


def test_text_shows_a_line_each_and_the_fix_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed_port: int
) -> None:
    _nothing_there(monkeypatch, closed_port)
    assert _run(monkeypatch, "registry") == 1
    out, err = capsys.readouterr()
    assert re.search(r"^ok +registry  127.0.0.1 DNS +\S", out, re.MULTILINE)
    assert re.search(
        rf"^fail +registry  127.0.0.1:{closed_port} TCP +.*refused\n +fix: .*SCHEMA_REGISTRY_URL",
        out,
        re.MULTILINE,
    )
    assert out.endswith("2 looked at: 1 fail, 0 warn\n")
    assert err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["everything"],
        ["--outage-h", "0"],
        ["--outage-h", "soon"],
        ["--kafka-bootstrap", "nonsense"],
    ],
)
def test_what_cannot_be_meant_is_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert _run(monkeypatch, *words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_setting_is_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BINANCE_WS_ULR", "ws://x")
    assert _run(monkeypatch) == 2
    assert "BINANCE_WS_ULR" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["closed_port", "deaf_port"])
def test_passwords_in_addresses_are_not_shown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    port: str,
) -> None:
    number = request.getfixturevalue(port)
    monkeypatch.setattr("k2.doctor.checks.DEADLINE_S", 1.0)
    for name, scheme in (
        ("SCHEMA_REGISTRY_URL", "http"),
        ("BINANCE_REST_URL", "http"),
        ("BINANCE_WS_URL", "ws"),
    ):
        address = f"anna:hunter2@127.0.0.1:{number}"  # pragma: allowlist secret
        monkeypatch.setenv(name, f"{scheme}://{address}")
    assert _run(monkeypatch, "registry", "rest", "ws", "--json") == 2
    told = capsys.readouterr()
    assert "without a user in it" in told.err
    assert "hunter2" not in told.out + told.err
