"""The fault proxy in a process of its own: ``python -m k2.simulator.proxy_command``.

The first line of output says where it listens. Then each line of input is one order (JSON), and
each is answered by one line: ``{"ok": true, ...}`` with the state after it, or ``{"ok": false,
"msg": ...}``. It ends with its input, or at SIGTERM or Ctrl-C.
"""

import asyncio
import contextlib
import json
import signal
import sys
import threading
from io import FileIO
from typing import Annotated, NoReturn

import cyclopts
import msgspec
from cyclopts import Parameter

from k2.errors import StopError
from k2.simulator.proxy import Direction, FaultProxy

ORDER_BYTES_MAX = 64 * 1024

app = cyclopts.App(
    name="proxy",
    help="Pass TCP through, and break it on demand.",
    help_epilogue=(
        "Orders, one a line:\n\n"
        '  {"do": "cut"}  {"do": "refuse"}  {"do": "accept"}  {"do": "stall"}  {"do": "resume"}\n\n'
        '  {"do": "throttle", "bytes_per_s": 1000, "direction": "to_client"}\n\n'
        '  {"do": "delay", "delay_s": 0.5}  {"do": "status"}'
    ),
)


class Order(msgspec.Struct, tag_field="do", forbid_unknown_fields=True):
    """One line of input."""


class Cut(Order, tag="cut"):
    """Reset every open connection."""


class Refuse(Order, tag="refuse"):
    """Refuse new connections."""


class Accept(Order, tag="accept"):
    """Accept new connections again."""


class Stall(Order, tag="stall"):
    """Hold all bytes."""


class Resume(Order, tag="resume"):
    """Let held bytes go on."""


class Throttle(Order, tag="throttle", kw_only=True):
    """Limit one direction or each of both; null is no limit."""

    bytes_per_s: Annotated[float, msgspec.Meta(gt=0)] | None
    direction: Direction | None = None


class Delay(Order, tag="delay", kw_only=True):
    """Pass bytes on this much later."""

    delay_s: Annotated[float, msgspec.Meta(ge=0, le=600)]


class Status(Order, tag="status"):
    """Only look."""


_AnyOrder = Cut | Refuse | Accept | Stall | Resume | Throttle | Delay | Status


async def carry_out(line: bytes, proxy: FaultProxy) -> dict[str, object]:
    """Carry out one line of input and return the answer."""
    answer: dict[str, object] = {"ok": True}
    try:
        order: _AnyOrder = msgspec.json.decode(line, type=_AnyOrder)
        match order:
            case Cut():
                answer["cut"] = proxy.cut()
            case Refuse():
                proxy.refuse()
            case Accept():
                await proxy.accept()
            case Stall():
                proxy.stall()
            case Resume():
                proxy.resume()
            case Throttle():
                proxy.throttle(bytes_per_s=order.bytes_per_s, direction=order.direction)
            case Delay():
                proxy.delay_s = order.delay_s
            case Status():
                pass
    except (msgspec.DecodeError, StopError) as exc:
        return {"ok": False, "msg": str(exc)}
    return answer | {
        "port": proxy.port,
        "connections": proxy.connections,
        "accepting": proxy.accepting,
        "stalled": proxy.stalled,
        "delay_s": proxy.delay_s,
        "counts": dict(proxy.counts),
    }


@app.default
def run(
    *,
    target: str,
    host: str = "127.0.0.1",
    port: int = 0,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Pass TCP connections through to a target until the input ends.

    Args:
        target: Where they go, e.g. ``--target 127.0.0.1:9443``.
        host: Address to listen on, e.g. ``--host 127.0.0.1``.
        port: Port to listen on, e.g. ``--port 9444``; 0 picks a free one.
        json_output: Print the first line as JSON.
    """
    target_host, _, target_port = target.rpartition(":")
    if not target_host or not target_port.isdecimal():
        _refuse(f"--target must be HOST:PORT, not {target}")
    try:
        proxy = FaultProxy(target_host.strip("[]"), int(target_port), host=host, port=port)
        asyncio.run(_serve(proxy, host=host, target=target, json_output=json_output))
    except StopError as exc:
        _refuse(str(exc))


async def _serve(proxy: FaultProxy, *, host: str, target: str, json_output: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with proxy:
        first = {"host": host, "port": proxy.port, "target": target}
        _say(json.dumps(first) if json_output else f"{host}:{proxy.port} -> {target}")

        def obey() -> None:
            # Unbuffered: a buffered stdin is locked while it waits, which blocks the exit.
            with FileIO(sys.stdin.fileno(), closefd=False) as orders:
                while line := orders.readline(ORDER_BYTES_MAX):
                    answered = asyncio.run_coroutine_threadsafe(carry_out(line, proxy), loop)
                    _say(json.dumps(answered.result()))
            with contextlib.suppress(RuntimeError):  # a signal was faster, the loop is closed
                loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=obey, name="orders", daemon=True).start()
        await stop.wait()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(" ".join(message.split()) + "\n")
    raise SystemExit(2)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as exc:
        exc.verbose = False
        _refuse(str(exc))


if __name__ == "__main__":
    main()
