"""PURE: what name, port and certificate of an address say."""

import msgspec

from k2.doctor.finding import Finding, Unseen, duration_text, fail, ok, warn

CERTIFICATE_LEFT_MIN_DAYS = 7
"""Venues renew weeks before the end: one that is so late has forgotten to, or is not the venue."""

_EXPIRED = 10  # OpenSSL's X509_V_ERR codes, as ssl.SSLCertVerificationError.verify_code has them
_NOT_YET_VALID = 9
_HOST_MISMATCH = (62, 64)
_UNKNOWN_ISSUER = (18, 19, 20, 21)

_CA_SETTINGS = {
    "SCHEMA_REGISTRY_URL": "SCHEMA_REGISTRY_CA_LOCATION",
    "KAFKA_BOOTSTRAP": "KAFKA_SSL_CA_LOCATION",
}
"""By the setting that names the address; of all others it is the exchange's."""

_SCHEME_SETTINGS = {"KAFKA_BOOTSTRAP": "KAFKA_BOOTSTRAP (port) or KAFKA_SECURITY_PROTOCOL"}
"""What says that TLS is spoken, where it is not a URL."""


class Place(msgspec.Struct, frozen=True):
    """An address, and the setting that names it."""

    host: str
    port: int
    setting: str

    def __str__(self) -> str:
        """Return ``host:port``."""
        return f"{self.host}:{self.port}"


class Names(msgspec.Struct, frozen=True):
    """What DNS answered."""

    addresses: int
    took_s: float


class Certificate(msgspec.Struct, frozen=True):
    """A certificate that was verified: chain, name and dates."""

    name: str
    issuer: str
    left_days: float
    protocol: str


class Unverified(msgspec.Struct, frozen=True):
    """A certificate nobody looked at: the settings say so."""

    protocol: str


class Refused(msgspec.Struct, frozen=True):
    """A certificate that was not believed; ``code`` is OpenSSL's."""

    code: int
    reason: str


def judge_names(place: Place, seen: Names | Unseen) -> Finding:
    """Judge whether the host has an address."""
    check = f"{place.host} DNS"
    if isinstance(seen, Unseen):
        return fail(
            check,
            seen.reason,
            fix=f"correct the host in {place.setting}, or the resolver (/etc/resolv.conf)",
        )
    many = "1 address" if seen.addresses == 1 else f"{seen.addresses} addresses"
    return ok(check, f"{many} in {duration_text(seen.took_s)}")


def judge_port(place: Place, seen: float | Unseen) -> Finding:
    """Judge whether the port was reached; ``seen`` is how long that took, in seconds."""
    check = f"{place} TCP"
    if isinstance(seen, Unseen):
        return fail(
            check,
            seen.reason,
            fix=f"start what listens there, open the firewall to {place}, "
            f"or correct {place.setting}",
        )
    return ok(check, f"connected in {duration_text(seen)}")


def judge_certificate(place: Place, seen: Certificate | Unverified | Refused | Unseen) -> Finding:
    """Judge what the TLS handshake showed."""
    check = f"{place} TLS"
    match seen:
        case Unseen(reason):
            return fail(
                check,
                reason,
                fix=f"the port does not speak TLS as we do: correct {_scheme_of(place)}, "
                "or what intercepts the connection",
            )
        case Refused(code, reason):
            return fail(
                check, f"the certificate is not believed: {reason}", fix=_remedy(place, code)
            )
        case Unverified(protocol):
            return warn(
                check,
                f"{protocol}, certificate not verified (BINANCE_TLS_VERIFY=false): anybody on the "
                "way can invent trades",
                fix="name the authority's file in BINANCE_TLS_CA, and take BINANCE_TLS_VERIFY out",
            )
        case Certificate():
            said = (
                f"{seen.protocol}, certificate of {seen.name} by {seen.issuer}, "
                f"{seen.left_days:.0f} days left"
            )
            if seen.left_days < CERTIFICATE_LEFT_MIN_DAYS:
                return warn(
                    check, said, fix="have it renewed by whoever runs that host; check `date` here"
                )
            return ok(check, said)


def _scheme_of(place: Place) -> str:
    return _SCHEME_SETTINGS.get(place.setting, f"{place.setting} (scheme, port)")


def _remedy(place: Place, code: int) -> str:
    if code in _HOST_MISMATCH:
        return "use the name the certificate is for; if it should be, something intercepts here"
    if code in (_EXPIRED, _NOT_YET_VALID):
        return "check `date` here; if it is right, whoever runs that host must renew"
    if code in _UNKNOWN_ISSUER:
        setting = _CA_SETTINGS.get(place.setting, "BINANCE_TLS_CA")
        if place.setting == "KAFKA_BOOTSTRAP":
            return f"name the file of the authority that signed the brokers' in {setting}"
        return (
            "install ca-certificates; behind a proxy that re-signs TLS, name its CA file "
            f"in {setting}"
        )
    return "compare with `openssl s_client -connect HOST:PORT -servername HOST`"
