import msgspec
import pytest

from k2.ingestion.health import (
    ComparedHealth,
    DependencyHealth,
    LakeHealth,
    MemoryHealth,
    Problem,
    ShardHealth,
    TopicHealth,
)
from k2.ingestion.judgement import archive_problems, capture_problems
from unit.ingestion.pretended_status import ARCHIVE, GOOD

AWAY = DependencyHealth("there:1", False, 12.0, "no answer")


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        ({}, []),
        ({"connection_state": "ROTATING"}, []),
        ({"connection_state": "CONNECTING"}, [("bad", "not_connected")]),
        ({"connection_state": "DISCONNECTED"}, [("bad", "not_connected")]),
        ({"phase": "stopping", "connection_state": "DISCONNECTED"}, [("warn", "stopping")]),
        ({"kafka": AWAY}, [("bad", "kafka_away")]),
        ({"kafka": DependencyHealth("there:1", None, 0.0)}, []),
        ({"schema_registry": AWAY}, [("warn", "registry_away")]),
        ({"promise_broken": 2}, [("bad", "promise_broken")]),
        ({"memory": MemoryHealth(1, 0.81, 2.0, [])}, [("warn", "memory_grows")]),
        ({"memory": MemoryHealth(1, 0.8, 2.0, [])}, []),
        ({"compared": [ComparedHealth("X", 9, 1, 0, 0, 0.9, "")]}, [("warn", "heard_otherwise")]),
        ({"lake": None}, []),
        ({"lake": LakeHealth("http://a", False, False, 9.0, None)}, []),
        ({"lake": LakeHealth("http://a", None, False, 9.0, None)}, []),
        ({"lake": LakeHealth("http://a", False, True, 9.0, None)}, [("warn", "archive_away")]),
        (
            {"schema_registry": AWAY, "kafka": AWAY},
            [("bad", "kafka_away"), ("warn", "registry_away")],
        ),
    ],
)
def test_each_thing_that_is_wrong_is_named_worst_first(
    change: dict[str, object], levels: list[tuple[str, str]]
) -> None:
    health = msgspec.structs.replace(GOOD, **change)
    found = capture_problems(health, registered=True)
    assert [(problem.level, problem.what) for problem in found] == levels
    assert all(problem.text.endswith(".") for problem in found)


def test_positions_that_cannot_be_read_are_told_with_the_reason() -> None:
    blind = ShardHealth(
        shard=0,
        role="standby",
        symbols={},
        pending=0,
        takeovers=0,
        last_takeover=None,
        last_takeover_pause_s=None,
        holes=[],
        open_gaps=0,
        last_commit_age_s=None,
        waiting_s=None,
        last_news_age_s=1.0,
        unread="no right to",
    )
    (problem,) = capture_problems(msgspec.structs.replace(GOOD, shards=[blind]), registered=True)
    assert (problem.level, problem.what) == ("warn", "positions_unread")
    assert "no right to" in problem.text


def test_what_is_wrong_with_the_archive_is_a_thing_to_watch_for_the_capture() -> None:
    ill = msgspec.structs.replace(ARCHIVE, problems=[Problem("bad", "kafka_away", "Away.")])
    health = msgspec.structs.replace(GOOD, lake=LakeHealth("http://a", True, True, 9.0, ill))
    (problem,) = capture_problems(health, registered=True)
    assert (problem.level, problem.text) == ("warn", "Archive: Away.")


@pytest.mark.parametrize(
    ("change", "levels"),
    [
        ({}, []),
        ({"phase": "starting"}, [("bad", "starting")]),
        ({"phase": "stopping"}, [("warn", "stopping")]),
        ({"kafka": AWAY}, [("bad", "kafka_away")]),
        ({"topics": [TopicHealth("trades", 500, 61.0)]}, [("bad", "table_commits_stalled")]),
        ({"topics": [TopicHealth("trades", 0, 0.0, "no right to")]}, [("bad", "topic_unread")]),
        ({"promise_broken": 1}, [("bad", "promise_broken")]),
        ({"memory": MemoryHealth(1, 0.9, 2.0, [])}, [("warn", "memory_grows")]),
    ],
)
def test_an_archives_problems_are_named(
    change: dict[str, object], levels: list[tuple[str, str]]
) -> None:
    found = archive_problems(msgspec.structs.replace(ARCHIVE, **change))
    assert [(problem.level, problem.what) for problem in found] == levels


def test_words_an_operator_greps_for_in_trouble_are_in_no_healthy_answer() -> None:
    text = msgspec.json.encode(GOOD).decode().lower()
    assert not [w for w in ("error", "exception", "critical", "invalid", "parse") if w in text]


def test_recording_goes_on_without_a_registry_only_where_it_has_begun() -> None:
    away = msgspec.structs.replace(GOOD, schema_registry=AWAY)
    (problem,) = capture_problems(away, registered=True)
    assert problem.text.endswith("; recording goes on without it.")
    starting = msgspec.structs.replace(away, phase="starting")
    found = capture_problems(starting, registered=False)
    assert [one.what for one in found] == ["starting", "registry_away"]
    assert not any("goes on" in one.text for one in found)
