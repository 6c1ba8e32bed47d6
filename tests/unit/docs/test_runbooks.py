"""The runbooks lead somewhere: links, anchors, commands, metrics and settings in them exist."""

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from k2.cli.app import app
from k2.observability import metrics
from k2.settings import Settings
from runbooks.shown import ROOT, RUNBOOKS, all_blocks, blocks_of

PAGES = [
    *sorted(RUNBOOKS.glob("*.md")),
    ROOT / "docs" / "architecture" / "streaming-sources.md",
]
SEEDS = ROOT.parent / "shared" / "seeds"

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^ *```[a-z]*.*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_METRIC = re.compile(r"\b((?:binance|kafka|iceberg|k2|process|memory|serializer)_[a-z0-9_]+)\b")
_SETTING = re.compile(r"\b((?:K2|BINANCE|KAFKA|SCHEMA)_[A-Z][A-Z_]+)\b")

# What stands among the old runbooks' commands and is none: frames, settings, the shell's own.
_NO_COMMAND = re.compile(
    r"[<>{}'\"#]|[A-Z_]+=|export |sleep |echo \"|cd /|/var/log|logs/|rotate |create |k2-|NAMES|\w+$"
)

# The words that tell one old command from another.
OLD = {
    "binance-streaming.md": (
        *("uv run python", "tail -f logs/binance_client.log", "ps aux", "console-consumer"),
        *("query=binance_messages_received_total", "curl -v wss", '"429', "wscat"),
        *("MAX_RECONNECT_DELAY", "/subjects", "versions/latest", "-A 5", "docker compose ps"),
        *("console-producer", "transformation", "docker stats", "consumer-groups"),
        *("send_batch", "scale binance-client=3", "linger.ms", "parse\\|invalid", "jq"),
        *("docker compose restart", "Subscribed", "exec binance-client-2", "--timeout 30"),
        *("Shutdown complete", "logrotate", "8001/health", "heartbeat\\|ping", ".venv/bin"),
        *('grep "Connection"', "/tmp/dlq/binance-", "binance-client=2", "stop binance-client-1"),
    ),
    "blue-green-deployment.md": (
        *("deploy_blue_green.sh", "validate_deployment.sh", "docker build", "docker images"),
        *("K2_IMAGE_TAG", "--scale binance-stream=2", "docker ps --filter", "watch -n"),
        *("docker compose stop", "docker ps -a", "netstat", "error\\|exc"),
        *("api/v3/ping", "telnet", "memory_leak_detection_score", "serializer_cache_size"),
        *("failed-deployment-metrics.txt", "docker compose up -d", "xargs docker stop"),
        *("docker rmi", "process_memory_rss_bytes", "kafka_produce_errors_total", "docker logs"),
        "grep binance_messages_received_total",
    ),
}
OLD_NAMES = {"binance-streaming.md": "binance-streaming-operations.md"}

# Looks like one of our names, and is not.
NOT_METRICS = {"binance_client", "process_did_not_run", "memory_growth"}
# What the old runbooks had, or the deployment issue brings.
NOT_SETTINGS = {"K2_IMAGE_TAG"}


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def slugs(page: Path) -> set[str]:
    """Return the anchors GitHub gives a page's headings."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text_of(page))):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


def code_of(page: Path) -> list[str]:
    """Return the lines of fenced blocks that are commands, and the code in sentences."""
    lines = []
    for name_and_body in re.finditer(
        r"^ *```(bash|console)[^\n]*\n(.*?)^ *```$", text_of(page), re.MULTILINE | re.DOTALL
    ):
        kind, body = name_and_body.groups()
        for line in body.replace("\\\n", " ").splitlines():
            if kind == "bash":
                lines.append(line.strip())
            elif line.strip().startswith("$ "):
                lines.append(line.strip()[2:])
    prose = _FENCE.sub("", text_of(page))
    return lines + [code.replace("\\|", "|") for code in _CODE.findall(prose)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_anchor_exists(page: Path) -> None:
    targets = [link for link in _LINK.findall(text_of(page)) if "://" not in link]
    assert targets
    for target in targets:
        path, _, anchor = target.partition("#")
        aimed = (page.parent / path).resolve() if path else page
        assert aimed.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in slugs(aimed), f"{page.name}: {target}"


def test_every_alert_names_a_section_and_the_section_names_the_alert() -> None:
    for path in sorted((ROOT / "config" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(text_of(path))["groups"]:
            for rule in group["rules"]:
                if "alert" not in rule:
                    continue
                file, _, anchor = rule["annotations"]["runbook"].partition("#")
                page = ROOT / file
                assert anchor in slugs(page), f"{rule['alert']}: no section #{anchor}"
                section = section_of(page, anchor)
                named = "**Fires:** always" if rule["alert"] == "Watchdog" else rule["alert"]
                assert named in section, f"#{anchor} does not say {rule['alert']}"


def section_of(page: Path, anchor: str) -> str:
    for part in re.split(r"^## ", text_of(page), flags=re.MULTILINE):
        title = part.partition("\n")[0]
        if re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") == anchor:
            return part
    raise AssertionError(f"no section #{anchor}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_k2_command_exists_with_its_flags(page: Path) -> None:
    for code in code_of(page):
        for part in re.split(r"[|;]| && ", code):
            words = part.split("#")[0].replace("…", "").split()
            while words and re.fullmatch(r"[A-Z0-9_]+=\S*", words[0]):
                words = words[1:]
            if words[:1] == ["k2"] and len(words) > 1:
                understood(words[1:], where=f"{page.name}: `{code}`")


def understood(words: list[str], *, where: str) -> None:
    """Parse a command without running it."""
    words = shlex.split(" ".join(words))
    if words[0] == "healthcheck":  # parses by itself, and has few words
        flags = {word for word in words[1:] if not word.startswith("http")}
        assert flags <= {"--url", "--ready", "--live"}, where
        return
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except Exception as exc:
        raise AssertionError(f"{where}: {exc}") from exc


def exported() -> set[str]:
    """Return every series name the services can show."""
    names = set()
    for registry in (metrics.process, metrics.capture, metrics.archive):
        for family in registry.own:
            for suffix in ("", "_total", "_bucket", "_count", "_sum"):
                names.add(family.name + suffix)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_and_setting_named_is_ours(page: Path) -> None:
    text = re.sub(r"\^\w*\([^)]*\)", "", text_of(page))  # alternatives of a grep are checked below
    known = exported()
    for name in set(_METRIC.findall(text)) - NOT_METRICS:
        assert name in known or any(one.startswith(name) for one in known), f"{page.name}: {name}"
    variables = {str(field.validation_alias) for field in Settings.model_fields.values()}
    for name in set(_SETTING.findall(text)) - NOT_SETTINGS:
        assert name in variables, f"{page.name}: {name}"


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.name)
def test_a_grep_over_metrics_finds_names_that_exist(page: Path) -> None:
    known = exported()
    for code in code_of(page):
        if "/metrics" not in code:
            continue
        for pattern in re.findall(r"grep (?:-E )?'?\^?([\w(|)]+)", code):
            for name in expanded(pattern):
                assert any(one.startswith(name) for one in known), f"`{code}`: {name}"


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.name)
def test_a_grep_over_logs_looks_for_words_that_are_logged(page: Path) -> None:
    source = "".join(text_of(path) for path in (ROOT / "src" / "k2").rglob("*.py"))
    for code in code_of(page):
        found = re.search(r"grep (?:-E )?(['\"]?)(.+?)\1 logs/", code)
        if found is None or "level" in found[2]:
            continue
        for word in found[2].strip('"').split("|"):
            # What a server answered is in the line as it came.
            answer = re.fullmatch(r"(received|answered) \d{3}", word)
            assert word.strip('"') in source or answer, f"`{code}`: {word}"


def expanded(pattern: str) -> list[str]:
    """Return the names that alternatives in brackets stand for."""
    found = re.search(r"\(([^()]*)\)", pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [name for part in found[1].split("|") for name in expanded(before + part + after)]


def test_every_shown_block_is_seen_by_a_test() -> None:
    tests = "".join(text_of(path) for path in (ROOT / "tests" / "runbooks").glob("test_*.py"))
    assert len(all_blocks()) > 30
    for name in all_blocks():
        assert tests.count(f'"{name}"') == 1, name


def commands_of_seed(name: str) -> list[str]:
    """Return every command line of an old runbook, its settings and sample output left out."""
    path = SEEDS / name
    if not path.exists():
        absent = f"the old runbooks are not beside this checkout: {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)  # there they are part of the machine: a missing part fails
        pytest.skip(absent)
    found = []
    for body in re.findall(r"^```bash\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL):
        joined = re.sub(r"\\\n\s*", "", body)
        lines = [line.partition("# ")[0].strip() for line in joined.splitlines()]
        found += [line for line in lines if line and not _NO_COMMAND.match(line)]
    return found


