"""Models of the section `source`: a folder, a database, a JSON API, another pool, or a source of another package."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from connectors.config.custom_sources import find_source
from connectors.config.secret_references import SecretReference, is_reference
from connectors.config.value_types import (
    DatabaseConfig,
    Duration,
    Secret,
    Size,
    StrictModel,
    Texts,
    WebUrl,
    parse_duration,
)
from schemas.errors import InvalidError

__all__ = [
    "CdcConfig",
    "CustomSource",
    "FilesSource",
    "HttpSourceConfig",
    "OAuthConfig",
    "PoolSourceConfig",
    "SqlSourceConfig",
    "WalLimitConfig",
]


def _slot(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,50}", value):
        raise ValueError("expected 1 to 50 characters of a-z, 0-9 and _")
    return value


def _source_type(value: str) -> str:
    try:
        find_source(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    return value


class FilesSource(StrictModel):
    """A drop folder (`connectors.sources.drop_folder`)."""

    kind: Literal["files"]
    path: Path
    pattern: Texts = ("*.csv",)
    ready_when: str = "unchanged for 30s"
    after_success: str = "keep"
    after_reject: str = ""
    poll: Duration = 30.0

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        self.readiness()
        self.disposal()
        self.rejected_folder()
        return self

    def readiness(self) -> tuple[str, float]:
        """Return the suffix of the marker file, or the seconds without a change."""
        words = self.ready_when.split()
        match words:
            case ["marker", suffix] if suffix.startswith("."):
                return suffix, 0.0
            case ["unchanged", "for", wait]:
                return "", parse_duration(wait)
        raise ValueError("ready_when: expected `marker .ok` or `unchanged for 30s`")

    def disposal(self) -> tuple[str, bool]:
        """Return the folder to move files to, and whether to delete them."""
        match self.after_success.split(maxsplit=2):
            case ["keep"]:
                return "", False
            case ["delete"]:
                return "", True
            case ["move", "to", folder]:
                return folder, False
        raise ValueError("after_success: expected `keep`, `move to FOLDER` or `delete`")

    def rejected_folder(self) -> str:
        """Return the folder to move files to that are set aside; empty = they stay where they are.

        Files that are published leave the folder, or stay: by default those that are set aside do the same. They are
        never deleted.
        """
        match self.after_reject.split(maxsplit=2):
            case []:
                return "" if self.after_success.split() == ["keep"] else "rejected/"
            case ["keep"]:
                return ""
            case ["move", "to", folder]:
                return folder
        raise ValueError("after_reject: expected `keep` or `move to FOLDER`")


class WalLimitConfig(StrictModel):
    """Bytes of the database's log that the slot may hold back while the connector runs; 0 = no limit."""

    warn: Size = 5 << 30
    drop_slot: Size = 0


class CdcConfig(StrictModel):
    """The log of changes of a PostgreSQL database (`connectors.sources.postgres`)."""

    slot: Annotated[str, AfterValidator(_slot)]
    publication: str = ""  # the slot's name
    heartbeat: Duration = 60.0
    wal_limit: WalLimitConfig = WalLimitConfig()
    accept_unbounded_wal: bool = False


class SqlSourceConfig(DatabaseConfig):
    """A database, of which each publication names a table (`connectors.sources.sql_table`)."""

    kind: Literal["sql"]
    poll: Duration = 300.0
    cdc: CdcConfig | None = None


class OAuthConfig(StrictModel):
    """A client of an authorization server: the client credentials grant of OAuth 2.0."""

    token_url: WebUrl
    client_id: str
    client_secret: Secret
    scope: str = ""


class HttpSourceConfig(StrictModel):
    """A JSON API (`connectors.sources.http`); each publication states its `request:`."""

    kind: Literal["http"]
    url: WebUrl
    token: Secret = ""
    oauth: OAuthConfig | None = None
    ca: Path | None = None
    timeout: Duration = 60.0
    requests_per_second: float = Field(default=0.0, ge=0)
    max_pass: Size = 4 << 30
    poll: Duration = 300.0

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.token and self.oauth:
            raise ValueError("expected one of `token:` and `oauth:`")
        return self


class PoolSourceConfig(StrictModel):
    """Another pool (`connectors.sources.pool`), and our identity there; each publication states its `draw:`."""

    kind: Literal["pool"]
    identity: Path
    gateway: str = ""


class CustomSource(StrictModel):
    """A source of another package, by the name under which it is installed (`connectors.config.custom_sources`)."""

    kind: Literal["custom"]
    type: Annotated[str, AfterValidator(_source_type)]
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    poll: Duration = 300.0

    def resolved(self) -> dict[str, str | int | float | bool]:
        """Return the options, with the secrets that they refer to.

        Raises:
            InvalidError: CONFIG_INVALID, a reference cannot be resolved.
        """
        return {
            name: SecretReference(value).resolve() if isinstance(value, str) and is_reference(value) else value
            for name, value in self.options.items()
        }
