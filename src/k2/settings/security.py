"""The settings of security: how k2 is let in, and whom it believes.

A secret comes from its variable or from the file that ``VARIABLE_FILE`` names, which is read once.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MASK = "**********"
PASSWORD_MAX_BYTES = 64 << 10


def _existing(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise ValueError("a file that exists")
    return path


def _address(value: str) -> str:
    """Accept hosts too: what cannot be bound is told by the system."""
    if not re.fullmatch(r"[0-9a-zA-Z.:_-]{1,253}", value):
        raise ValueError("an address such as 127.0.0.1 or 0.0.0.0")
    return value


ExistingFile = Annotated[Path | None, AfterValidator(_existing)]


class SecuritySettings(BaseSettings):
    """The part of ``Settings`` that is about security."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    bind: Annotated[str, AfterValidator(_address)] = Field(
        default="127.0.0.1",
        validation_alias="K2_BIND",
        description="Address that metrics, health and status page listen on; 0.0.0.0 in a "
        "container. They ask nobody who he is.",
    )
    tls_ca: ExistingFile = Field(
        default=None,
        validation_alias="BINANCE_TLS_CA",
        description="A file of PEM certificates to believe of the exchange, instead of the "
        "system's.",
    )
    tls_verify: bool = Field(
        default=True,
        validation_alias="BINANCE_TLS_VERIFY",
        description="false believes any certificate of the exchange: anybody on the way can "
        "then invent trades. Logged as a warning.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="What Kafka's listener speaks: PLAINTEXT, SSL or SASL_SSL.",
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = (
        Field(
            default="",
            validation_alias="KAFKA_SASL_MECHANISM",
            description="With SASL_SSL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.",
        )
    )
    kafka_sasl_username: str = Field(
        default="",
        validation_alias="KAFKA_SASL_USERNAME",
        description="The user of PLAIN and SCRAM.",
    )
    kafka_sasl_password: SecretStr | None = Field(
        default=None,
        validation_alias="KAFKA_SASL_PASSWORD",
        description="The password of that user.",
    )
    kafka_sasl_password_file: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SASL_PASSWORD_FILE",
        description="A file that holds it, instead.",
    )
    kafka_token_url: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$")] = Field(
        default="",
        validation_alias="KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL",
        description="Where OAUTHBEARER gets its tokens (OpenID Connect, client credentials).",
    )
    kafka_client_id: str = Field(
        default="",
        validation_alias="KAFKA_SASL_OAUTHBEARER_CLIENT_ID",
        description="Who asks for tokens.",
    )
    kafka_client_secret: SecretStr | None = Field(
        default=None,
        validation_alias="KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
        description="The secret of whoever asks for tokens.",
    )
    kafka_client_secret_file: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE",
        description="A file that holds it, instead.",
    )
    kafka_token_scope: str = Field(
        default="",
        validation_alias="KAFKA_SASL_OAUTHBEARER_SCOPE",
        description="The scope asked for with a token, where the issuer wants one.",
    )
    kafka_ssl_ca: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SSL_CA_LOCATION",
        description="A file of PEM certificates to believe of the brokers, instead of the "
        "system's.",
    )
    kafka_ssl_certificate: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SSL_CERTIFICATE_LOCATION",
        description="k2's own certificate (PEM), where the brokers ask for one.",
    )
    kafka_ssl_key: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SSL_KEY_LOCATION",
        description="The key of that certificate (PEM).",
    )
    kafka_ssl_key_password: SecretStr | None = Field(
        default=None,
        validation_alias="KAFKA_SSL_KEY_PASSWORD",
        description="The password of that key.",
    )
    kafka_ssl_key_password_file: ExistingFile = Field(
        default=None,
        validation_alias="KAFKA_SSL_KEY_PASSWORD_FILE",
        description="A file that holds it, instead.",
    )
    registry_username: str = Field(
        default="",
        validation_alias="SCHEMA_REGISTRY_USERNAME",
        description="The user the registry asks for (HTTP basic authentication).",
    )
    registry_password: SecretStr | None = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_PASSWORD",
        description="The password of that user.",
    )
    registry_password_file: ExistingFile = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_PASSWORD_FILE",
        description="A file that holds it, instead.",
    )
    registry_ca: ExistingFile = Field(
        default=None,
        validation_alias="SCHEMA_REGISTRY_CA_LOCATION",
        description="A file of PEM certificates to believe of the registry, instead of the "
        "system's.",
    )


