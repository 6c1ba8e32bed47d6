"""A second broker that lets nobody in unseen: TLS, SCRAM, PLAIN, tokens, client certificates.

The plaintext listener that the shared stack's broker has stays, for the tests' own eyes.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from k2.local.aot import aot_options
from k2.local.broker import BrokerConfig, broker_program, format_data_dir, server_properties
from k2.local.java import java_environ
from k2.local.ports import LOOPBACK, pick_free
from k2.local.preparing import Prepared

USER = "k2"
NEWCOMER = "newcomer"
"""Who has a password and no right."""

START_DEADLINE_S = 60.0
MECHANISMS = "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER"


@dataclass(frozen=True)
class Certificates:
    """Files of one certificate authority, and of another that nobody should believe."""

    ca: Path
    other_ca: Path
    server_pem: Path
    client_certificate: Path
    client_key: Path


@dataclass(frozen=True)
class SecureBroker:
    """Where it listens, and what it was told."""

    sasl: str
    """host:port that wants TLS and a name."""
    mutual: str
    """host:port that wants TLS and a client's certificate."""
    plain: str
    certificates: Certificates
    password: str


def make_certificates(folder: Path, *, key_password: str) -> Certificates:
    """Make an authority, the broker's certificate and a client's, whose key has a password."""
    folder.mkdir(parents=True)
    authority, stranger = trustme.CA(), trustme.CA()
    server = authority.issue_cert(LOOPBACK, "localhost")
    client = authority.issue_cert("k2@example.org", common_name="k2")
    made = Certificates(
        ca=folder / "ca.pem",
        other_ca=folder / "other-ca.pem",
        server_pem=folder / "server.pem",
        client_certificate=folder / "client.pem",
        client_key=folder / "client.key",
    )
    authority.cert_pem.write_to_path(made.ca)
    stranger.cert_pem.write_to_path(made.other_ca)
    made.server_pem.write_bytes(_key(server, NoEncryption()) + _chain(server))
    made.client_certificate.write_bytes(_chain(client))
    made.client_key.write_bytes(_key(client, BestAvailableEncryption(key_password.encode())))
    return made


@contextmanager
def secure_broker(
    folder: Path, prepared: Prepared, *, password: str, key_password: str
) -> Iterator[SecureBroker]:
    """Run the broker for as long as the block lasts."""
    certificates = make_certificates(folder / "certificates", key_password=key_password)
    plain, controller, sasl, mutual = pick_free(4)
    config = BrokerConfig(data_dir=folder / "kafka", port=plain, controller_port=controller)
    properties = folder / "server.properties"
    format_data_dir(config.data_dir, kafka_version=prepared.kafka_version)
    properties.write_text(
        _secured(config, certificates, sasl=sasl, mutual=mutual, password=password)
    )
    program = broker_program(prepared.installation)
    log = folder / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            program.argv(
                str(properties), jvm_options=aot_options(program, cache_dir=prepared.cache_dir)
            ),
            env=java_environ(os.environ, {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _add_users(config.bootstrap, password, process, log)
        yield SecureBroker(
            sasl=f"{LOOPBACK}:{sasl}",
            mutual=f"{LOOPBACK}:{mutual}",
            plain=config.bootstrap,
            certificates=certificates,
            password=password,
        )
    finally:
        process.kill()
        process.wait()


def _secured(
    config: BrokerConfig, certificates: Certificates, *, sasl: int, mutual: int, password: str
) -> str:
    """Return the shared stack's properties with two more listeners."""
    lines = dict(
        line.split("=", 1) for line in server_properties(config).splitlines() if "=" in line
    )
    added = f"SECURED://{LOOPBACK}:{sasl},MUTUAL://{LOOPBACK}:{mutual}"
    lines["listeners"] += f",{added}"
    lines["advertised.listeners"] += f",{added}"
    lines["listener.security.protocol.map"] += ",SECURED:SASL_SSL,MUTUAL:SSL"
    modules = "org.apache.kafka.common.security"
    scram = f"{modules}.scram.ScramLoginModule required;"
    secured = "listener.name.secured"
    lines |= {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server_pem),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.mutual.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]*).*$/$1/",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        f"{secured}.sasl.enabled.mechanisms": MECHANISMS,
        f"{secured}.scram-sha-256.sasl.jaas.config": scram,
        f"{secured}.scram-sha-512.sasl.jaas.config": scram,
        f"{secured}.plain.sasl.jaas.config": f"{modules}.plain.PlainLoginModule required "
        f'user_{USER}="{password}";',
        # It believes any token that is not signed and not too old.
        f"{secured}.oauthbearer.sasl.jaas.config": f"{modules}.oauthbearer.OAuthBearerLoginModule "
        'required unsecuredLoginStringClaim_sub="broker";',
        "connection.failed.authentication.delay.ms": "100",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _add_users(bootstrap: str, password: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the broker and give it the users of both SCRAM mechanisms."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    deadline_s = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            admin.list_topics(timeout=1.0)
            break
        except KafkaException:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline_s, "the secured broker does not answer"
    mechanisms = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
    for user, mechanism in itertools.product((USER, NEWCOMER), mechanisms):
        wish = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(mechanism, 4096), password.encode()
        )
        for future in admin.alter_user_scram_credentials([wish]).values():
            future.result(10.0)


def _key(leaf: trustme.LeafCert, encryption: KeySerializationEncryption) -> bytes:
    """Return the private key in the one form that Kafka reads."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), password=None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
