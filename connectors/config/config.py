"""Configuration schema of a connector: the models of one YAML file, validated strictly.

Every unknown key is an error with its line and column, and the key that was probably meant. The file holds secrets as
references only, `${env:NAME}` or `${file:/path}`: a literal password is an error of `lint`, so that a configuration can
be kept under version control and shown to a colleague. References are resolved when the connector runs; `lint` needs
neither network nor secrets.

    version: 1
    connector: civil-affairs-drop
    exchange: { gateway: "exchange.example:9443", identity: identity/ }
    source: { kind: files, path: drop/, pattern: "*.csv", ready_when: marker .ok, after_success: move to done/ }
    publish:
      - resource: low-income-household.v1
        columns:
          身份证号: { as: id_no }
    # or, on the other side
    subscribe:
      - grant: 0198…
        purpose: welfare-check
        into: { kind: sql, url: "postgresql+psycopg2://writer@db/ext", password: "${env:DB}", table: ext.household }

Relative paths start at the folder of the file.
"""

import difflib
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from connectors.config.custom_sources import find_source
from connectors.config.database_url import parse_database_url
from connectors.config.schedule import Schedule, parse_cron
from connectors.config.secret_references import SecretReference, is_reference
from schemas.errors import InvalidError
from schemas.names import ConnectorId, Topic

