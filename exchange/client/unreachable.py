"""What on this machine may keep a gateway from being reached: a clock that is wrong, a proxy. Pure.

gRPC itself says that a connection failed. It does not say that it took a proxy from the environment (grpc_proxy, then
https_proxy, then http_proxy; hosts of no_grpc_proxy or no_proxy are left out), nor that a certificate is not valid yet.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from cryptography import x509

__all__ = ["explain_unreachable"]

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in gRPC's order
_ADDRESS = re.compile(r"https?://(?:[^@/?#\s]*@)?((?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)/?")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def explain_unreachable(certificate: bytes, address: str, now: datetime, environment: Mapping[str, str]) -> str:
    """Return sentences about what on this machine may be the cause; empty where nothing is found.

    Args:
        certificate: that this machine has from the pool, PEM: the connector's own, or the authority's.
        address: host:port of the gateway.
        now: by this machine's clock, with a time zone.
        environment: of this process.
    """
    found = (_of_clock(certificate, now), _of_proxy(address.rpartition(":")[0].strip("[]"), environment))
    return " ".join(filter(None, found))


def _of_clock(certificate: bytes, now: datetime) -> str:
    try:
        own = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return ""
    if now < own.not_valid_before_utc:
        begin = f"{own.not_valid_before_utc:%Y-%m-%d %H:%M}"
        return (
            f"This machine's clock says {now:%Y-%m-%d %H:%M} UTC, but the certificate begins at {begin}: set the clock."
        )
    if now > own.not_valid_after_utc:
        end = f"{own.not_valid_after_utc:%Y-%m-%d %H:%M}"
        return (
            f"By this machine's clock ({now:%Y-%m-%d %H:%M} UTC) the certificate ended at {end}: enrol again, or set "
            "the clock."
        )
    return ""


def _of_proxy(host: str, environment: Mapping[str, str]) -> str:
    name = next((one for one in _PROXIES if environment.get(one)), "")
    excepted = next((environment[one] for one in _EXCEPTIONS if environment.get(one)), "")
    if not name or any(one and host.endswith(one) for one in map(str.strip, excepted.split(","))):
        return ""
    # Nothing but a host and a port is shown: of a text in another form a part of its password might be.
    proxy = _ADDRESS.fullmatch(environment[name])
    where = "(no address)" if proxy is None else proxy[1]
    return (
        f"Calls go through the proxy {where} of the environment variable {name}: it must pass CONNECT on to {host}; "
        f"where the gateway is reached directly, set no_grpc_proxy={host}."
    )
