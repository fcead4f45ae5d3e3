"""Models of the section `publish`: one published resource, its request, format, columns, schedule and limits."""

import re
import uuid
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from connectors.config.schedule import Schedule, parse_cron
from connectors.config.value_types import Duration, JsonPath, Share, StrictModel, Texts, TimeZone
from schemas.errors import InvalidError
from schemas.names import Topic

__all__ = [
    "ColumnConfig",
    "DeletesConfig",
    "DrawConfig",
    "FormatConfig",
    "IncrementalConfig",
    "PagingConfig",
    "PublishConfig",
    "QuarantineConfig",
    "RequestConfig",
    "ScheduleConfig",
    "StopAt",
]

_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")


def _topic(value: str) -> str:
    try:
        Topic.parse(value)
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


def _cron(value: str) -> str:
    return parse_cron(value) if value else value


def _grant(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError as error:
        raise ValueError("expected the id of a grant, such as 0198c0de-0000-7000-8000-0000000000a1") from error


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
    query: dict[str, str] = Field(default_factory=dict)
    records: JsonPath = "$"
    fields: dict[str, JsonPath] = Field(default_factory=dict)
    paging: PagingConfig | None = None
    incremental: IncrementalConfig | None = None


class DrawConfig(StrictModel):
    """What is drawn from another pool: a grant there, and what is declared with it."""

    grant: Annotated[str, AfterValidator(_grant)]
    purpose: str
    case: str = ""
    batch_rows: int = Field(default=5_000, ge=1, le=10_000)


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
    values: dict[str, str] = Field(default_factory=dict)
    check: str = ""
    pattern: str = ""
    true_values: Texts = ()
    false_values: Texts = ()


class ScheduleConfig(StrictModel):
    """When the passes over a source begin (`connectors.config.schedule`), in place of the source's `poll`."""

    every: Annotated[Duration, Field(ge=1.0)] | None = None
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
    on_delete: Literal["retract", "end"] | None = None
    toast: Literal["require_full", "reread"] = "require_full"
    schedule: ScheduleConfig | None = None
    request: RequestConfig | None = None
    draw: DrawConfig | None = None
    pattern: Texts = ()
    replaces: Literal["everything", "same_name", "nothing"] = "everything"
    format: FormatConfig = FormatConfig()
    columns: dict[str, ColumnConfig] = Field(default_factory=dict)
    unknown_columns: Literal["stop", "ignore"] = "stop"
    on_duplicate: Literal["quarantine", "last"] = "quarantine"
    deletes: DeletesConfig = DeletesConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