__all__ = [
    "CdcConfig",
    "ColumnConfig",
    "ConnectorConfig",
    "CustomSource",
    "FileTarget",
    "FilesSource",
    "FormatConfig",
    "HttpSourceConfig",
    "PublishConfig",
    "RequestConfig",
    "ScheduleConfig",
    "SqlTarget",
    "SubscribeConfig",
    "WebhookConfig",
]

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"([0-9]+)\s*(KiB|MiB|GiB|TiB)?")
_SHIFTS = {None: 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_PLAIN = {("http", host) for host in ("127.0.0.1", "localhost", "::1")}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def _duration(value: object) -> float:
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


def _slot(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,50}", value):
        raise ValueError("expected 1 to 50 characters of a-z, 0-9 and _")
    return value


def _topic(value: str) -> str:
    try:
        Topic.parse(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    return value


def _connector(value: str) -> str:
    try:
        ConnectorId(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    return value


def _encoding(value: str) -> str:
    try:
        "".encode("utf-8" if value == "auto" else value)
    except LookupError as error:
        raise ValueError("expected `auto`, or an encoding such as utf-8, gb18030, big5 or utf-16-le") from error
    return value


def _delimiter(value: str) -> str:
    if len(value) != 1 or value in '"\r\n ':
        raise ValueError('expected one character, such as "," or "\\t"')
    return value


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


def _cron(value: str) -> str:
    return parse_cron(value) if value else value


def _source_type(value: str) -> str:
    try:
        find_source(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration)]
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


class ExchangeConfig(StrictModel):
    """Address of the pool, and our identity. `gateway` overrides the address that enrolment stored."""

    identity: Path
    gateway: str = ""


class _DatabaseConfig(StrictModel):
    url: Url
    password: Secret = ""

    def address(self) -> sa.URL:
        """Return the address with its password; both references are resolved.

        Raises:
            InvalidError: CONFIG_INVALID, also for a driver that is not installed.
        """
        url = parse_database_url(SecretReference(self.url).resolve())
        return url.set(password=SecretReference(self.password).resolve()) if self.password else url


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
                return "", _duration(wait)
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


class SqlSourceConfig(_DatabaseConfig):
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
    poll: Duration = 300.0

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.token and self.oauth:
            raise ValueError("expected one of `token:` and `oauth:`")
        return self


class PagingConfig(StrictModel):
    """How the next page is asked for."""

    kind: Literal["page", "cursor", "link"]
    parameter: str = ""
    first: int = Field(default=1, ge=0)
    path: JsonPath = "$"

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if self.kind != "link" and not self.parameter:
            raise ValueError(f"paging: `kind: {self.kind}` needs `parameter:`")
        if self.kind == "cursor" and self.path == "$":
            raise ValueError("paging: `kind: cursor` needs `path:`, such as $.next")
        return self


class IncrementalConfig(StrictModel):
    """The parameter for what changed since the last pass."""

    parameter: str
    path: JsonPath
    initial: str = ""


class RequestConfig(StrictModel):
    """What is asked of an API, and where its records are."""

    path: str
    query: dict[str, str] = {}
    records: JsonPath = "$"
    fields: dict[str, JsonPath] = {}
    paging: PagingConfig | None = None
    incremental: IncrementalConfig | None = None


class CustomSource(StrictModel):
    """A source of another package, by the name under which it is installed (`connectors.config.custom_sources`)."""

    kind: Literal["custom"]
    type: Annotated[str, AfterValidator(_source_type)]
    options: dict[str, str | int | float | bool] = {}
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


class StopAt(StrictModel):
    """The first row that is not read: a row of totals."""

    column: str
    equals: str


class FormatConfig(StrictModel):
    """Format of a file."""

    encoding: Annotated[str, AfterValidator(_encoding)] = "auto"
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    header_row: int = Field(default=1, ge=1)
    stop_at: StopAt | None = None
    null_values: Texts = ()
    form: Literal["", "csv", "tsv", "jsonl", "excel"] = ""
    sheet: str = ""

    def stated(self) -> str:
        """Return the format as JSON, a part of a publication's fingerprint: without what is younger than some of them.

        A key that is not used must not have what was published read as another format, and published once more.
        """
        return self.model_dump_json(exclude={name for name in ("form", "sheet") if not getattr(self, name)})


class ColumnConfig(StrictModel):
    """Mapping of one source column (`connectors.mapping.mapping.Column`)."""

    target: str = Field(default="", alias="as")
    exclude: bool = False
    type: str = ""
    formats: Texts = ()
    timezone: TimeZone = ""
    trim: bool = False
    strip: Texts = ()
    null_values: Texts = ()
    values: dict[str, str] = {}
    check: str = ""
    pattern: str = ""
    true_values: Texts = ()
    false_values: Texts = ()


class ScheduleConfig(StrictModel):
    """When the passes over a source begin (`connectors.config.schedule`), in place of the source's `poll`."""

    every: Annotated[float, BeforeValidator(_duration), Field(ge=1.0)] | None = None
    daily_at: str = ""
    cron: Annotated[str, AfterValidator(_cron)] = ""
    timezone: TimeZone = ""

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if (self.every is not None) + bool(self.daily_at) + bool(self.cron) != 1:
            raise ValueError("schedule: expected one of `every:`, `daily_at:` and `cron:`")
        if self.every is None and not self.timezone:
            raise ValueError("schedule: a time of day needs `timezone:`, such as Asia/Shanghai")
        if self.daily_at and not _TIME_OF_DAY.fullmatch(self.daily_at):
            raise ValueError('schedule: daily_at: expected a time of day such as "02:30"')
        return self

    def schedule(self) -> Schedule:
        """Return the schedule."""
        if self.every is not None:
            return Schedule(every=self.every)
        hour, _, minute = self.daily_at.partition(":")
        cron = self.cron or f"{int(minute)} {int(hour)} * * *"
        return Schedule(cron=cron, timezone=self.timezone)


class DeletesConfig(StrictModel):
    """Limit of missing keys; and when a table is read whole to find them, where it is read by a cursor."""

    stop_if_more_than: Share = 0.02
    detect: bool = True
    schedule: ScheduleConfig | None = None


class QuarantineConfig(StrictModel):
    """Limit of quarantined rows, and how long closed entries are kept."""

    stop_if_more_than: Share = 0.05
    keep: Duration = timedelta(days=90).total_seconds()


class PublishConfig(StrictModel):
    """One published resource."""

    resource: Annotated[str, AfterValidator(_topic)]
    table: str = ""
    query: str = ""
    where: str = ""
    page_by: Texts = ()
    key: Texts = ()
    mode: Literal["snapshot", "incremental", "cdc"] = "snapshot"
    cursor: str = ""
    cursor_set_by: Literal["database", "application"] = "database"
    cursor_timezone: TimeZone = ""
    overlap: Duration = 1800.0
    on_delete: Literal["retract", "end"] = "retract"
    toast: Literal["require_full", "reread"] = "require_full"
    schedule: ScheduleConfig | None = None
    request: RequestConfig | None = None
    pattern: Texts = ()
    replaces: Literal["everything", "same_name", "nothing"] = "everything"
    format: FormatConfig = FormatConfig()
    columns: dict[str, ColumnConfig] = {}
    unknown_columns: Literal["stop", "ignore"] = "stop"
    on_duplicate: Literal["quarantine", "last"] = "quarantine"
    deletes: DeletesConfig = DeletesConfig()
    quarantine: QuarantineConfig = QuarantineConfig()


class SqlTarget(_DatabaseConfig):
    """A table (`connectors.sinks.sql`)."""

    kind: Literal["sql"]
    table: str
    create_table: bool = False
    add_columns: bool = False
    deletes: Literal["soft", "hard"] = "soft"


class FileTarget(StrictModel):
    """A folder of parts (`connectors.sinks.files`)."""

    kind: Literal["jsonl", "csv", "parquet"]
    path: Path
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"] = "utf-8"
    neutralise_formulas: bool = False


class WebhookConfig(StrictModel):
    """An address to which records are posted (`connectors.sinks.webhook`)."""

    kind: Literal["webhook"]
    url: WebUrl
    secret: Secret
    ca: Path | None = None
    batch: int = Field(default=100, ge=1, le=1_000)
    timeout: Duration = 30.0
    path: Path = Path("state/webhooks")


class SubscribeConfig(StrictModel):
    """One grant whose records are fetched."""

    grant: str
    purpose: str
    case: str = ""
    into: Annotated[SqlTarget | FileTarget | WebhookConfig, Field(discriminator="kind")]
    batch_rows: int = Field(default=5_000, ge=1, le=10_000)
    wait: Duration = 20.0


class RetryConfig(StrictModel):
    """How long to retry without success."""

    give_up_after: Duration = 1800.0


class BatchConfig(StrictModel):
    """Limits of a published batch."""

    rows: int = Field(default=5_000, ge=1, le=10_000)
    in_flight: int = Field(default=4, ge=1, le=32)


class ConnectorConfig(StrictModel):
    """The configuration file."""

    version: Literal[1]
    connector: Annotated[str, AfterValidator(_connector)]
    exchange: ExchangeConfig
    state: Path = Path("state")
    source: (
        Annotated[FilesSource | SqlSourceConfig | HttpSourceConfig | CustomSource, Field(discriminator="kind")] | None
    ) = None
    publish: tuple[PublishConfig, ...] = ()
    subscribe: tuple[SubscribeConfig, ...] = ()
    batch: BatchConfig = BatchConfig()
    retry: RetryConfig = RetryConfig()
    failpoints: bool = False  # for fault tests: POOL_FAILPOINTS may make this process kill itself

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if not self.publish and not self.subscribe:
            raise ValueError("nothing to do: neither `publish:` nor `subscribe:`")
        if self.publish and self.source is None:
            raise ValueError("`publish:` needs a `source:`")
        for name, values in (
            ("resource", [each.resource for each in self.publish]),
            ("grant", [each.grant for each in self.subscribe]),
        ):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"the {name} {', '.join(sorted(twice))} is named twice")
        self._check_requests()
        if isinstance(self.source, SqlSourceConfig):
            for each in self.publish:
                if bool(each.table) is bool(each.query):
                    raise ValueError(f"{each.resource} needs one of `table:` and `query:`")
                if each.query and not each.key:
                    raise ValueError(f"`query:` of {each.resource} needs `key:`, its unique columns")
                if each.key and each.page_by:
                    raise ValueError(f"{each.resource} has `key:` and `page_by:`; keep one of them")
        self._check_cursors()
        self._check_changes()
        return self

    def _check_cursors(self) -> None:
        for each in self.publish:
            if each.mode != "incremental":
                if each.cursor:
                    raise ValueError(f"{each.resource}: `cursor:` is for `mode: incremental`")
                if each.deletes.schedule:
                    raise ValueError(
                        f"{each.resource}: `deletes: {{ schedule: … }}` is for `mode: incremental`; write `schedule:`"
                    )
                continue
            if not isinstance(self.source, SqlSourceConfig) or not each.cursor:
                raise ValueError(
                    f"{each.resource}: `mode: incremental` needs a source of `kind: sql`, and `cursor:`, a column that "
                    "every change of a row sets"
                )
            if each.cursor_set_by == "application" and not each.deletes.detect:
                raise ValueError(
                    f"{each.resource}: rows whose cursor the application sets can be missed; `deletes: {{ detect: "
                    "false }` would leave them unpublished. Write `detect: true`"
                )

    def _check_requests(self) -> None:
        for each in self.publish:
            if isinstance(self.source, HttpSourceConfig) is not (each.request is not None):
                raise ValueError(f"{each.resource}: `request:` and a source of `kind: http` need each other")
            if each.request is not None and each.request.incremental is not None and each.replaces != "nothing":
                raise ValueError(f"{each.resource}: `incremental:` states what changed: it needs `replaces: nothing`")

    def _check_changes(self) -> None:
        by_log = [each for each in self.publish if each.mode == "cdc"]
        if not by_log:
            return
        if not isinstance(self.source, SqlSourceConfig) or self.source.cdc is None:
            raise ValueError("`mode: cdc` needs a source of `kind: sql` with `cdc: { slot: NAME }`")
        url = self.source.url
        if not is_reference(url) and sa.make_url(url).get_backend_name() != "postgresql":
            raise ValueError("`mode: cdc` reads the log of PostgreSQL; for other databases use `mode: snapshot`")
        for each in by_log:
            if each.schedule is not None:
                raise ValueError(
                    f"{each.resource}: `schedule:` is for passes; `mode: cdc` follows the changes all the time"
                )
            if each.query or each.where or each.key or each.page_by:
                raise ValueError(
                    f"{each.resource}: `mode: cdc` publishes the changes of one table; `query:`, `where:`, `key:` and "
                    "`page_by:` are for `mode: snapshot`"
                )


def resolve_paths(config: ConnectorConfig, folder: Path) -> ConnectorConfig:
    """Return the configuration with its relative paths resolved from `folder`."""
    exchange = config.exchange.model_copy(update={"identity": folder / config.exchange.identity})
    updates: dict[str, Any] = {"exchange": exchange, "state": folder / config.state}
    if isinstance(config.source, FilesSource):
        updates["source"] = config.source.model_copy(update={"path": folder / config.source.path})
    if isinstance(config.source, HttpSourceConfig) and config.source.ca is not None:
        updates["source"] = config.source.model_copy(update={"ca": folder / config.source.ca})
    updates["subscribe"] = tuple(
        each.model_copy(update={"into": _resolved_target(each.into, folder)}) for each in config.subscribe
    )
    return config.model_copy(update=updates)


def _resolved_target(
    target: SqlTarget | FileTarget | WebhookConfig, folder: Path
) -> SqlTarget | FileTarget | WebhookConfig:
    if isinstance(target, SqlTarget):
        return target
    update = {"path": folder / target.path}
    if isinstance(target, WebhookConfig) and target.ca is not None:
        update["ca"] = folder / target.ca
    return target.model_copy(update=update)


def allowed_keys(model: type[BaseModel]) -> Sequence[str]:
    """Return the keys that a section of the file may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


SECTIONS: Mapping[str, type[BaseModel]] = {
    "": ConnectorConfig,
    "exchange": ExchangeConfig,
    "source.files": FilesSource,
    "source.sql": SqlSourceConfig,
    "source.custom": CustomSource,
    "source.http": HttpSourceConfig,
    "source.http.oauth": OAuthConfig,
    "publish.request": RequestConfig,
    "publish.request.paging": PagingConfig,
    "publish.request.incremental": IncrementalConfig,
    "source.sql.cdc": CdcConfig,
    "source.sql.cdc.wal_limit": WalLimitConfig,
    "publish": PublishConfig,
    "publish.format": FormatConfig,
    "publish.format.stop_at": StopAt,
    "publish.columns": ColumnConfig,
    "publish.schedule": ScheduleConfig,
    "publish.deletes": DeletesConfig,
    "publish.deletes.schedule": ScheduleConfig,
    "publish.quarantine": QuarantineConfig,
    "subscribe": SubscribeConfig,
    "subscribe.into.sql": SqlTarget,
    "subscribe.into.jsonl": FileTarget,
    "subscribe.into.csv": FileTarget,
    "subscribe.into.parquet": FileTarget,
    "subscribe.into.webhook": WebhookConfig,
    "batch": BatchConfig,
    "retry": RetryConfig,
}
"""Section → its model; indices and column names are not part of a section's path."""
