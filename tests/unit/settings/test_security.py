import io
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console
from rich.traceback import Traceback

from k2.settings import Settings, SettingsError, load_settings, setting_rows
from k2.settings.security import LOGIN_VARIABLES, MASK, SECRETS, SecuritySettings, variable

CANARY = "canary-7f3a"


def _given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def _refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _given(monkeypatch, **variables)
    return str(caught.value)


SCRAM = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "k2",
    "KAFKA_SASL_PASSWORD": CANARY,
}
TOKEN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "https://issuer/token",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "k2",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET": CANARY,
}


def test_without_anything_set_kafka_is_plaintext_and_pages_are_on_loopback() -> None:
    settings = load_settings()
    assert settings.kafka.client({}) == {"bootstrap.servers": "localhost:9092"}
    assert (settings.bind, settings.tls_verify, settings.tls_ca) == ("127.0.0.1", True, None)
    assert settings.registry.login() == {}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_and_a_password_reach_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mechanism: str
) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    given = SCRAM | {"KAFKA_SASL_MECHANISM": mechanism, "KAFKA_SSL_CA_LOCATION": str(ca)}
    assert _given(monkeypatch, **given).kafka.client({"group.id": "g"}) == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
        "sasl.username": "k2",
        "sasl.password": CANARY,
        "ssl.ca.location": str(ca),
        "group.id": "g",
    }


def test_who_asks_for_tokens_reaches_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    given = TOKEN | {"KAFKA_SASL_OAUTHBEARER_SCOPE": "kafka"}
    assert _given(monkeypatch, **given).kafka.client({}) == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://issuer/token",
        "sasl.oauthbearer.client.id": "k2",
        "sasl.oauthbearer.client.secret": CANARY,
        "sasl.oauthbearer.scope": "kafka",
    }


def test_a_certificate_of_our_own_reaches_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = tmp_path / "k2.pem"
    pem.touch()
    settings = _given(
        monkeypatch,
        KAFKA_SECURITY_PROTOCOL="SSL",
        KAFKA_SSL_CERTIFICATE_LOCATION=str(pem),
        KAFKA_SSL_KEY_LOCATION=str(pem),
        KAFKA_SSL_KEY_PASSWORD=CANARY,
    )
    assert settings.kafka.client({}) == {
        "bootstrap.servers": "localhost:9092",
        "security.protocol": "SSL",
        "ssl.certificate.location": str(pem),
        "ssl.key.location": str(pem),
        "ssl.key.password": CANARY,
    }


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_may_come_from_a_file_less_its_line_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(f" {CANARY}\r\n")
    own = {variable(secret), f"{variable(secret)}_FILE"}
    context = {
        "kafka_sasl_password": SCRAM,
        "kafka_client_secret": TOKEN,
        "kafka_ssl_key_password": {
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CERTIFICATE_LOCATION": str(file),
            "KAFKA_SSL_KEY_LOCATION": str(file),
        },
        "registry_password": {"SCHEMA_REGISTRY_USERNAME": "k2"},
    }[secret]
    given = {name: value for name, value in context.items() if name not in own}
    settings = _given(monkeypatch, **given, **{f"{variable(secret)}_FILE": str(file)})
    assert getattr(settings, secret) == SecretStr(f" {CANARY}")
    file.unlink()
    assert getattr(settings, secret) == SecretStr(f" {CANARY}")  # it was read once


def test_a_secret_that_is_given_twice_or_whose_file_is_empty_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("\n")
    with monkeypatch.context() as twice:
        told = _refused(twice, **SCRAM, KAFKA_SASL_PASSWORD_FILE=str(file))
        assert told == "KAFKA_SASL_PASSWORD and KAFKA_SASL_PASSWORD_FILE: expected one of them"
    given = {name: value for name, value in SCRAM.items() if name != "KAFKA_SASL_PASSWORD"}
    told = _refused(monkeypatch, **given, KAFKA_SASL_PASSWORD_FILE=str(file))
    assert told.startswith("KAFKA_SASL_PASSWORD_FILE=")
    assert "the file is empty" in told
    file.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in _refused(monkeypatch)


