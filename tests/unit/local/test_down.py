import asyncio
from pathlib import Path

import pytest

from k2.cli.local import asked
from k2.errors import StopError
from k2.ingestion.supervision import ExitCode
from k2.local.down import MARKER, require_ours, run_down
from k2.local.file_lock import FileLock
from k2.local.stack import Stack
from k2.local.venue import VenueKind, choose_venue
from k2.market import StreamKind
from k2.settings import load_settings

OURS = [
    *("kafka/a", "registry/a", "logs/stream.log", "pids/a", "spill/BTCUSDT", "prometheus/data/a"),
    *("dlq/binance-20260101.jsonl", "lake/warehouse/a", "lake-simulated/catalog.db"),
    *("exchange-simulated/a", "kafka.properties", "ports.json", "k2.env", "connects.json"),
    *("symbols-lake.txt", "symbols-lake-simulated.txt", MARKER),
]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Return a state directory with everything in it that k2 makes."""
    made = tmp_path / "var"
    for name in OURS:
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return made


def sure(_what: str) -> bool:
    return True


def never(what: str) -> bool:
    raise AssertionError(f"asked: {what}")


def test_delete_removes_all_of_k2s_and_then_the_folder(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_down(state_dir, delete=True, confirm=sure) is ExitCode.CLEAN
    assert not state_dir.exists()
    said = capsys.readouterr().out
    assert "the LAKE lake, the LAKE lake-simulated" in said
    assert "left alone" not in said


def test_what_is_not_k2s_stays_and_the_folder_can_be_used_again(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state_dir / "notes.txt").write_text("mine")
    (state_dir / "lakeside").mkdir()
    run_down(state_dir, delete=True, confirm=sure)
    assert sorted(path.name for path in state_dir.iterdir()) == ["lakeside", "notes.txt", MARKER]
    assert "left alone, they are not k2's: lakeside, notes.txt" in capsys.readouterr().out
    require_ours(state_dir)
    assert run_down(state_dir, delete=True, confirm=never) is ExitCode.CLEAN
    assert (state_dir / "notes.txt").read_text() == "mine"


def test_a_link_is_removed_and_not_what_it_points_at(state_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (state_dir / "lake-recorded-linked").symlink_to(elsewhere)
    run_down(state_dir, delete=True, confirm=sure)
    assert not state_dir.exists()
    assert (elsewhere / "precious").exists()


def test_whoever_is_asked_hears_of_the_lake_and_may_say_no(state_dir: Path) -> None:
    asked: list[str] = []

    def no(what: str) -> bool:
        asked.append(what)
        return False

    assert run_down(state_dir, delete=True, confirm=no) is ExitCode.FAILED
    assert "the LAKE lake-simulated" in asked[0]
    assert all((state_dir / name).exists() for name in OURS)


def test_without_delete_nothing_is_asked_and_doing_nothing_is_said(
    state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_down(state_dir, delete=False, confirm=never) is ExitCode.CLEAN
    assert "nothing of k2 runs" in capsys.readouterr().out
    assert all((state_dir / name).exists() for name in OURS)


def test_what_plain_services_left_is_no_strangers_folder(tmp_path: Path) -> None:
    for name in ("connects.json", "connects.json.lock", "connects.json.new"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "spill").mkdir()
    (tmp_path / "symbols-lake-simulated.txt").write_text("BTCUSDT")
    require_ours(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "lake", "logs", "symbols.txt"])
def test_a_strangers_folder_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StopError, match=rf"not k2's \({name}\): nothing was touched"):
        run_down(tmp_path, delete=True, confirm=never)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_a_folder_k2_up_runs_on_is_not_touched(state_dir: Path) -> None:
    lock = FileLock.try_acquire(state_dir / MARKER)
    assert lock is not None
    try:
        with pytest.raises(StopError, match="k2 up runs on"):
            run_down(state_dir, delete=True, confirm=never)
    finally:
        lock.release()
    assert (state_dir / "lake").exists()


@pytest.mark.parametrize("name", ["lake-backup", "lake-simulated-old", "exchange-rates", "lakes"])
def test_a_folder_that_is_only_called_much_like_k2s_stays(state_dir: Path, name: str) -> None:
    (state_dir / name).mkdir()
    (state_dir / name / "mine").write_text("x")
    run_down(state_dir, delete=True, confirm=sure)
    assert (state_dir / name / "mine").exists()
    assert sorted(path.name for path in state_dir.iterdir()) == sorted([name, MARKER])


@pytest.mark.parametrize("stream", list(StreamKind))
@pytest.mark.parametrize(
    ("host", "wish", "tape"),
    [
        ("stream.binance.com:9443", "binance", None),
        ("stream.binance.com:443", "auto", None),
        ("stream.binance.us", "auto", None),
        ("stream.testnet.binance.vision", "auto", None),
        ("demo-stream.binance.com", "auto", None),
        ("box", "auto", None),
        ("box", "built-in", None),
        ("box", "auto", Path("my tape.1.ndjson")),
    ],
)
def test_every_lake_and_exchange_of_k2_up_is_removed(
    tmp_path: Path, stream: StreamKind, host: str, wish: str, tape: Path | None
) -> None:
    state_dir = tmp_path / "var"
    settings = load_settings(
        {"ws_url": f"wss://{host}/ws", "stream": stream, "state_dir": state_dir}
    )
    venue = asyncio.run(choose_venue(settings, wish=wish, tape=tape))
    venue.lake_dir.mkdir(parents=True)
    if venue.kind in (VenueKind.BUILT_IN, VenueKind.RECORDING):
        venue.exchange_dir.mkdir()
    (state_dir / MARKER).touch()
    run_down(state_dir, delete=True, confirm=sure)
    assert not state_dir.exists()


def test_a_linked_state_directory_is_emptied_and_stays(
    state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(state_dir)
    assert run_down(link, delete=True, confirm=sure) is ExitCode.CLEAN
    assert list(state_dir.iterdir()) == []
    assert f"{link} itself stays" in capsys.readouterr().out


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StopError, match=r"file/var/.* cannot be made \(Not a dir.*choose another"):
        asyncio.run(Stack(state_dir=tmp_path / "file" / "var").claim())


def test_no_answer_at_the_prompt_is_no(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    def end(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    assert run_down(state_dir, delete=True, confirm=asked) is ExitCode.FAILED
    assert all((state_dir / name).exists() for name in OURS)
