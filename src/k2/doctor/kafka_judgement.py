"""PURE: what the brokers say of themselves, and of a transaction."""

from collections.abc import Mapping

import msgspec

from k2.doctor.finding import Finding, Unseen, duration_text, fail, ok, warn

TOPIC_IDS_SINCE = (2, 8)
"""Before it a topic that was deleted and made again is not told from the old one (KIP-516)."""

OPEN_FOR_WARN_S = 10.0
"""k2 commits every 50 ms; what is open for so long waits for something."""

ABORT_DELAY_S = 20.0
"""The broker looks for overdue transactions every 10 s by default, then has to write the abort."""

FENCED = "_FENCED"


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What k2 asks of a broker."""

    session_s: float
    """The lease's session: after so long a dead writer is noticed."""
    session_at_most_s: float
    """What the lease asks for where the broker refuses that."""
    transaction_s: float
    """The timeout of k2's transactions."""


class Cluster(msgspec.Struct, frozen=True):
    """The metadata answer."""

    cluster_id: str
    brokers: int
    took_s: float


class TransactionDone(msgspec.Struct, frozen=True):
    """An empty transaction was begun and committed."""

    took_s: float


class TransactionRefused(msgspec.Struct, frozen=True):
    """It was not; ``code`` is the library's name for why."""

    code: str
    reason: str


class OpenTransaction(msgspec.Struct, frozen=True):
    """A partition whose last stable offset stands while its end is further on."""

    topic: str
    partition: int
    stable_offset: int
    end_offset: int
    open_for_s: float | None
    """By the timestamp of the record at the stable offset; None where it could not be read."""


def judge_cluster(seen: Cluster | Unseen, *, bootstrap: str) -> Finding:
    """Judge the metadata answer."""
    if isinstance(seen, Unseen):
        return fail(
            "metadata",
            f"{bootstrap}: {seen.reason}",
            fix="is it a Kafka listener, and of the security protocol configured here? "
            "See the TCP line of each address, KAFKA_BOOTSTRAP",
        )
    many = "1 broker" if seen.brokers == 1 else f"{seen.brokers} brokers"
    return ok(
        "metadata", f"cluster {seen.cluster_id}, {many}, answered in {duration_text(seen.took_s)}"
    )


def judge_listener(broker_id: int, address: str, seen: float | Unseen) -> Finding:
    """Judge whether a broker is where it says: clients go there after the first answer.

    Args:
        broker_id: Which one.
        address: As it advertises itself.
        seen: How long connecting took, in seconds.
    """
    check = f"broker {broker_id} listener"
    if isinstance(seen, Unseen):
        return fail(
            check,
            f"{address}: {seen.reason}",
            fix="start the broker; if it runs, its advertised.listeners must be an address that "
            "can be reached from here",
        )
    return ok(check, f"{address}: connected in {duration_text(seen)}")


def judge_broker(
    broker_id: int, settings: Mapping[str, str] | Unseen, *, needs: Needs
) -> list[Finding]:
    """Judge one broker's settings: version, session floor, longest transaction.

    Args:
        broker_id: Which one.
        settings: As ``DescribeConfigs`` names them.
        needs: What k2 asks of it.
    """
    if isinstance(settings, Unseen):
        return [
            warn(
                f"broker {broker_id} settings",
                settings.reason,
                fix="allow this principal DescribeConfigs on the cluster",
            )
        ]
    return [
        _version(broker_id, settings),
        _session_floor(broker_id, settings, needs=needs),
        _longest_transaction(broker_id, settings, needs=needs),
    ]


