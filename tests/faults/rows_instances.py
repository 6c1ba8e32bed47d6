"""Processes that die, hang, come back and hand over; their records and disks."""

import signal
import time
from datetime import UTC, datetime, timedelta

from confluent_kafka.admin import AdminClient

from faults.bench import Bench
from faults.matrix import row
from faults.parts import Instance

GROUP = "Instances"
HAND_OVERS = 24


@row(
    GROUP,
    "The writer is killed (SIGKILL); a standby listens.",
    instances=2,
    pause_max_s=3.5,
    quick=True,
)
def writer_killed_with_standby(bench: Bench) -> None:
    writer, standby = bench.writer, bench.standby
    with bench.fault():
        writer.process.kill()
        bench.until(lambda: standby.writes, "the standby to write")


@row(
    GROUP,
    "The only process is killed (SIGKILL) and started again 2 s later; healing is timed from the "
    "start.",
    heal_max_s=5.0,
    quick=True,
)
def restart_without_standby(bench: Bench) -> None:
    with bench.fault():
        bench.first.process.kill()
        bench.go_on(2)
        bench.first.process.start()


@row(
    GROUP,
    "The writer is stopped (SIGSTOP) past its lease, a standby takes over, and the zombie goes on "
    "(SIGCONT).",
    instances=2,
)
def zombie(bench: Bench) -> None:
    writer, standby = bench.writer, bench.standby
    with bench.fault():
        writer.process.signal(signal.SIGSTOP)
        bench.until(lambda: standby.writes, "the standby to write")
        bench.go_on(2)
        writer.process.signal(signal.SIGCONT)
        bench.until(lambda: writer.count("standing_by"), "the zombie to notice")
    bench.expect(standby.writes, "the successor lost the shard to the zombie")


@row(GROUP, "Two instances are started at the same moment on an empty topic.", instances=0)
def both_started_at_once(bench: Bench) -> None:
    with bench.fault():
        bench.start_instance()
        bench.start_instance()
        bench.until(lambda: all(one.listens for one in bench.instances), "all legs to be live")
    bench.until_written()
    bench.go_on(5)
    writers = [one.name for one in bench.instances if one.writes]
    bench.expect(len(writers) == 1, f"writers: {writers}")


@row(
    GROUP,
    "Five hand-overs in 10 s: SIGUSR2 to the writer, SIGUSR1 to the one before.",
    instances=2,
)
def five_hand_overs_in_10_s(bench: Bench) -> None:
    with bench.fault():
        for _ in range(5):
            due_s = time.monotonic() + 2
            _hand_over(bench)
            bench.go_on(due_s - time.monotonic())


@row(
    GROUP,
    f"{HAND_OVERS} planned hand-overs, each to a hot standby; the pause is each one's own.",
    instances=2,
    moment_pause_p99_max_s=0.25,
)
def planned_hand_overs(bench: Bench) -> None:
    with bench.fault():
        for _ in range(HAND_OVERS):
            _hand_over(bench)
            bench.until(lambda: all(one.listens for one in bench.instances), "hot legs")
            bench.go_on(2.5)


@row(
    GROUP,
    "The writer is ended as `docker stop` does (SIGTERM); a standby listens.",
    instances=2,
    pause_max_s=0.5,
)
def writer_ended(bench: Bench) -> None:
    writer, standby = bench.writer, bench.standby
    with bench.fault():
        code = writer.process.end()
        bench.until(lambda: standby.writes, "the standby to write")
    bench.expect(code == 0, f"the writer's exit code is {code}")


@row(
    GROUP,
    "The writer's event loop is blocked for 60 s (a signal handler that sleeps on its main "
    "thread; its other threads go on); a standby listens.",
    instances=0,
)
def event_loop_blocked_60_s(bench: Bench) -> None:
    blocked = bench.start_instance(blockable=True)
    bench.until_written()
    standby = bench.start_instance()
    bench.until(lambda: standby.listens, "the standby to listen")
    bench.go_on(6)
    with bench.fault():
        blocked.process.signal(signal.SIGALRM)
        bench.until(lambda: standby.writes, "the standby to write")
        took_s = time.time() - bench.began_s
        bench.go_on(62 - took_s)
    bench.expect(standby.writes, "the successor lost the shard")
    bench.until(lambda: not blocked.writes and blocked.listens, "the blocked one to stand by")


@row(
    GROUP,
    "`.positions` is deleted while nothing runs: the start is refused and names the command; "
    "`k2 positions rebuild --from-topic`; start.",
)
def positions_deleted(bench: Bench) -> None:
    bench.begin_fault()
    bench.expect(bench.first.process.end() == 0, "the process did not end cleanly")
    admin = AdminClient({"bootstrap.servers": bench.stack.address.bootstrap})
    topic = f"{bench.room.topic}.positions"
    admin.delete_topics([topic])[topic].result(30)
    bench.until(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic to go")
    code = bench.first.process.start().wait(60)
    told = bench.first.process.events("stream_stopped")
    refusal = told[-1]["reason"] if told else "nothing"
    bench.expect(code == 1, f"the exit code is {code}")
    bench.expect("k2 positions rebuild --from-topic" in refusal, f"the refusal was: {refusal}")
    rebuilt = bench.room.k2("positions", "rebuild", "--from-topic", check=False)
    bench.expect(rebuilt.returncode == 0, f"rebuild failed: {rebuilt.stdout}{rebuilt.stderr}")
    bench.first.process.start()
    bench.end_fault()


@row(
    GROUP,
    "The disk of the dead letters is full (each write answers ENOSPC) when 40 bad frames come.",
    settings={"K2_DLQ_DIR": "full"},
    quick=True,
)
def dead_letter_disk_full(bench: Bench) -> None:
    folder = bench.room.path / "full"
    today = datetime.now(UTC)
    for day in (today, today + timedelta(days=1)):
        (folder / f"binance-{day:%Y%m%d}.jsonl").symlink_to("/dev/full")
    with bench.fault():
        bench.stream_fault("malformed", count=20)
        bench.go_on(2)
    # The first of a minute is told, with a count: a full disk stays full.
    told = bench.first.count("dead_letter_write_failed")
    bench.expect(0 < told <= 2, f"{told} lines about letters that could not be written")


@row(
    GROUP,
    "Two shards, two instances with one each; one is killed (SIGKILL), the other takes both.",
    shards=2,
    instances=2,
    pause_max_s=3.5,
)
def two_shards_one_killed(bench: Bench) -> None:
    bench.until(
        lambda: all(len(one.shards_written()) == 1 for one in bench.instances),
        "each instance to write one shard",
    )
    with bench.fault():
        bench.first.process.kill()
        bench.until(
            lambda: bench.instances[1].shards_written() == {0, 1}, "one to write both shards"
        )


@row(
    GROUP,
    "Two shards, two instances with one each; both legs of all are reset.",
    shards=2,
    instances=2,
)
def two_shards_reset(bench: Bench) -> None:
    with bench.fault():
        bench.drop("abort")


def _hand_over(bench: Bench) -> None:
    """Have the writer hand over to the other one, and take the observer back as a standby."""
    writer = bench.writer
    other = next(one for one in bench.instances if one is not writer)
    bench.until(lambda: _member(other), "the standby to be a member")
    bench.moments.append(time.time())
    writer.process.signal(signal.SIGUSR2)
    bench.until(lambda: other.writes, "the standby to write")
    writer.process.signal(signal.SIGUSR1)


def _member(instance: Instance) -> bool:
    health = instance.health()
    return bool(health and health["member"])