SECRETS = tuple(
    name
    for name, field in SecuritySettings.model_fields.items()
    if field.annotation == (SecretStr | None)
)
"""The fields that hold a secret; ``NAME_file`` beside each names a file of it."""

LOGIN_VARIABLES = frozenset(
    str(field.validation_alias)
    for field in SecuritySettings.model_fields.values()
    if str(field.validation_alias).startswith(("KAFKA_", "SCHEMA_REGISTRY_"))
)
"""How Kafka and registry let k2 in."""


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return str(SecuritySettings.model_fields[name].validation_alias)


def read_secrets(settings: SecuritySettings) -> dict[str, SecretStr]:
    """Return, by field, the secrets that files hold, less a line's end.

    Raises:
        ValueError: If a secret is given twice, or its file cannot be read or is empty.
    """
    found = {}
    for name in SECRETS:
        path: Path | None = getattr(settings, f"{name}_file")
        if path is None:
            continue
        if getattr(settings, name) is not None:
            raise ValueError(f"{variable(name)} and {variable(name)}_FILE: expected one of them")
        try:
            with path.open(encoding="utf-8") as file:
                found[name] = SecretStr(file.read(PASSWORD_MAX_BYTES).rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
            raise ValueError(f"{variable(name)}_FILE={path}: cannot be read: {why}") from None
        if not found[name].get_secret_value():
            raise ValueError(f"{variable(name)}_FILE={path}: expected a secret, the file is empty")
    return found


def contradictions(settings: SecuritySettings) -> list[str]:
    """Return what does not fit together, one sentence each: a half-made login is never sent."""
    asked = {
        name
        for name in SecuritySettings.model_fields
        if (value := getattr(settings, name))
        and value != SecuritySettings.model_fields[name].default
    }
    kafka = {name for name in asked if name.startswith("kafka_")} - {"kafka_security_protocol"}
    tls = {name for name in kafka if name.startswith("kafka_ssl_")}
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    wrong = []
    needed: set[str] = set()
    if protocol == "PLAINTEXT":
        unused = kafka
    elif protocol == "SSL":
        unused = kafka - tls
    else:
        login = {"kafka_sasl_username", "kafka_sasl_password"}
        token = {"kafka_token_url", "kafka_client_id", "kafka_client_secret"}
        needed = {"kafka_sasl_mechanism"} | (token if mechanism == "OAUTHBEARER" else login)
        optional = {"kafka_token_scope"} if mechanism == "OAUTHBEARER" else set()
        unused = kafka - tls - needed - optional if mechanism else set()
        unused = {name for name in unused if name.removesuffix("_file") not in needed}
    if unused:
        also = f" and KAFKA_SASL_MECHANISM={mechanism}" if protocol == "SASL_SSL" else ""
        wrong.append(
            f"{_variables(unused)}: expected nothing with KAFKA_SECURITY_PROTOCOL={protocol}{also}"
        )
    if missing := {name for name in needed - asked if f"{name}_file" not in asked}:
        also = f", KAFKA_SASL_MECHANISM={mechanism}" if mechanism else ""
        wrong.append(
            f"KAFKA_SECURITY_PROTOCOL={protocol}{also}: expected {_variables(missing)} too"
        )
    wrong += _pairs(asked)
    if settings.tls_ca is not None and not settings.tls_verify:
        wrong.append("BINANCE_TLS_CA: expected nothing with BINANCE_TLS_VERIFY=false")
    return wrong


def _pairs(asked: set[str]) -> list[str]:
    """Return what was given without its other half."""
    wrong = []
    for one, other in (
        ("kafka_ssl_certificate", "kafka_ssl_key"),
        ("kafka_ssl_key", "kafka_ssl_certificate"),
        ("kafka_ssl_key_password", "kafka_ssl_key"),
        ("registry_username", "registry_password"),
        ("registry_password", "registry_username"),
    ):
        if {one, f"{one}_file"} & asked and not {other, f"{other}_file"} & asked:
            wrong.append(f"{variable(one)}: expected {variable(other)} too")
    return wrong


def _variables(names: set[str]) -> str:
    return ", ".join(variable(name) for name in SecuritySettings.model_fields if name in names)


def shown(name: str, value: Any) -> Any:
    """Return what may be shown of a setting's value: of a secret only that there is one."""
    if name in SECRETS:
        return MASK if value is not None else None
    return value
