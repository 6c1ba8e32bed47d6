import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "a", "version": "1", "vulns": []}
HOLED = {"name": "b", "version": "2", "vulns": [{"id": "GHSA-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def test_a_vulnerability_is_named_with_the_version_that_mends_it(audit: ModuleType) -> None:
    said = json.dumps({"dependencies": [CLEAN, HOLED]})
    assert audit.judge(said) == ["b 2: GHSA-1, mended in 3"]
    assert audit.judge(json.dumps({"dependencies": [CLEAN]})) == []


@pytest.mark.parametrize("said", ["", "{}", '{"dependencies": []}'])
def test_what_was_not_asked_is_not_clean(audit: ModuleType, said: str) -> None:
    assert audit.judge(said) is None
    # An index that knows no package makes pip-audit end with 0.
    assert audit.judge(json.dumps({"dependencies": [CLEAN, SKIPPED]})) is None


@pytest.mark.parametrize(
    ("found", "required", "leaking", "code"),
    [
        ([], "", False, 0),
        (["b 2: GHSA-1"], "", False, 1),
        (None, "", False, 0),
        (None, "1", False, 1),
        ([], "1", False, 0),
        (None, "", True, 1),
    ],
)
def test_a_finding_fails_and_a_missing_service_only_where_it_is_required(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: list[str] | None,
    required: str,
    leaking: bool,
    code: int,
) -> None:
    monkeypatch.setenv("AUDIT_REQUIRED", required)
    monkeypatch.setattr(audit, "audit", lambda _: found)
    monkeypatch.setattr(audit, "search_tracked_files", lambda: leaking)
    assert audit.main() == code
    assert ("NOT AUDITED" in capsys.readouterr().out) is (found is None)


def test_a_key_in_a_tracked_file_is_found_and_an_untracked_one_is_not(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["init", "-q"], ["add", "-A"]):
        (tmp_path / "fine.py").write_text("limit = 7\n")
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "key.pem").write_text("-----BEGIN " + "RSA PRIVATE KEY-----\n")
    assert not audit.search_tracked_files(tmp_path)
    subprocess.run(["git", "add", "key.pem"], cwd=tmp_path, check=True)
    assert audit.search_tracked_files(tmp_path)
    assert "key.pem:1" in capsys.readouterr().out