@pytest.mark.parametrize("page", OLD)
def test_every_command_of_the_old_runbooks_is_in_the_tables(page: str) -> None:
    table = section_of(RUNBOOKS / page, "old-command-command-now")
    for word in OLD[page]:
        assert word in table, word
    commands = commands_of_seed(OLD_NAMES.get(page, page))
    assert len(commands) > 20
    for command in commands:
        assert any(word in command for word in OLD[page]), f"no row is that of `{command}`"


def test_every_contradiction_and_defect_that_changes_a_command_is_named() -> None:
    tables = "".join(
        section_of(page, "old-command-command-now") for page in sorted(RUNBOOKS.glob("*.md"))
    )
    named = set(re.findall(r"\b[CD]\d+\b", tables))
    prose = set(re.findall(r"\b[CD]\d+\b", "".join(map(text_of, PAGES))))
    of_commands = {f"C{n}" for n in (2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21)}
    of_commands |= {f"C{n}" for n in (22, 23, 24, 25, 26, 27, 29)}
    of_commands |= {f"D{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)}
    assert not of_commands - named
    assert "C7" in prose


def test_a_fragment_is_looked_for_in_its_turn_and_dots_stand_for_anything() -> None:
    (shown,) = blocks_of("```console id=x\n$ k2 y\na … c\nd\n```\n")["x"]
    assert shown.command == "k2 y"
    assert shown.missing_in("a   b c\nz\nd\n") is None
    assert shown.missing_in("d\na b c\n") == "d"
    assert shown.missing_in("a b c d\n") == "a … c"


def test_a_command_goes_on_where_the_shell_would_ask_for_more() -> None:
    (shown,) = blocks_of("```console id=x\n$ cat <<'END'\n> a b\n> END\na b\n> c\n```\n")["x"]
    assert shown.command == "cat <<'END'\na b\nEND"
    assert shown.fragments == ("a b", "> c")


def test_two_blocks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two blocks"):
        blocks_of("```console id=x\n$ a\n```\n```console id=x\n$ b\n```\n")
