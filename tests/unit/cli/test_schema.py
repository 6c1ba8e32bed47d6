"""``k2 schema show --registered``, whatever was registered."""

import json

import pytest

from k2.cli.output import Output
from k2.cli.schema import schema_show
from k2.errors import RejectError
from k2.kafka.registry import Registered, Registry

ARRAY = '{"name":"b","type":{"type":"array","items":"int"}}'
DECIMAL = '{"name":"c","type":{"type":"bytes","logicalType":"decimal","precision":4}}'


def registered(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(Registry, "latest", lambda *_: Registered("s", 1, 1, text))


@pytest.mark.parametrize(
    "text",
    [
        'syntax = "proto3"; message X {}',
        '"string"',
        '{"type":"object","properties":{}}',
        '{"type":"record","name":"X","fields":[7]}',
        '{"type":"record","name":"X","fields":[{"name":"a"}]}',
        '{"type":"record","name":"X","fields":[{"name":"a","type":{"logicalType":"decimal"}}]}',
        '{"type":"record","name":"X","fields":[{"name":"a","type":{"items":"int"}}]}',
    ],
)
def test_what_is_no_avro_record_is_said_to_be_none(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    registered(monkeypatch, text)
    with pytest.raises(RejectError, match="no Avro record"):
        schema_show(registered=True)


def test_any_avro_record_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = f'{{"name":"a","type":["null","long"]}},{ARRAY},{DECIMAL}'
    registered(monkeypatch, f'{{"type":"record","name":"X","fields":[{fields}]}}')
    assert schema_show(registered=True) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("null or long", "array", "decimal(4,0)"))


def test_a_program_gets_what_is_json_as_it_is_and_no_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registered(monkeypatch, '"string"')
    assert schema_show(registered=True, output=Output(json=True)) == 0
    assert json.loads(capsys.readouterr().out) == "string"
    registered(monkeypatch, 'syntax = "proto3";')
    with pytest.raises(RejectError, match="no Avro record"):
        schema_show(registered=True, output=Output(json=True))
