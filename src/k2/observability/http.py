"""One page on one loopback port."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from k2.errors import StopError


async def serve(
    port: int,
    path: str,
    answer: Callable[[web.Request], Awaitable[web.Response]],
    *,
    variables: str,
) -> web.AppRunner:
    """Serve ``path`` on loopback.

    Raises:
        StopError: If the port is taken; it names the ``variables`` that choose another.
    """
    app = web.Application()
    app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except OSError as exc:
        await runner.cleanup()
        raise StopError(
            f"port {port} for {path} is in use: is another one running? Choose a port with "
            f"{variables}; 0 turns it off"
        ) from exc
    return runner
