"""PURE: what the settings and replicas of topics promise."""

from collections.abc import Mapping, Sequence

import msgspec

from k2.doctor.finding import Finding, duration_text, fail, merged, ok, warn

INTERNAL_TOPICS = ("__transaction_state", "__consumer_offsets")

_EVER = -1

_TAPE = ("trades", "positions", "gaps", "repairs", "lease")
"""Partition k of each is shard k's. Dead letters belong to no shard, and are bounded on purpose."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker says of a topic; of its partitions the worst."""

    partitions: int
    replicas: int
    in_sync: int
    leaderless: int = 0
    """Partitions without a leader."""
    settings: dict[str, str] | None = None
    """None where the broker does not tell."""

    def setting_is(self, name: str, value: str) -> bool:
        """Say whether a setting is known and is this."""
        return self.settings is not None and self.settings.get(name) == value


def judge_topics(
    topics: Mapping[str, Topic], *, names: Mapping[str, str], brokers: int, shards: int
) -> list[Finding]:
    """Judge what is the same question for every topic.

    Args:
        topics: Those that exist, Kafka's internal ones included.
        names: Use (``trades``, ``positions`` ...) to topic name, of those k2 needs.
        brokers: How many the cluster has.
        shards: ``K2_SHARDS``.
    """
    return [
        *_existence(topics, names=names, shards=shards),
        *merged(
            "replication",
            {name: judge_replication(t, brokers=brokers) for name, t in topics.items()},
        ),
        *merged("unclean election", {name: judge_election(t) for name, t in topics.items()}),
    ]


def judge_replication(topic: Topic, *, brokers: int) -> Finding:
    """Judge whether a broker's death loses or stops a topic."""
    if topic.leaderless:
        return _fail(
            f"{topic.leaderless} of {topic.partitions} partitions without a leader",
            fix="start the brokers that hold them (`kafka-topics.sh --describe` names them)",
        )
    wanted = int((topic.settings or {}).get("min.insync.replicas", 1))
    said = f"{topic.replicas} replicas, {topic.in_sync} in sync, min.insync.replicas {wanted}"
    # Since Kafka 3.7 no more are waited for than there are replicas (KAFKA-15583; measured, 4.3).
    needed = min(wanted, topic.replicas)
    if topic.in_sync < needed:
        return _fail(
            f"{said}: nothing can be written",
            fix=f"start the missing brokers, or min.insync.replicas={max(1, topic.replicas - 1)}",
        )
    if wanted > topic.replicas:
        return _warn(
            f"{said}: more than there are, which Kafka before 3.7 takes for no writing at all",
            fix=f"add replicas, or min.insync.replicas={max(1, topic.replicas - 1)}",
        )
    if topic.replicas == 1:
        return _only_replica(brokers=brokers)
    return _replicas(topic, said, needed=needed)


def _only_replica(*, brokers: int) -> Finding:
    if brokers == 1:
        return _warn(
            "1 replica on the only broker: its disk is all there is",
            fix="for more than trying out: 3 brokers, 3 replicas, min.insync.replicas=2",
        )
    return _fail(
        f"1 replica, though there are {brokers} brokers: one death loses it",
        fix="`kafka-reassign-partitions.sh` to 3 replicas, then min.insync.replicas=2",
    )


def _replicas(topic: Topic, said: str, *, needed: int) -> Finding:
    if topic.in_sync < topic.replicas:
        return _warn(f"{said}: a replica is behind", fix="look at the broker that is missing")
    if needed == 1:
        return _warn(
            f"{said}: what one broker alone acknowledged dies with it",
            fix="`kafka-configs.sh --alter --add-config min.insync.replicas=2`",
        )
    if needed == topic.replicas:
        return _warn(
            f"{said}: one broker away stops all writing",
            fix=f"`kafka-configs.sh --alter --add-config min.insync.replicas={needed - 1}`",
        )
    return _ok(said)


def judge_election(topic: Topic) -> Finding:
    """Judge whether a replica that lags may become the leader: that drops committed trades."""
    if topic.settings is None:
        return _warn("settings are not told", fix="allow this principal DescribeConfigs on topics")
    if topic.setting_is("unclean.leader.election.enable", "true"):
        return _fail(
            "on: a replica that lags may lead, and committed records are gone",
            fix="`kafka-configs.sh --alter --add-config unclean.leader.election.enable=false`",
        )
    return _ok("off")


