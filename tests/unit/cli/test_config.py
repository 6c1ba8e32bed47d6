"""``k2 config show``: what commands follow here, and no secret of it."""

import json
import shlex
from pathlib import Path

import pytest

from k2.cli.config import show
from k2.cli.output import Output
from k2.settings.security import MASK

CANARY = "canary-of-config-show"


def test_it_shows_what_k2_up_ran_last_and_the_environment_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = ("BINANCE_SYMBOLS=SOLUSDT", "KAFKA_TOPIC_PREFIX=ours")
    (tmp_path / "k2.env").write_text("\n".join(ran) + "\n")
    monkeypatch.setenv("KAFKA_TOPIC_PREFIX", "theirs")
    assert show(state_dir=tmp_path) == 0
    lines = [line.partition("=") for line in capsys.readouterr().out.splitlines()]
    told = {name: shlex.split(value or "''")[0] for name, _, value in lines}
    assert (told["BINANCE_SYMBOLS"], told["KAFKA_TOPIC_PREFIX"]) == ("SOLUSDT", "theirs")


def test_of_a_secret_it_shows_only_that_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": "k2",
        "KAFKA_SASL_PASSWORD": CANARY,
        "SCHEMA_REGISTRY_USERNAME": "k2",
        "SCHEMA_REGISTRY_PASSWORD": CANARY,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for output in (Output(), Output(json=True)):
        assert show(state_dir=tmp_path, output=output) == 0
        said = capsys.readouterr().out
        assert CANARY not in said
        assert said.count(MASK) == 2
    told = {one["variable"]: one["value"] for one in json.loads(said)}
    assert told["KAFKA_SASL_PASSWORD"] == MASK
