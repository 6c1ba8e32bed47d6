"""Log lines: JSON in files and pipes, a human form on a terminal.

The runbooks grep these lines (contract R080-R091): lifecycle events carry their literal words in
``event``, and a healthy line never contains the words those greps alarm on.
"""

import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import structlog


def configure_logging(*, service: str, level: str, file: Path | None) -> None:
    """Send every log line to stdout and, when ``file`` is given, to that file as JSON.

    The file is reopened when logrotate renames it, so no line is lost.

    Raises:
        OSError: If the file cannot be written; nothing was changed then.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if file is not None and str(file) != os.devnull:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(WatchedFileHandler(file, encoding="utf-8"))
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    as_json = _formatter(shared, structlog.processors.JSONRenderer(ensure_ascii=False))
    as_text = _formatter(shared, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()))
    for handler in handlers:
        handler.setFormatter(as_json)
    if sys.stdout.isatty():
        handlers[0].setFormatter(as_text)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    # Libraries speak up only when something is wrong.
    for noisy in ("aiohttp.access", "picows", "pyiceberg", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(service=service)


def _formatter(shared: list[Any], renderer: Any) -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
