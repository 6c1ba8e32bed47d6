"""A room whose services log in everywhere, and whose every word is searched for secrets."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

from integration.harness import Room
from k2.local.ports import pick_free
from k2.settings.security import MASK, SECRETS

CANARIES = {name: f"canary-{name}-{uuid4().hex}" for name in SECRETS}
PASSWORD = CANARIES["kafka_sasl_password"]
WRONG = f"canary-wrong-{uuid4().hex}"


@dataclass
class SecureRoom(Room):
    """A room whose services have to log in to Kafka and to the registry."""

    def forget_the_login(self) -> None:
        """Have Kafka's settings name neither user nor mechanism."""
        self.extra = {
            name: value for name, value in self.extra.items() if not name.startswith("KAFKA_SASL_")
        }

    def told(self) -> dict[str, str]:
        """Return everything the services and their files say, by where."""
        files = [path for path in self.path.rglob("*") if path.is_file()]
        kept = [path for path in files if path.suffix not in (".parquet", ".avro", ".secret")]
        return {str(path): path.read_bytes().decode("utf-8", "replace") for path in kept}

    def check_no_secret_is_told(self, **more: str) -> None:
        """Search all of it for all of them."""
        for place, text in {**self.told(), **more}.items():
            for secret in (*CANARIES.values(), WRONG):
                assert secret not in text, f"{place} tells a secret"


def page(port: int, path: str) -> str:
    """Return what a service shows, whatever its status."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return str(reply.read().decode())
    except urllib.error.HTTPError as exc:
        return str(exc.read().decode())


def check_that_both_services_record_and_tell_no_secret(room: SecureRoom) -> None:
    """Run capture and archive with this room's login; search all they write and show, and ours."""
    health, metrics, archive_health, archive_metrics = pick_free(4)
    room.extra |= {
        "K2_HEALTH_PORT": str(health),
        "K2_METRICS_PORT": str(metrics),
        "K2_ARCHIVE_HEALTH_PORT": str(archive_health),
        "K2_ARCHIVE_METRICS_PORT": str(archive_metrics),
        "K2_LOG_FILE": str(room.path / "k2.log"),
        "K2_LOG_LEVEL": "DEBUG",
    }
    room.exchange("--rate", "100")
    stream, archive = room.stream(), room.archive()
    room.wait_until_archiving()
    pages = {
        f"{port}{path}": page(port, path)
        for port, paths in (
            (health, ("/health", "/readyz", "/")),
            (metrics, ("/metrics",)),
            (archive_health, ("/health",)),
            (archive_metrics, ("/metrics",)),
        )
        for path in paths
    }
    assert json.loads(pages[f"{health}/health"])["status"]
    assert "kafka_messages_produced_total" in pages[f"{metrics}/metrics"]
    assert "iceberg_rows_written_total" in pages[f"{archive_metrics}/metrics"]
    newest = room.stop_trading()
    room.wait_until_archived(newest)
    said = {
        words: room.k2(*words.split(), check=False)
        for words in (
            "verify",
            "tail -n 3 --json",
            "positions show",
            "gaps",
            "schema show --json",
            "doctor kafka registry",
            "doctor kafka registry --json",
            "stream --print-config",
            "config show --json",
        )
    }
    for words, done in said.items():
        assert "Traceback" not in done.stderr
        if not words.startswith("doctor"):  # it warns of a broker of one
            assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    assert said["tail -n 3 --json"].stdout.count("source_sequence") == 3
    assert MASK in said["stream --print-config"].stdout
    assert MASK in said["config show --json"].stdout
    cluster = said["doctor kafka registry --json"].stdout
    assert "KAFKA_SASL" not in cluster
    assert json.loads(cluster)["fail"] == 0, cluster  # Kafka and the registry let it in
    for address in (
        room.extra["KAFKA_BOOTSTRAP"],
        urlsplit(room.extra["SCHEMA_REGISTRY_URL"]).netloc,
    ):
        (tls,) = [
            one for one in json.loads(cluster)["findings"] if one["check"] == f"{address} TLS"
        ]
        assert "days left" in tls["seen"]
    assert stream.end() == 0
    assert archive.end() == 0
    room.check_promise(newest)
    room.check_no_secret_is_told(
        **pages, **{words: done.stdout + done.stderr for words, done in said.items()}
    )
