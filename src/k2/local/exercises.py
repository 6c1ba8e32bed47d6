"""What the broker and the registry are put through while their AOT caches are trained."""

import asyncio
from pathlib import Path

import aiohttp
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from k2.errors import RetryError
from k2.local.aot import Exercise
from k2.local.broker import BrokerConfig, start_broker
from k2.local.java import JavaProgram
from k2.local.ports import pick_free
from k2.local.processes import Child
from k2.local.registry import CONFLUENT_PREFIX, RegistryConfig, start_registry

_TOPIC = "training"
_SCHEMA = '{"type":"record","name":"T","fields":[{"name":"id","type":"long","default":0}]}'


def broker_exercise(program: JavaProgram, *, kafka_version: str) -> Exercise:
    """Start, create a topic, commit one transaction, read it back."""

    async def run(scratch: Path, jvm_options: tuple[str, ...]) -> Child:
        port, controller_port = pick_free(2)
        config = BrokerConfig(scratch / "data", port=port, controller_port=controller_port)
        child = await start_broker(
            config,
            program,
            state_dir=scratch,
            kafka_version=kafka_version,
            jvm_options=jvm_options,
        )
        try:
            await asyncio.to_thread(_use_broker, config.bootstrap)
        except BaseException:
            await child.terminate(deadline_s=0.0)
            raise
        return child

    return Exercise(program, run)


def registry_exercise(program: JavaProgram) -> Exercise:
    """Start, register a schema, ask for it, have one refused."""

    async def run(scratch: Path, jvm_options: tuple[str, ...]) -> Child:
        (port,) = pick_free(1)
        config = RegistryConfig(scratch / "data", port=port)
        child = await start_registry(config, program, state_dir=scratch, jvm_options=jvm_options)
        try:
            await _use_registry(f"{config.address}{CONFLUENT_PREFIX}")
        except BaseException:
            await child.terminate(deadline_s=0.0)
            raise
        return child

    return Exercise(program, run)


def _use_broker(bootstrap: str) -> None:
    client: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, "log_level": 0}
    try:
        admin = AdminClient(client)
        for future in admin.create_topics([NewTopic(_TOPIC, 1, 1)]).values():
            future.result(timeout=10)
        producer = Producer(client | {"transactional.id": _TOPIC, "linger.ms": 5})
        producer.init_transactions(10)
        producer.begin_transaction()
        for number in range(100):
            producer.produce(_TOPIC, key=b"k", value=b"%d" % number)
        producer.commit_transaction(10)
        consumer = Consumer(
            client
            | {"group.id": _TOPIC, "auto.offset.reset": "earliest", "session.timeout.ms": 6000}
        )
        consumer.subscribe([_TOPIC])
        messages = consumer.consume(100, timeout=10)
        if messages:
            consumer.commit(asynchronous=False)
        consumer.close()
    except KafkaException as error:
        raise RetryError(f"Kafka in training: {error}") from error


async def _use_registry(root: str) -> None:
    timeout = aiohttp.ClientTimeout(total=10.0)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            versions = f"{root}/subjects/{_TOPIC}-value/versions"
            async with http.post(versions, json={"schema": _SCHEMA}) as response:
                schema_id = (await response.json(content_type=None)).get("id")
            refused = _SCHEMA.replace('"long","default":0', '"string"')
            for method, url, body in (
                ("GET", f"{root}/schemas/ids/{schema_id}", None),
                ("GET", f"{versions}/latest", None),
                ("POST", f"{root}/subjects/{_TOPIC}-value", {"schema": _SCHEMA}),
                ("POST", versions, {"schema": refused}),
            ):
                async with http.request(method, url, json=body) as response:
                    await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RetryError(f"the registry in training: {error}") from error
