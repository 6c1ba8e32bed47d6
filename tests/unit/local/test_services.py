import asyncio
import sys
from pathlib import Path

import pytest

from k2.errors import StopError
from k2.local.processes import Command
from k2.local.services import Service, last_reason
from k2.settings import SettingsError

REASON = "the exchange does not list NOSUCH, named in var/symbols-lake.txt"


def kept(tmp_path: Path, program: str) -> list[str]:
    """Keep a program running until that is given up; return what was reported."""
    said: list[str] = []

    async def keep() -> None:
        command = Command("stream", (sys.executable, "-c", program))
        service = Service(command, state_dir=tmp_path, report=said.append)
        await service.start()
        async with asyncio.timeout(30):
            await service.keep()

    asyncio.run(keep())
    return said


def test_a_service_whose_settings_are_wrong_is_not_started_again_and_its_reason_is_told(
    tmp_path: Path,
) -> None:
    line = f'{{"level": "error", "event": "stream_stopped", "reason": "{REASON}"}}'
    with pytest.raises(SettingsError) as caught:
        kept(tmp_path, f"import sys; print({line!r}); sys.exit(2)")
    assert str(caught.value) == REASON


def test_one_that_gives_no_reason_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)stream will not run:.*what went wrong"):
        kept(tmp_path, "import sys; print('what went wrong'); sys.exit(2)")


def test_one_that_keeps_failing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2.local.services.RESTART_DELAY_MIN_S", 0.0)
    with pytest.raises(StopError, match=r"stream ended with 1 and will not run"):
        kept(tmp_path, "import sys; sys.exit(1)")


def test_the_reason_is_that_of_the_last_error() -> None:
    lines = ['{"level":"error","reason":"first"}', '{"level":"info","reason":"no"}', "plain"]
    assert last_reason("\n".join(lines)) == "first"
    assert last_reason("plain") == ""
