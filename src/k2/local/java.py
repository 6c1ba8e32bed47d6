"""The Java runtime from the wheel: options and environment for small, quiet JVMs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Options a user set for other Java programs change ours: an agent alone disables the AOT cache.
_FOREIGN_VARIABLES = frozenset(
    {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"}
)
_FOREIGN_PREFIXES = ("QUARKUS_", "APICURIO_", "REGISTRY_")


@dataclass(frozen=True)
class JavaProgram:
    """One Java program, apart from what differs between two of its runs.

    Attributes:
        name: Of the process, its log and its AOT cache.
        java: The ``java`` binary.
        options: JVM options, the same in training and in production.
        entry: Class path and main class, or ``-jar`` and its file.
        class_path: Every jar the JVM checks its AOT cache against.
    """

    name: str
    java: Path
    options: tuple[str, ...]
    entry: tuple[str, ...]
    class_path: tuple[Path, ...]

    def argv(self, *arguments: str, jvm_options: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the command line of one run."""
        return (str(self.java), *self.options, *jvm_options, *self.entry, *arguments)


def java_options(*, heap_min: str, heap_max: str) -> tuple[str, ...]:
    """Return the JVM options that start fast and stay small on two cores."""
    return (
        f"-Xms{heap_min}",
        f"-Xmx{heap_max}",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        # The libraries' use of both is known; the JVM need not warn at every start.
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
    )


def java_environ(environ: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a JVM: ours without what would change its behaviour."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _FOREIGN_VARIABLES and not name.startswith(_FOREIGN_PREFIXES)
    }
    return kept | dict(added)
