"""What a registry says; the real one is looked at by the integration tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from k2.doctor.finding import Finding, Level, Unseen
from k2.doctor.registry_judgement import SubjectSeen, judge_subject
from k2.doctor.registry_look import look_at_subject
from k2.kafka.encoding import SCHEMA_TEXT
from k2.kafka.registry import Registry
from unit.doctor.servers import answering

SUBJECT = "t.binance-value"


@contextmanager
def _registry(**told: Any) -> Iterator[str]:
    """A registry by its documented answers: path (with _ for /) to body; the rest is unknown."""

    async def answer(request: web.Request) -> web.Response:
        body = told.get(request.path.strip("/").replace("/", "_"))
        if body is None:
            return web.json_response({"error_code": 40401, "message": "not found"}, status=404)
        return web.json_response(body)

    with answering("/{path:.*}", answer) as url:
        yield url


def _registered(text: str, **told: Any) -> dict[str, Any]:
    latest = {"subject": SUBJECT, "version": 3, "id": 9, "schema": text}
    return {
        f"subjects_{SUBJECT}_versions_latest": latest,
        f"compatibility_subjects_{SUBJECT}_versions_latest": {"is_compatible": True},
    } | told


def _look(told: dict[str, Any]) -> list[Finding]:
    with _registry(**told) as url:
        return judge_subject(look_at_subject(Registry(url), SUBJECT))


def test_our_own_schema_is_recognised_whatever_its_spacing() -> None:
    (found,) = _look(_registered(json.dumps(json.loads(SCHEMA_TEXT), indent=7)))
    assert found.level is Level.OK
    assert found.seen == "version 3, the same as this k2's"


def test_another_compatible_schema_is_fine() -> None:
    (found,) = _look(_registered('"string"'))
    assert found.level is Level.OK
    assert "next version" in found.seen


def test_an_incompatible_schema_fails() -> None:
    told = _registered('"string"')
    told[f"compatibility_subjects_{SUBJECT}_versions_latest"] = {"is_compatible": False}
    (found,) = _look(told)
    assert found.level is Level.FAIL
    assert "`k2 schema show`" in found.fix


def test_nothing_registered_is_a_warning_unless_nothing_may_be() -> None:
    (found,) = _look({})
    assert (found.level, found.seen) == (Level.WARN, "not registered yet")
    (found,) = _look({"mode": {"mode": "READONLY"}})
    assert found.level is Level.FAIL
    assert "READWRITE" in found.fix


def test_a_read_only_registry_fails_only_where_a_version_is_to_be_added() -> None:
    readonly = {"mode": {"mode": "READONLY_OVERRIDE"}}
    assert _look(_registered(SCHEMA_TEXT, **readonly))[0].level is Level.OK
    assert _look(_registered('"string"', **readonly))[0].level is Level.FAIL


def test_the_subjects_own_mode_and_level_win_over_the_registrys() -> None:
    told = _registered(
        '"string"',
        mode={"mode": "READONLY"},
        config={"compatibilityLevel": "NONE"},
        **{
            f"mode_{SUBJECT}": {"mode": "READWRITE"},
            f"config_{SUBJECT}": {"compatibilityLevel": "FULL"},
        },
    )
    schema, level = _look(told)
    assert schema.level is Level.OK
    assert (level.level, level.seen) == (Level.OK, "FULL")


def test_a_registry_that_takes_anything_is_a_warning() -> None:
    _, found = _look(_registered(SCHEMA_TEXT, config={"compatibilityLevel": "NONE"}))
    assert found.level is Level.WARN
    assert f"PUT /config/{SUBJECT}" in found.fix


def test_an_unreachable_registry_is_one_failure(closed_port: int) -> None:
    seen = look_at_subject(Registry(f"http://127.0.0.1:{closed_port}"), SUBJECT)
    assert isinstance(seen, Unseen)
    (found,) = judge_subject(seen)
    assert found.level is Level.FAIL
    assert "SCHEMA_REGISTRY_URL" in found.fix


@pytest.mark.parametrize("mode", ["READWRITE", "IMPORT", ""])
def test_other_modes_are_no_news(mode: str) -> None:
    (found,) = judge_subject(SubjectSeen(subject=SUBJECT, version=1, same=True, mode=mode))
    assert found.level is Level.OK
