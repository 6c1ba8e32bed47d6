from pathlib import Path

import pytest

from k2.errors import StopError
from k2.local.broker import BrokerConfig, broker_program, format_data_dir, server_properties
from k2.local.jars import Installation, read_lock


def properties_of(config: BrokerConfig) -> dict[str, str]:
    lines = server_properties(config).splitlines()
    return dict(line.split("=", 1) for line in lines)


def kafka_version() -> str:
    return next(jar.version for jar in read_lock().jars if jar.name == "kafka_2.13")


def test_everything_is_on_loopback_without_an_advertised_host() -> None:
    properties = properties_of(BrokerConfig(Path("/d"), port=9092, controller_port=9093))

    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9092"
    assert "0.0.0.0" not in server_properties(
        BrokerConfig(Path("/d"), port=9092, controller_port=9093)
    )


def test_only_the_advertised_listener_is_on_every_interface() -> None:
    config = BrokerConfig(
        Path("/d"), port=9092, controller_port=9093, advertised=("host.docker.internal", 19092)
    )
    properties = properties_of(config)

    assert properties["listeners"].split(",") == [
        "PLAINTEXT://127.0.0.1:9092",
        "CONTROLLER://127.0.0.1:9093",
        "ADVERTISED://0.0.0.0:19092",
    ]
    assert properties["advertised.listeners"].split(",")[1:] == [
        "ADVERTISED://host.docker.internal:19092"
    ]
    assert "ADVERTISED:PLAINTEXT" in properties["listener.security.protocol.map"].split(",")


def test_the_session_limit_is_the_contracts() -> None:
    properties = properties_of(BrokerConfig(Path("/d"), port=1, controller_port=2))

    assert properties["group.min.session.timeout.ms"] == "1000"


def test_formatting_is_done_once_and_keeps_the_cluster(tmp_path: Path) -> None:
    data_dir = tmp_path / "kafka"

    format_data_dir(data_dir, kafka_version=kafka_version())
    first = (data_dir / "meta.properties").read_text()
    format_data_dir(data_dir, kafka_version=kafka_version())

    assert (data_dir / "meta.properties").read_text() == first
    assert {path.name for path in data_dir.iterdir()} == {"meta.properties", "bootstrap.checkpoint"}
    assert {line.split("=")[0] for line in first.splitlines()} == {
        "version",
        "cluster.id",
        "node.id",
        "directory.id",
    }


def test_a_kafka_without_a_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(StopError, match="lock_jars"):
        format_data_dir(tmp_path / "kafka", kafka_version="0.0.0")

    assert not (tmp_path / "kafka").exists()


def test_the_command_line_holds_the_class_path_and_the_properties() -> None:
    program = broker_program(Installation((Path("/c/a.jar"), Path("/c/b.jar")), Path("/r")))

    argv = program.argv("/s/kafka.properties", jvm_options=("-XX:AOTCache=F",))

    assert argv[-4:] == ("-cp", "/c/a.jar:/c/b.jar", "kafka.Kafka", "/s/kafka.properties")
    assert "-XX:AOTCache=F" in argv
