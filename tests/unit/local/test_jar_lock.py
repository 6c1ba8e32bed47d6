import pytest

from k2.errors import StopError
from k2.local.jar_lock import Artifact, format_lock, parse_lock
from k2.local.jars import read_lock

DIGEST = "a" * 64


def test_a_line_gives_every_part_of_the_coordinate() -> None:
    lock = parse_lock(f"# made by hand\n\n{DIGEST} 12 org.example:app:1.2:all@tar.gz\n")

    assert lock.artifacts == (
        Artifact(
            group="org.example",
            name="app",
            version="1.2",
            classifier="all",
            type="tar.gz",
            sha256=DIGEST,
            size_bytes=12,
        ),
    )
    assert str(lock.registry_archive.repository_path) == ("org/example/app/1.2/app-1.2-all.tar.gz")


def test_what_was_written_is_read_back() -> None:
    lock = read_lock()

    assert parse_lock(format_lock(reversed(lock.artifacts))) == lock


def test_the_shipped_lock_holds_a_broker_and_one_registry() -> None:
    lock = read_lock()

    assert lock.registry_archive.name == "apicurio-registry-app"
    assert {"kafka_2.13", "kafka-clients", "slf4j-simple"} <= {jar.name for jar in lock.jars}


def test_the_digest_changes_with_any_content() -> None:
    one = parse_lock(f"{DIGEST} 12 g:a:1\n")
    other = parse_lock(f"{'b' * 64} 12 g:a:1\n")

    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "empty"),
        (f"{DIGEST} 12", "3 fields"),
        (f"{DIGEST[1:]} 12 g:a:1", "sha256"),
        (f"{DIGEST.upper()} 12 g:a:1", "sha256"),
        (f"{DIGEST} -1 g:a:1", "size"),
        (f"{DIGEST} 0 g:a:1", "size"),
        (f"{DIGEST} ² g:a:1", "size"),
        (f"{DIGEST} 12 g:a", "coordinate"),
        (f"{DIGEST} 12 g:a:1:", "coordinate"),
        (f"{DIGEST} 12 g:a:1@", "coordinate"),
        (f"{DIGEST} 12 g:a:1@jar@jar", "coordinate"),
        (f"{DIGEST} 12 g:../../etc:1", "coordinate"),
        (f"{DIGEST} 12 g:a:..", "coordinate"),
        (f"{DIGEST} 12 g:a:1\n{DIGEST} 12 other:a:1", "twice"),
    ],
)
def test_a_damaged_lock_is_refused_with_its_line(line: str, complaint: str) -> None:
    with pytest.raises(StopError, match=complaint):
        parse_lock(line)
