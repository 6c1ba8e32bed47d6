from typing import Any

import pytest

from k2.doctor.finding import Finding, Level
from k2.doctor.topics_judgement import (
    Topic,
    judge_all_retention,
    judge_election,
    judge_replication,
    judge_retention,
    judge_topics,
)
from k2.kafka.topics import TopicNames

NAMES = {
    use: getattr(TopicNames.of("p"), use)
    for use in ("trades", "positions", "gaps", "repairs", "lease")
}
DAY_S = 86_400.0


def _topic(**differing: Any) -> Topic:
    settings = {
        "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false",
        "cleanup.policy": "delete",
        "retention.ms": str(7 * 86_400_000),
        "retention.bytes": "-1",
    } | differing.pop("settings", {})
    made = {"partitions": 1, "replicas": 3, "in_sync": 3, "settings": settings} | differing
    return Topic(**made)


def _words(found: Finding, level: Level, *words: str) -> None:
    assert found.level is level, found
    assert bool(found.fix) is (level is not Level.OK)
    for word in words:
        assert word in found.seen + found.fix


@pytest.mark.parametrize(
    ("topic", "brokers", "level", "word"),
    [
        (_topic(), 3, Level.OK, "3 replicas"),
        (_topic(in_sync=2), 3, Level.WARN, "is behind"),
        (_topic(in_sync=1), 3, Level.FAIL, "nothing can be written"),
        (_topic(leaderless=1), 3, Level.FAIL, "without a leader"),
        (_topic(settings={"min.insync.replicas": "1"}), 3, Level.WARN, "one broker alone"),
        (_topic(settings={"min.insync.replicas": "3"}), 3, Level.WARN, "stops all writing"),
        (_topic(replicas=2, in_sync=2), 3, Level.WARN, "stops all writing"),
        (_topic(replicas=1, in_sync=1), 1, Level.WARN, "before 3.7"),
        (_topic(replicas=1, in_sync=0), 1, Level.FAIL, "nothing can be written"),
        (
            _topic(replicas=1, in_sync=1, settings={"min.insync.replicas": "1"}),
            1,
            Level.WARN,
            "only broker",
        ),
        (
            _topic(replicas=1, in_sync=1, settings={"min.insync.replicas": "1"}),
            3,
            Level.FAIL,
            "one death loses it",
        ),
        (_topic(settings={}, replicas=3), 3, Level.OK, "3 replicas"),
    ],
)
def test_replication_is_judged_by_what_a_brokers_death_costs(
    topic: Topic, brokers: int, level: Level, word: str
) -> None:
    _words(judge_replication(topic, brokers=brokers), level, word)


def test_unclean_elections_fail() -> None:
    _words(judge_election(_topic()), Level.OK, "off")
    unclean = _topic(settings={"unclean.leader.election.enable": "true"})
    _words(judge_election(unclean), Level.FAIL, "unclean.leader.election.enable=false")


@pytest.mark.parametrize(
    ("use", "settings", "level", "word"),
    [
        ("trades", {}, Level.OK, "7 days"),
        ("trades", {"retention.ms": "-1"}, Level.OK, "for ever"),
        ("trades", {"retention.ms": str(3 * 86_400_000)}, Level.OK, "3 days"),
        ("trades", {"retention.ms": str(3 * 86_400_000 - 1)}, Level.FAIL, "retention.ms=259200000"),
        ("trades", {"retention.bytes": "1000"}, Level.WARN, "retention.bytes=-1"),
        ("trades", {"cleanup.policy": "compact"}, Level.FAIL, "cleanup.policy=delete"),
        ("gaps", {"cleanup.policy": "compact,delete"}, Level.FAIL, "cleanup.policy=delete"),
        ("positions", {"cleanup.policy": "compact"}, Level.OK, "compacted"),
        ("positions", {"cleanup.policy": "compact", "retention.ms": "1"}, Level.OK, "compacted"),
        ("positions", {}, Level.FAIL, "cleanup.policy=compact"),
        ("positions", {"cleanup.policy": "compact,delete"}, Level.FAIL, "cleanup.policy=compact"),
    ],
)
def test_retention_is_judged_against_the_stated_outage(
    use: str, settings: dict[str, str], level: Level, word: str
) -> None:
    found = judge_retention(use, _topic(settings=settings), outage_s=3 * DAY_S)
    _words(found, level, word)


def test_settings_that_are_kept_from_us_are_a_warning() -> None:
    hidden = Topic(partitions=1, replicas=3, in_sync=3)
    assert judge_election(hidden).level is Level.WARN
    assert judge_retention("trades", hidden, outage_s=1).level is Level.WARN


def _existence(topics: dict[str, Topic], *, shards: int = 1) -> Finding:
    return judge_topics(topics, names=NAMES, brokers=3, shards=shards)[0]


def test_before_the_first_start_there_are_no_topics_and_that_is_a_warning() -> None:
    _words(_existence({"somebody.elses": _topic()}), Level.WARN, "`k2 stream` creates them")


def test_some_topics_without_the_others_fail() -> None:
    some = {name: _topic() for use, name in NAMES.items() if use != "positions"}
    _words(_existence(some), Level.FAIL, "missing: p.binance.positions")


def test_differing_partition_counts_fail_and_are_listed() -> None:
    odd = {name: _topic() for name in NAMES.values()} | {NAMES["gaps"]: _topic(partitions=2)}
    _words(_existence(odd), Level.FAIL, "p.binance.gaps 2", "p.binance 1")


def test_a_partition_count_other_than_the_setting_is_a_warning() -> None:
    six = {name: _topic(partitions=6) for name in NAMES.values()}
    _words(_existence(six, shards=6), Level.OK, "5 of 6 partitions")
    _words(_existence(six, shards=1), Level.WARN, "K2_SHARDS=6")


def test_topics_of_which_the_same_is_true_share_a_line_the_worst_first() -> None:
    topics = {name: _topic() for name in NAMES.values()}
    topics[NAMES["lease"]] = _topic(in_sync=1)
    lines = [
        one
        for one in judge_topics(topics, names=NAMES, brokers=3, shards=1)
        if one.check == "replication"
    ]
    assert [one.level for one in lines] == [Level.FAIL, Level.OK]
    assert lines[0].seen.endswith(": p.binance.lease")
    assert lines[1].seen.endswith(
        ": p.binance, p.binance.positions, p.binance.gaps, p.binance.repairs"
    )


def test_neither_the_lease_nor_dead_letters_are_kept_for_an_outage() -> None:
    short = _topic(settings={"retention.ms": "1"})
    names = NAMES | {"dlq": "p.binance.dlq"}
    topics = dict.fromkeys(("p.binance.lease", "p.binance.dlq"), short)
    assert judge_all_retention(topics, names=names, outage_s=DAY_S) == []
    (found,) = judge_all_retention({"p.binance": short}, names=names, outage_s=DAY_S)
    assert found.level is Level.FAIL
