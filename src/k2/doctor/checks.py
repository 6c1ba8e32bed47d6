"""Which checks there are, and what each looks at."""

import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from k2.doctor.examination import Check
from k2.doctor.finding import Finding, Level, Unseen, fail
from k2.doctor.kafka_judgement import (
    Needs,
    judge_broker,
    judge_cluster,
    judge_listener,
    judge_open,
    judge_transaction,
    nothing_open,
)
from k2.doctor.kafka_look import KafkaLook, client_settings, tls_with_brokers
from k2.doctor.lake_judgement import judge_table
from k2.doctor.machine_judgement import judge_folder, judge_open_files
from k2.doctor.machine_look import look_at_folder, open_files_limit
from k2.doctor.reach_judgement import Place
from k2.doctor.reach_look import connect, look_at_address, place_of, reached
from k2.doctor.registry_judgement import judge_subject
from k2.doctor.registry_look import look_at_subject
from k2.doctor.rest_judgement import judge_answer, judge_clock
from k2.doctor.rest_look import ask_clock, ask_ping
from k2.doctor.topics_judgement import INTERNAL_TOPICS, judge_all_retention, judge_topics
from k2.doctor.transaction_look import open_transactions, try_transaction
from k2.doctor.websocket_judgement import judge_stream
from k2.doctor.websocket_look import look_at_stream
from k2.errors import RetryError, StopError
from k2.ingestion.symbols_file import wanted_symbols
from k2.ingestion.venue import tls_of
from k2.kafka.lease import FALLBACK_SESSION_TIMEOUT_S, SESSION_TIMEOUT_S
from k2.kafka.topics import TopicNames
from k2.kafka.transaction import TRANSACTION_TIMEOUT_S
from k2.settings import Settings

SUBJECTS = ("ws", "rest", "kafka", "registry", "lake", "machine")

DEADLINE_S = 25.0
"""Longer than the timeouts of the steps of any check but Kafka's."""
KAFKA_DEADLINE_S = 40.0

NEEDS = Needs(
    session_s=SESSION_TIMEOUT_S,
    session_at_most_s=FALLBACK_SESSION_TIMEOUT_S,
    transaction_s=TRANSACTION_TIMEOUT_S,
)


def checks_of(
    settings: Settings, *, subjects: Collection[str], outage_s: float, log_dir: Path
) -> list[Check]:
    """Return the checks of some subjects, in the order of ``SUBJECTS``.

    Args:
        settings: What k2 would run with.
        subjects: Some of ``SUBJECTS``.
        outage_s: How long the archive may be away without losing trades.
        log_dir: Where the services log.
    """
    makers: dict[str, Callable[[], list[Check]]] = {
        "ws": lambda: _ws(settings),
        "rest": lambda: _rest(settings),
        "kafka": lambda: _kafka(settings, outage_s),
        "registry": lambda: _registry(settings),
        "lake": lambda: [_check("lake", "lake", lambda: _lake(settings))],
        "machine": lambda: [_check("machine", "machine", lambda: _machine(settings, log_dir))],
    }
    return [check for name in SUBJECTS if name in subjects for check in makers[name]()]


def _check(
    subject: str,
    name: str,
    look: Callable[[], Iterator[Finding]],
    *,
    spares: str = "",
) -> Check:
    return Check(subject=subject, name=name, look=look, spares=spares, deadline_s=DEADLINE_S)


def _ws(settings: Settings) -> list[Check]:
    variables = {settings.ws_url: "BINANCE_WS_URL"}
    for url in settings.leg_urls:
        variables.setdefault(url, "BINANCE_WS_URL_FALLBACK")
    return [
        _check("ws", _host(url), _ws_look(settings, url, variable), spares="ws")
        for url, variable in variables.items()
        if url in settings.leg_urls
    ]


def _ws_look(settings: Settings, url: str, variable: str) -> Callable[[], Iterator[Finding]]:
    def look(place: Place, tls: ssl.SSLContext) -> Iterator[Finding]:
        symbols = _some_symbols(settings)
        seen = look_at_stream(url, symbols=symbols, kind=settings.stream, tls=tls)
        yield from judge_stream(place, seen)

    return _exchange_look(settings, url, variable, look)


def _some_symbols(settings: Settings) -> list[str]:
    """Return symbols to listen to; for ``all:USDT`` the one that trades most."""
    wanted = wanted_symbols(settings)
    return sorted(wanted.names) or [f"BTC{quote}" for quote in sorted(wanted.quotes)] or ["BTCUSDT"]


def _rest(settings: Settings) -> list[Check]:
    return [
        _check("rest", _host(url), _rest_look(settings, url), spares="rest")
        for url in settings.rest_urls
    ]


def _rest_look(settings: Settings, url: str) -> Callable[[], Iterator[Finding]]:
    def look(place: Place, tls: ssl.SSLContext) -> Iterator[Finding]:
        answers = judge_answer(place, ask_ping(url, tls=tls))
        yield from answers
        if all(one.level is not Level.FAIL for one in answers):
            yield judge_clock(place, ask_clock(url, tls=tls))

    return _exchange_look(settings, url, "BINANCE_REST_URL", look)