def judge_transaction(seen: TransactionDone | TransactionRefused, *, needs: Needs) -> Finding:
    """Judge an attempt at an empty transaction."""
    check = "transactions"
    if isinstance(seen, TransactionDone):
        return ok(check, f"an empty one committed in {duration_text(seen.took_s)}")
    if seen.code == FENCED:
        return ok(check, "another k2 doctor fenced this one's: they work")
    text = f"an empty one was not committed: {seen.reason}"
    match seen.code:
        case "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" | "CLUSTER_AUTHORIZATION_FAILED":
            fix = "allow this principal Write and Describe on transactional ids that begin with k2-"
        case "INVALID_TRANSACTION_TIMEOUT":
            fix = f"transaction.max.timeout.ms={needs.transaction_s * 1000:.0f} on every broker"
        case _:
            fix = (
                "is __transaction_state there, with as many replicas in sync as its "
                "min.insync.replicas? transaction.state.log.replication.factor must not exceed "
                "the number of brokers"
            )
    return fail(check, text, fix=fix)


def judge_open(seen: OpenTransaction, *, needs: Needs) -> Finding:
    """Judge a transaction that readers wait for."""
    check = f"{seen.topic}[{seen.partition}] stable offset"
    text = f"stands at {seen.stable_offset}, the end is {seen.end_offset}"
    fix = (
        "k2 and the archive read nothing beyond it: `kafka-transactions.sh find-hanging` names "
        "the producer, `abort` ends it; restart the broker that leads the partition if it does not"
    )
    if seen.open_for_s is None:
        return warn(check, f"{text}; how long is not known", fix=fix)
    text += f": a transaction is open for {duration_text(seen.open_for_s)}"
    if seen.open_for_s > needs.transaction_s + ABORT_DELAY_S:
        return fail(check, text, fix=fix)
    if seen.open_for_s > OPEN_FOR_WARN_S:
        return warn(
            check,
            text,
            fix=f"wait: the broker ends it {needs.transaction_s:.0f} s after it began",
        )
    return ok(check, text)


def nothing_open(partitions: int) -> Finding:
    """Return the finding where every stable offset moves, or is the end."""
    return ok("stable offsets", f"none of {partitions} partitions holds its readers back")


def _version(broker_id: int, settings: Mapping[str, str]) -> Finding:
    check = f"broker {broker_id} version"
    # The setting was dropped in 4.0 together with ZooKeeper; no API tells the release itself.
    protocol = settings.get("inter.broker.protocol.version")
    if protocol is None:
        return ok(check, "unknown: 4.0 and newer have no setting that tells it, others may hide it")
    numbers = tuple(int(part) for part in protocol.split("-")[0].split(".") if part.isdigit())
    if numbers < TOPIC_IDS_SINCE:
        return warn(
            check,
            f"speaks {protocol}, which has no topic ids: a topic made again is not noticed",
            fix="update Kafka to 2.8 or newer, and inter.broker.protocol.version with it",
        )
    return ok(check, f"speaks {protocol}")


def _session_floor(broker_id: int, settings: Mapping[str, str], *, needs: Needs) -> Finding:
    name = "group.min.session.timeout.ms"
    check = f"broker {broker_id} {name}"
    floor_ms = settings.get(name)
    wanted = f"{name}=1000 on every broker"
    if floor_ms is None:
        return warn(check, "not told", fix=wanted)
    floor_s = int(floor_ms) / 1000
    if floor_s <= needs.session_s:
        return ok(check, floor_ms)
    if floor_s > needs.session_at_most_s:
        return fail(
            check,
            f"{floor_ms}: k2 asks for {needs.session_at_most_s * 1000:.0f} at most, "
            "so that no instance can hold the lease",
            fix=wanted,
        )
    return warn(
        check,
        f"{floor_ms}: a dead writer is noticed after {needs.session_at_most_s:g} s, "
        f"not {needs.session_s:g} s",
        fix=wanted,
    )


def _longest_transaction(broker_id: int, settings: Mapping[str, str], *, needs: Needs) -> Finding:
    name = "transaction.max.timeout.ms"
    check = f"broker {broker_id} {name}"
    longest_ms = settings.get(name)
    wanted = f"{name}={needs.transaction_s * 1000:.0f} on every broker, or more"
    if longest_ms is None:
        return warn(check, "not told", fix=wanted)
    if int(longest_ms) / 1000 < needs.transaction_s:
        return fail(check, f"{longest_ms}: k2's transactions are refused", fix=wanted)
    return ok(check, longest_ms)
