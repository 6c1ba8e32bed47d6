"""TCP ports: who holds one, and free ones that stay the same from run to run."""

import json
import random
import socket
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no type information

from k2.errors import StopError
from k2.ingestion.own_ports import can_listen, is_free

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 (compared and passed on; only `--advertise` binds it)
# Below the range that Linux and macOS give to outgoing connections: a client that keeps asking
# for a dead broker could otherwise be given the broker's own port, and even reach itself.
_PICK_FROM = range(20_000, 32_000)


@dataclass(frozen=True)
class Holder:
    """The process that listens on a port."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def find_holder(port: int) -> Holder | None:
    """Return who listens on a port, or None when the system does not tell (another user's)."""
    for process in psutil.process_iter():
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    words = process.cmdline() or [process.name()]
                    return Holder(process.pid, _shorten(" ".join(" ".join(words).split())))
        except psutil.Error:
            continue
    return None


@dataclass(frozen=True)
class WantedPort:
    """A port that something of ours is to listen on.

    Attributes:
        port: The one wanted.
        purpose: What for, as a message names it.
        flag: The option or variable that changes it.
        host: Address to listen on.
    """

    port: int
    purpose: str
    flag: str
    host: str = LOOPBACK


def require_free(*wanted: WantedPort) -> None:
    """Refuse to start on ports that are taken: all of them in one message.

    Raises:
        StopError: One line that names each port's holder, and the way out.
    """
    taken = [one for one in wanted if not is_free(one.port, host=one.host)]
    if not taken:
        return
    held = [
        f"port {one.port} ({one.purpose}) is in use by "
        f"{find_holder(one.port) or 'a process that belongs to another user'}"
        for one in taken
    ]
    flags = ", ".join(dict.fromkeys(one.flag for one in taken))
    others = "another" if len(taken) == 1 else "others"
    raise StopError(
        f"{'; '.join(held)}; choose {others} with {flags}, or let k2 choose with --ports auto"
    )


def pick_free(count: int, *, excluding: Collection[int] = ()) -> list[int]:
    """Return different ports that are free on every address at this moment.

    Raises:
        StopError: If there are not enough.
    """
    candidates = [port for port in _PICK_FROM if port not in excluding]
    random.shuffle(candidates)
    found: list[int] = []
    with ExitStack() as stack:
        for port in candidates:
            if len(found) == count:
                break
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            if can_listen(probe, host=ANY_ADDRESS, port=port):
                found.append(port)
    if len(found) < count:
        raise StopError(f"fewer than {count} ports are free in {_PICK_FROM}")
    return found


def remembered_ports(
    path: Path, names: Iterable[str], *, excluding: Collection[int]
) -> dict[str, int]:
    """Return a free port for each name: last time's where it is still free, else a new one.

    Args:
        path: File that keeps them; written when something changed. What it holds under other names
            is theirs.
        names: What the ports are for.
        excluding: Ports already promised to something else.
    """
    wanted = list(names)
    known = _read(path)
    promised = {*excluding, *(port for name, port in known.items() if name not in wanted)}
    ports: dict[str, int] = {}
    for name in wanted:
        port = known.get(name)
        if port is not None and port not in {*promised, *ports.values()} and is_free(port):
            ports[name] = port
    missing = [name for name in wanted if name not in ports]
    fresh = pick_free(len(missing), excluding={*promised, *ports.values()})
    ports.update(zip(missing, fresh, strict=True))
    if missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(known | ports, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    return ports


def _read(path: Path) -> dict[str, int]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stored, dict):
        return {}
    return {str(name): port for name, port in stored.items() if isinstance(port, int)}


def _shorten(command: str, *, length_max: int = 80) -> str:
    return command if len(command) <= length_max else command[: length_max - 3] + "..."