@pytest.mark.parametrize("name", sorted(SecuritySettings.model_fields))
def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if SecuritySettings.model_fields[name].annotation != (Path | None):
        return
    told = _refused(monkeypatch, **{variable(name): "/nowhere"})
    assert told.startswith(f"{variable(name)}=")
    assert "expected a file that exists" in told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
            (
                "KAFKA_SECURITY_PROTOCOL=SASL_SSL: expected KAFKA_SASL_MECHANISM, "
                "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD too"
            ),
        ),
        (
            {"KAFKA_SASL_PASSWORD": None},
            (
                "KAFKA_SECURITY_PROTOCOL=SASL_SSL, KAFKA_SASL_MECHANISM=SCRAM-SHA-512: expected "
                "KAFKA_SASL_PASSWORD too"
            ),
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": None},
            (
                "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: expected nothing "
                "with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"
            ),
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL"},
            (
                "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: expected nothing "
                "with KAFKA_SECURITY_PROTOCOL=SSL"
            ),
        ),
        (
            {"KAFKA_SASL_OAUTHBEARER_CLIENT_ID": "k2"},
            (
                "KAFKA_SASL_OAUTHBEARER_CLIENT_ID: expected nothing with "
                "KAFKA_SECURITY_PROTOCOL=SASL_SSL and KAFKA_SASL_MECHANISM=SCRAM-SHA-512"
            ),
        ),
        (
            {"KAFKA_SSL_KEY_LOCATION": __file__},
            "KAFKA_SSL_KEY_LOCATION: expected KAFKA_SSL_CERTIFICATE_LOCATION too",
        ),
        (
            {"KAFKA_SSL_KEY_PASSWORD": CANARY},
            "KAFKA_SSL_KEY_PASSWORD: expected KAFKA_SSL_KEY_LOCATION too",
        ),
        (
            {"SCHEMA_REGISTRY_USERNAME": "k2"},
            "SCHEMA_REGISTRY_USERNAME: expected SCHEMA_REGISTRY_PASSWORD too",
        ),
        (
            {"SCHEMA_REGISTRY_PASSWORD": CANARY},
            "SCHEMA_REGISTRY_PASSWORD: expected SCHEMA_REGISTRY_USERNAME too",
        ),
        (
            {"BINANCE_TLS_CA": __file__, "BINANCE_TLS_VERIFY": "false"},
            "BINANCE_TLS_CA: expected nothing with BINANCE_TLS_VERIFY=false",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_name_and_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str | None], told: str
) -> None:
    whole = {} if given == {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"} else SCRAM
    variables = {name: value for name, value in {**whole, **given}.items() if value is not None}
    assert _refused(monkeypatch, **variables) == told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("K2_BIND", "not an address"),
        ("BINANCE_TLS_VERIFY", "perhaps"),
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", "ftp://issuer"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    assert _refused(monkeypatch, **{name: value}).startswith(f"{name}={value!r}: expected ")


@pytest.mark.parametrize(
    "name", ["SCHEMA_REGISTRY_URL", "BINANCE_WS_URL", "BINANCE_WS_URL_FALLBACK", "BINANCE_REST_URL"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scheme = "wss" if "WS" in name else "https"
    told = _refused(monkeypatch, **{name: f"{scheme}://anna:{CANARY}@host:1"})
    assert "without a user in it" in told
    assert CANARY not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCHEMA_REGISTRY_URL", f"http://svc:a/{CANARY}@reg:8081"),
        ("SCHEMA_REGISTRY_URL", f"http://svc:{CANARY}@b@reg:8081"),
        ("SCHEMA_REGISTRY_URL", f"svc:{CANARY}@reg:8081"),
        ("BINANCE_WS_URL", f"wss://svc:a/{CANARY}@ws:1"),
        ("BINANCE_REST_URL", f"https://a, https://svc:a/{CANARY}@rest:1"),
        ("BINANCE_REST_URL", f"https://svc:a/{CANARY}@rest:1, ftp://b"),
        ("KAFKA_BOOTSTRAP", f"svc:{CANARY}@host:9092"),
        ("KAFKA_BOOTSTRAP", f"host:9092,svc:{CANARY}@host:9092"),
        ("KAFKA_BOOTSTRAP", f"svc:{CANARY}@host:none"),
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", f"https://svc:a/{CANARY}@issuer"),
    ],
)
def test_a_password_anywhere_in_an_address_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    told = _refused(monkeypatch, **{name: value})
    assert f"{MASK}@" in told
    assert CANARY not in told


def _every_secret(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings that hold all secrets there are, each a canary."""
    given = {variable(name): f"{CANARY}-{name}" for name in SECRETS}
    monkeypatch.setattr("k2.settings.loading.contradictions", lambda _: [])
    return _given(monkeypatch, **given, KAFKA_SECURITY_PROTOCOL="SASL_SSL")


def test_every_secret_has_its_file_and_no_secret_is_forgotten() -> None:
    told = {name for name in SecuritySettings.model_fields if name.endswith(("password", "secret"))}
    assert set(SECRETS) == told
    assert {f"{name}_file" for name in SECRETS} <= set(SecuritySettings.model_fields)
    assert {variable(name) for name in SECRETS} <= LOGIN_VARIABLES


def test_no_secret_is_printed_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _every_secret(monkeypatch)
    rows = {row.variable: row.value for row in setting_rows(settings)}
    assert {rows[variable(name)] for name in SECRETS} == {MASK}
    for text in (rows, settings, settings.kafka, settings.registry, settings.model_dump_json()):
        assert CANARY not in repr(text) + str(text)
    # They are there all the same.
    assert str(settings.kafka.client({})).count(CANARY) == 3
    assert rows["KAFKA_SASL_PASSWORD_FILE"] == ""


def _shown_with_locals(exc: BaseException) -> str:
    console = Console(file=io.StringIO(), width=4000)
    trace = Traceback.from_exception(
        type(exc),
        exc,
        exc.__traceback__,
        show_locals=True,
        locals_max_string=100_000,
        locals_max_length=1_000,
    )
    console.print(trace)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_traceback_that_shows_every_local_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = _every_secret(monkeypatch)

    def fails(settings: Settings) -> None:
        kafka, registry = settings.kafka, settings.registry
        raise ValueError(f"{kafka} {registry}")

    with pytest.raises(ValueError, match="KafkaConnection") as caught:
        fails(settings)
    told = _shown_with_locals(caught.value)
    assert "settings" in told
    assert MASK in told
    assert CANARY not in told


def test_a_traceback_of_refused_settings_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "k2.env"
    file.write_text("".join(f"{variable(name)}={CANARY}\n" for name in SECRETS))
    for wrong in ("K2_SHARDS=0\n", "K2_UNKNOWN=1\n", ""):
        file.write_text(file.read_text() + wrong)
        with pytest.raises(SettingsError) as caught:
            load_settings(env_file=file)
        told = _shown_with_locals(caught.value)
        assert "SettingsError" in told
        assert CANARY not in told