def judge_retention(use: str, topic: Topic, *, outage_s: float) -> Finding:
    """Judge whether a topic still has what its reader needs after an outage.

    Args:
        use: ``trades``, ``positions``, ``gaps`` or ``repairs``.
        topic: What the broker says of it.
        outage_s: How long the archive may be away.
    """
    if topic.settings is None:
        return _warn("settings are not told", fix="allow this principal DescribeConfigs on topics")
    policies = topic.settings.get("cleanup.policy", "delete").split(",")
    if use == "positions":
        return _compacted(policies)
    if "compact" in policies:
        return _fail(
            f"cleanup.policy={','.join(policies)}: all but the newest record of a key is deleted",
            fix="`kafka-configs.sh --alter --add-config cleanup.policy=delete`, then `k2 verify`",
        )
    return _kept(topic.settings, outage_s=outage_s)


def _compacted(policies: Sequence[str]) -> Finding:
    if policies == ["compact"]:
        return _ok("compacted, kept for ever")
    return _fail(
        f"cleanup.policy={','.join(policies)}: the position of a quiet symbol is deleted",
        fix="`kafka-configs.sh --alter --add-config cleanup.policy=compact`",
    )


def _kept(settings: Mapping[str, str], *, outage_s: float) -> Finding:
    kept_ms = int(settings.get("retention.ms", _EVER))
    kept_bytes = int(settings.get("retention.bytes", _EVER))
    kept = "for ever" if kept_ms == _EVER else duration_text(kept_ms / 1000)
    if kept_ms != _EVER and kept_ms / 1000 < outage_s:
        return _fail(
            f"kept {kept}, less than an outage of {duration_text(outage_s)}: what the archive "
            "has not read by then is gone",
            fix=f"`kafka-configs.sh --alter --add-config retention.ms={outage_s * 1000:.0f}`",
        )
    if kept_bytes != _EVER:
        return _warn(
            f"kept {kept}, but of each partition only {kept_bytes:,} bytes: a busy day is shorter",
            fix="`kafka-configs.sh --alter --add-config retention.bytes=-1`",
        )
    return _ok(f"kept {kept}")


def judge_all_retention(
    topics: Mapping[str, Topic], *, names: Mapping[str, str], outage_s: float
) -> list[Finding]:
    """Judge the retention of each of k2's topics that is there and holds records."""
    return merged(
        "retention",
        {
            names[use]: judge_retention(use, topics[names[use]], outage_s=outage_s)
            for use in _TAPE
            if use != "lease" and names[use] in topics
        },
    )


def _existence(
    topics: Mapping[str, Topic], *, names: Mapping[str, str], shards: int
) -> Sequence[Finding]:
    tape = [names[use] for use in _TAPE]
    present = [name for name in tape if name in topics]
    absent = [name for name in tape if name not in topics]
    if not present:
        return [
            warn(
                "topics",
                f"none yet: {', '.join(absent)}",
                fix="`k2 stream` creates them; if it already ran, KAFKA_TOPIC_PREFIX differs",
            )
        ]
    if absent:
        return [
            fail(
                "topics",
                f"missing: {', '.join(absent)}, beside {', '.join(present)}",
                fix="restart `k2 stream`, which creates them and says what else is to be repaired",
            )
        ]
    counts = {topics[name].partitions for name in present}
    if len(counts) > 1:
        return [
            fail(
                "topics",
                "different partition counts: "
                + ", ".join(f"{name} {topics[name].partitions}" for name in present),
                fix="delete the odd one while it is empty, or set KAFKA_TOPIC_PREFIX: "
                "a shard is one partition of each",
            )
        ]
    count = counts.pop()
    text = f"{len(present)} of {count} {'partition' if count == 1 else 'partitions'}"
    if count != shards:
        return [
            warn(
                "topics",
                f"{text}, though K2_SHARDS={shards}: the count is fixed when they are made",
                fix=f"K2_SHARDS={count}",
            )
        ]
    return [ok("topics", text)]


# The check's name is given by ``merged``.
def _ok(seen: str) -> Finding:
    return ok("", seen)


def _warn(seen: str, *, fix: str) -> Finding:
    return warn("", seen, fix=fix)


def _fail(seen: str, *, fix: str) -> Finding:
    return fail("", seen, fix=fix)