def _exchange_look(
    settings: Settings,
    url: str,
    variable: str,
    look: Callable[[Place, ssl.SSLContext], Iterator[Finding]],
) -> Callable[[], Iterator[Finding]]:
    """Return a look at an address of the exchange that believes whom the services believe."""

    def reach_and_look() -> Iterator[Finding]:
        try:
            tls = tls_of(settings)
        except StopError as exc:
            yield fail("certificates", str(exc), fix="a file of PEM certificates")
            return
        for found in reached(url, setting=variable, believed=tls):
            yield found
            if found.level is Level.FAIL:
                return
        yield from look(place_of(url, setting=variable), tls)

    return reach_and_look


def _kafka(settings: Settings, outage_s: float) -> list[Check]:
    addresses = [part.strip() for part in settings.kafka_bootstrap.split(",")]
    return [
        *(
            _check("kafka", address, _bootstrap_look(settings, address), spares="bootstrap")
            for address in dict.fromkeys(addresses)
        ),
        Check(
            subject="kafka",
            name="cluster",
            look=lambda: _cluster(settings, outage_s),
            deadline_s=KAFKA_DEADLINE_S,
        ),
    ]


def _bootstrap_look(settings: Settings, address: str) -> Callable[[], Iterator[Finding]]:
    host, _, port = address.rpartition(":")
    place = Place(host.strip("[]"), int(port), "KAFKA_BOOTSTRAP")

    def look() -> Iterator[Finding]:
        try:
            believed = tls_with_brokers(settings)
        except RetryError as exc:
            yield fail("certificates", str(exc), fix="files of PEM, and the password of the key")
            return
        yield from look_at_address(place, tls=believed is not None, believed=believed)

    return look


def _cluster(settings: Settings, outage_s: float) -> Iterator[Finding]:
    client = client_settings(settings)
    kafka = KafkaLook(client)
    found = judge_cluster(kafka.cluster(), bootstrap=settings.kafka_bootstrap)
    yield found
    if found.level is Level.FAIL:
        return
    for broker_id, (host, port) in kafka.brokers().items():
        place = Place(host, port, "advertised.listeners")
        yield judge_listener(broker_id, str(place), connect(place))
    for broker_id, said in kafka.broker_settings().items():
        yield from judge_broker(broker_id, said, needs=NEEDS)
    names = msgspec.structs.asdict(TopicNames.of(settings.topic_prefix))
    topics = kafka.topics([*names.values(), *INTERNAL_TOPICS])
    yield from judge_topics(
        topics, names=names, brokers=len(kafka.brokers()), shards=settings.shards
    )
    yield from judge_all_retention(topics, names=names, outage_s=outage_s)
    yield judge_transaction(try_transaction(client, transaction_s=NEEDS.transaction_s), needs=NEEDS)
    partitions = {name: topics[name].partitions for name in names.values() if name in topics}
    waiting = open_transactions(client, partitions)
    if isinstance(waiting, Unseen):
        yield fail("stable offsets", waiting.reason, fix="see the lines above")
    elif waiting:
        yield from (judge_open(one, needs=NEEDS) for one in waiting)
    elif partitions:
        yield nothing_open(sum(partitions.values()))


def _registry(settings: Settings) -> list[Check]:
    url, registry = settings.schema_registry_url, settings.registry
    names = TopicNames.of(settings.topic_prefix)

    def look() -> Iterator[Finding]:
        try:
            believed = registry.tls()
        except RetryError as exc:
            yield fail("certificates", str(exc), fix="a file of PEM certificates")
            return
        for found in reached(url, setting="SCHEMA_REGISTRY_URL", believed=believed):
            yield found
            if found.level is Level.FAIL:
                return
        for subject in (names.subject, names.repairs_subject):
            seen = look_at_subject(registry, subject)
            yield from judge_subject(seen)
            if isinstance(seen, Unseen):
                return

    return [_check("registry", _host(url), look)]


def _lake(settings: Settings) -> Iterator[Finding]:
    # The lake's libraries take a second to import: only where it is asked for.
    from k2.doctor.lake_look import look_at_lake  # noqa: PLC0415

    place = settings.lake_catalog or str(settings.lake_path)
    yield from judge_table(look_at_lake(settings), place=place)


def _machine(settings: Settings, log_dir: Path) -> Iterator[Finding]:
    folders: Sequence[tuple[str, Path, str]] = (
        ("state", settings.state_dir, "K2_STATE_DIR"),
        ("the lake", settings.lake_path, "K2_LAKE_DIR"),
        ("dead letters", settings.dead_letter_dir, "K2_DLQ_DIR"),
        ("logs", log_dir, "K2_LOG_FILE"),
    )
    for use, path, setting in folders:
        if use == "the lake" and settings.lake_catalog:
            continue  # its catalog says where it is
        yield judge_folder(look_at_folder(path), use=use, setting=setting)
    yield judge_open_files(open_files_limit())


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
