"""The embedded stack as others use it: real processes, killed for real."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil  # type: ignore[import-untyped]  # ships no type information
import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from k2.errors import StopError
from k2.local.background import BackgroundStack
from k2.local.stack import Stack

pytestmark = pytest.mark.integration

SCHEMA = Schema(
    '{"type":"record","name":"T","fields":[{"name":"id","type":"long"}]}', schema_type="AVRO"
)
INCOMPATIBLE = Schema(
    '{"type":"record","name":"T","fields":[{"name":"id","type":"string"}]}', schema_type="AVRO"
)


def stack_in(state_dir: Path) -> BackgroundStack:
    return BackgroundStack(Stack(state_dir=state_dir, kafka_port=None, registry_port=None))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundStack]:
    with stack_in(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def create_topic(stack: BackgroundStack) -> str:
    name = f"topic-{uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": stack.address.bootstrap})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(timeout=10)
    return name


def commit(stack: BackgroundStack, topic: str, values: list[bytes]) -> None:
    producer = Producer(
        {"bootstrap.servers": stack.address.bootstrap, "transactional.id": f"writer-{topic}"}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value=value)
    producer.commit_transaction(20)


def read_committed(stack: BackgroundStack, topic: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": stack.address.bootstrap,
            "group.id": f"reader-{uuid4().hex}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "session.timeout.ms": 1000,
            "heartbeat.interval.ms": 300,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    try:
        while True:
            message = consumer.poll(20)
            assert message is not None, "nothing heard from the broker for 20 s"
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return values
            value = message.value()
            assert isinstance(value, bytes)
            values.append(value)
    finally:
        consumer.close()


def get(stack: BackgroundStack, path: str) -> object:
    url = f"{stack.address.registry_url}{path}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def test_a_transaction_commits_and_is_read_back_by_a_group(running: BackgroundStack) -> None:
    topic = create_topic(running)

    commit(running, topic, [b"one", b"two"])

    assert read_committed(running, topic) == [b"one", b"two"]


def test_schemas_live_at_the_root_and_an_incompatible_one_is_refused(
    running: BackgroundStack,
) -> None:
    subject = f"{uuid4().hex}/with slash-value"
    client = SchemaRegistryClient({"url": running.address.registry_url})

    schema_id = client.register_schema(subject, SCHEMA)

    assert client.get_schema(schema_id).schema_str == SCHEMA.schema_str
    assert subject in client.get_subjects()
    assert get(running, "/config") == {"compatibilityLevel": "BACKWARD"}
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema(subject, INCOMPATIBLE)
    assert caught.value.http_status_code == 409
    assert get(running, "/apis/registry/v3/system/info")


def test_a_killed_broker_is_noticed_and_comes_back_with_its_data(running: BackgroundStack) -> None:
    topic = create_topic(running)
    commit(running, topic, [b"before"])

    os.kill(running.pids["kafka"], signal.SIGKILL)
    ended = running.call(running.stack.watch())
    running.call(running.stack.restart(ended.name))
    commit(running, topic, [b"after"])

    assert (ended.name, ended.return_code) == ("kafka", -signal.SIGKILL)
    assert read_committed(running, topic) == [b"before", b"after"]


def test_a_killed_registry_is_noticed_and_comes_back_with_its_schemas(
    running: BackgroundStack,
) -> None:
    subject = f"{uuid4().hex}-value"
    client = SchemaRegistryClient({"url": running.address.registry_url})
    schema_id = client.register_schema(subject, SCHEMA)

    os.kill(running.pids["registry"], signal.SIGKILL)
    ended = running.call(running.stack.watch())
    running.call(running.stack.restart(ended.name))

    assert (ended.name, ended.return_code) == ("registry", -signal.SIGKILL)
    again = SchemaRegistryClient({"url": running.address.registry_url})
    assert again.get_latest_version(subject).schema_id == schema_id


def test_a_second_stack_on_the_same_directory_is_refused(
    running: BackgroundStack, tmp_path: Path
) -> None:
    address = running.address
    state_dir = running.stack.state_dir

    with pytest.raises(StopError, match=f"process {os.getpid()}"), stack_in(state_dir):
        pass
    with (
        pytest.raises(StopError, match=rf"port {address.kafka_port} \(Kafka\) .*kafka"),
        BackgroundStack(
            Stack(state_dir=tmp_path, kafka_port=address.kafka_port, registry_port=None)
        ),
    ):
        pass

    assert get(running, "/subjects") is not None


def test_everything_survives_a_restart_on_the_same_ports(tmp_path: Path) -> None:
    with stack_in(tmp_path) as first:
        address = first.address
        topic = create_topic(first)
        commit(first, topic, [b"kept"])
        schema_id = SchemaRegistryClient({"url": address.registry_url}).register_schema(
            "kept-value", SCHEMA
        )
        client = SchemaRegistryClient({"url": address.registry_url})
        client.set_compatibility(level="FULL")

    with stack_in(tmp_path) as second:
        again = SchemaRegistryClient({"url": second.address.registry_url})

        assert second.address == address
        assert read_committed(second, topic) == [b"kept"]
        assert again.get_latest_version("kept-value").schema_id == schema_id
        assert again.get_compatibility() == "FULL"


# Starts a stack, says its pids and waits to be killed, as `k2 up` would be.
PARENT = """
import json, signal, sys
from pathlib import Path
from k2.local.background import BackgroundStack
from k2.local.stack import Stack

with BackgroundStack(
    Stack(state_dir=Path(sys.argv[1]), kafka_port=None, registry_port=None)
) as stack:
    print(json.dumps(stack.pids), flush=True)
    signal.pause()
"""


def test_what_a_killed_k2_left_running_is_replaced(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(source)},
    ) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        # A stopped broker cannot follow the kernel's request to end with its parent.
        os.kill(pids["kafka"], signal.SIGSTOP)
        parent.kill()
    said: list[str] = []
    stack = Stack(state_dir=tmp_path, kafka_port=None, registry_port=None, report=said.append)

    with BackgroundStack(stack) as running:
        commit(running, create_topic(running), [b"works"])

        assert running.pids["kafka"] != pids["kafka"]
    assert f"ended kafka (process {pids['kafka']}), left running by an earlier k2" in said
    assert not psutil.pid_exists(pids["kafka"]) or (
        psutil.Process(pids["kafka"]).status() == psutil.STATUS_ZOMBIE
    )


def test_containers_reach_the_broker_through_the_advertised_listener(tmp_path: Path) -> None:
    stack = Stack(
        state_dir=tmp_path,
        kafka_port=None,
        registry_port=None,
        advertise="127.0.0.2",
        advertised_port=None,
    )
    with BackgroundStack(stack) as running:
        advertised = running.address.advertised
        assert advertised is not None
        # Another loopback address than the one that everything else is bound to.
        brokers = AdminClient({"bootstrap.servers": advertised}).list_topics(timeout=10).brokers

    assert {f"{broker.host}:{broker.port}" for broker in brokers.values()} == {advertised}
