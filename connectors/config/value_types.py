"""Value types of the configuration: durations, sizes, shares, addresses, references; models that both sides share."""

import difflib
import re
import zoneinfo
from typing import Annotated
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from connectors.config.database_url import parse_database_url
from connectors.config.secret_references import SecretReference, is_reference
from schemas.errors import InvalidError

__all__ = [
    "DatabaseConfig",
    "Duration",
    "JsonPath",
    "Secret",
    "Share",
    "Size",
    "StrictModel",
    "Texts",
    "TimeZone",
    "Url",
    "WebUrl",
    "parse_duration",
]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"([0-9]+)\s*(KiB|MiB|GiB|TiB)?")
_SHIFTS = {None: 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_PLAIN = {("http", host) for host in ("127.0.0.1", "localhost", "::1")}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parse_duration(value: object) -> float:
    """Return the seconds of a duration such as 30s, 5m or 1h; a number without a unit is seconds.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(str(value))
    if found is None:
        raise ValueError("expected a duration such as 30s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def _share(value: object) -> float:
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("expected a share such as 2%")
    return share


def _size(value: object) -> int:
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise ValueError("expected a size such as 500MiB or 5GiB")
    return int(found[1]) << _SHIFTS[found[2]]


def _url(value: str) -> str:
    if is_reference(value):
        return value
    try:
        url = parse_database_url(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    if url.password:
        raise ValueError("the address holds a password; put it under `password:` as ${env:NAME} or ${file:/path}")
    return value


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the address holds a user name or a password; put secrets under keys of their own")
    if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname) not in _PLAIN):
        raise ValueError("expected an address such as https://host/path; http:// for this machine alone")
    return value


def _json_path(value: str) -> str:
    if not value.startswith("$"):  # `check` parses the rest
        raise ValueError("expected a path of names and indices, such as $.data.items or $['full name'][0]")
    return value


def _secret(value: str) -> str:
    if not is_reference(value):
        raise ValueError("a password must be a reference such as ${env:NAME} or ${file:/path}")
    return value


def _time_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        close = difflib.get_close_matches(value, zoneinfo.available_timezones(), n=1, cutoff=0.6)
        meant = f' - did you mean "{close[0]}"?' if close else ""
        raise ValueError(f'"{value}" is no time zone of the IANA database, such as Asia/Shanghai{meant}') from error
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Share = Annotated[float, BeforeValidator(_share)]
Secret = Annotated[str, AfterValidator(_secret)]
Url = Annotated[str, AfterValidator(_url)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
JsonPath = Annotated[str, AfterValidator(_json_path)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class StrictModel(BaseModel):
    """A frozen model that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class DatabaseConfig(StrictModel):
    """The address of a database; its password is a reference."""

    url: Url
    password: Secret = ""

    def address(self) -> sa.URL:
        """Return the address with its password; both references are resolved.

        Raises:
            InvalidError: CONFIG_INVALID, also for a driver that is not installed.
        """
        url = parse_database_url(SecretReference(self.url).resolve())
        return url.set(password=SecretReference(self.password).resolve()) if self.password else url
