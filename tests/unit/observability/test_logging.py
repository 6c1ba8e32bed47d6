import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import k2
from k2.observability.logging import configure_logging

# Runbooks decide health by grep: none of these may occur in a healthy line (contract R090).
ALARMING = re.compile(r"error|exception|critical|invalid|parse", re.IGNORECASE)
# Lifecycle words the runbooks look for (contract R080-R088), as events of our lines.
LITERALS = {
    "Connected",
    "Subscribed",
    "Connection closed",
    "Failed to produce",
    "Shutdown complete",
}


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield file and level of every log call in the source."""
    assert k2.__file__ is not None
    for path in sorted(Path(k2.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error")
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("_log", "log")
            ):
                yield path.name, node.func.attr, node


def _words(call: ast.Call) -> Iterator[str]:
    """Yield keys and literal texts of a log call."""
    for keyword in call.keywords:
        yield keyword.arg or ""
    for node in [*call.args, *(keyword.value for keyword in call.keywords)]:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_a_healthy_line_never_says_what_the_runbooks_alarm_on() -> None:
    healthy = [(file, call) for file, level, call in _calls() if level == "info"]
    assert len(healthy) >= 8
    for file, call in healthy:
        for word in _words(call):
            assert not ALARMING.search(word), f"{file}:{call.lineno}: {word!r}"


def test_the_words_the_runbooks_look_for_are_events_of_ours() -> None:
    events = {
        call.args[0].value
        for _, _, call in _calls()
        if call.args and isinstance(call.args[0], ast.Constant)
    }
    assert events >= LITERALS


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.usefixtures("restored_logging")
def test_the_file_is_json_and_follows_a_rotation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "binance_client.log"
    configure_logging(service="stream", level="INFO", file=file)
    log = structlog.get_logger()
    log.debug("not asked for")
    log.info("Connected", symbols=["币安人生USDT"])
    (line,) = _lines(file)
    assert (line["event"], line["level"], line["service"]) == ("Connected", "info", "stream")
    assert "币安人生USDT" in file.read_text("utf-8")
    assert line["timestamp"].endswith("Z")
    assert not any(ALARMING.search(part) for part in [*line, json.dumps(line)])
    file.rename(tmp_path / "logs" / "binance_client.log.1")
    log.info("Shutdown complete")
    assert [line["event"] for line in _lines(file)] == ["Shutdown complete"]
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == [
        "Connected",
        "Shutdown complete",
    ]


@pytest.mark.usefixtures("restored_logging")
def test_a_failure_keeps_its_traceback_on_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    configure_logging(service="stream", level="INFO", file=file)
    try:
        raise ValueError("boom")
    except ValueError:
        structlog.get_logger().exception("stream_stopped")
    (line,) = _lines(file)
    assert "boom" in line["exception"]


@pytest.mark.usefixtures("restored_logging")
def test_a_file_turned_off_is_not_written(tmp_path: Path) -> None:
    configure_logging(service="stream", level="INFO", file=Path("/dev/null"))
    assert len(logging.getLogger().handlers) == 1
    configure_logging(service="stream", level="INFO", file=None)
    assert len(logging.getLogger().handlers) == 1
    assert list(tmp_path.iterdir()) == []
