from pathlib import Path

import pytest

from k2.errors import StopError
from k2.local.jar_sources import cache_dir, find_sources, local_repository, mirror_of_central

SETTINGS = """<?xml version="1.0"?>
<settings xmlns="urn:maven-settings">
  <localRepository>/data/repository</localRepository>
  <mirrors>
    <mirror><id>other</id><mirrorOf>snapshots</mirrorOf><url>http://other.test/maven</url></mirror>
    <mirror><id>ours</id><mirrorOf>{mirror_of}</mirrorOf><url>http://mirror.test/maven/</url></mirror>
  </mirrors>
</settings>
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("mirror_of", ["central", "*", "external:*", "*, !private"])
def test_a_mirror_that_covers_the_default_is_found(mirror_of: str) -> None:
    assert mirror_of_central(SETTINGS.format(mirror_of=mirror_of)) == "http://mirror.test/maven/"


@pytest.mark.parametrize("mirror_of", ["private", "*,!central", "", "centralized"])
def test_a_mirror_of_something_else_is_not_ours(mirror_of: str) -> None:
    assert mirror_of_central(SETTINGS.format(mirror_of=mirror_of)) is None


@pytest.mark.parametrize("settings", ["", "<settings>", "no xml", "<settings/>"])
def test_settings_without_a_mirror_or_damaged_name_none(settings: str) -> None:
    assert mirror_of_central(settings) is None
    assert local_repository(settings) is None


def test_the_environment_comes_before_settings_and_the_default_comes_last(home: Path) -> None:
    (home / ".m2").mkdir()
    (home / ".m2" / "settings.xml").write_text(SETTINGS.format(mirror_of="*"))

    from_settings = find_sources({})
    from_environment = find_sources({"K2_MAVEN_MIRROR": "http://environment.test/m"})

    assert from_settings.repository == Path("/data/repository")
    assert from_settings.addresses[0] == "http://mirror.test/maven"
    assert from_environment.addresses[0] == "http://environment.test/m"
    assert from_settings.addresses[1:] == from_environment.addresses[1:]
    assert len(from_settings.addresses) == 2


def test_without_settings_there_is_one_address_and_the_usual_repository(home: Path) -> None:
    sources = find_sources({})

    assert sources.repository == home / ".m2" / "repository"
    assert len(sources.addresses) == 1


def test_a_mirror_that_is_no_address_is_refused_by_name(home: Path) -> None:
    with pytest.raises(StopError, match="K2_MAVEN_MIRROR"):
        find_sources({"K2_MAVEN_MIRROR": "mirror"})


def test_the_cache_follows_its_variables(home: Path) -> None:
    assert cache_dir({}) == home / ".cache" / "k2"
    assert cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/k2")
    assert cache_dir({"XDG_CACHE_HOME": "/x", "K2_CACHE_DIR": "/own"}) == Path("/own")
