"""Composition root of a connector: builds ledgers, sources, sinks, publishers and subscribers from a configuration.

No other module of this package knows which adapter is in use.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.custom_sources import find_source
from connectors.config.publication_models import ColumnConfig, PublishConfig
from connectors.config.schedule import Schedule
from connectors.config.secret_references import SecretReference
from connectors.config.source_models import (
    CustomSource,
    FilesSource,
    HttpSourceConfig,
    PoolSourceConfig,
    SqlSourceConfig,
)
from connectors.config.subscription_models import SqlTarget, SubscribeConfig, WebhookConfig
from connectors.mapping.contract import parse_contract
from connectors.mapping.mapping import Column, ColumnMapping
from connectors.port import Pool, Portion, Reject, Replaces, Sink, SnapshotSource
from connectors.publishing.publication import Limits, Publication, Signer
from connectors.publishing.publisher import Publisher
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.sinks.webhook import WebhookSink, WebhookTarget
from connectors.sources.drop_folder import AfterSuccess, DropFolder, ReadyWhen
from connectors.sources.file_portion import FileForm, FileFormat
from connectors.sources.http.http_client import Credentials, HttpSourceClient, OAuthClient
from connectors.sources.http.http_source import HttpRequest, HttpSource, Incremental, Paging
from connectors.sources.incremental import CursorSettings, IncrementalSource, IsDue
from connectors.sources.sql_table import SqlSource
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from connectors.subscribing.subscriber import Subscriber, SubscriptionConfig
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "RuntimeContext",
    "column_mapping",
    "cursor_settings",
    "first_portion",
    "ledger_path",
    "open_ledger",
    "publication",
    "publication_limits",
    "publisher",
    "sink",
    "source",
    "sql_source",
    "subscriber",
]

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What all streams of a connector share: pool, signing key, stop event, clock and progress reporter."""

    pool: Pool
    sign: Signer
    stop: threading.Event
    clock: Clock
    progress: Callable[[RunReport], None] = lambda _: None
    notify: Callable[[str], None] = lambda _: None
    accept_deletes: bool = False
    resnapshot: frozenset[str] = frozenset()


def ledger_path(config: ConnectorConfig, stream: str) -> Path:
    """Return the path of the ledger of a publication (its resource) or a subscription (its grant)."""
    return config.state / config.connector / f"{stream}.sqlite3"


def open_ledger(config: ConnectorConfig, stream: str, clock: Clock) -> Ledger:
    """Open the ledger of a stream."""
    return Ledger(ledger_path(config, stream), clock=clock)


def publication(config: PublishConfig) -> Publication:
    """Build a publication from its section of the file."""
    file_format = config.format
    request = config.request.model_dump_json() if config.request else ""
    return Publication(
        topic=Topic.parse(config.resource),
        columns={name: _column(each) for name, each in config.columns.items()},
        null_values=file_format.null_values,
        unknown_columns=config.unknown_columns,
        on_duplicate=config.on_duplicate,
        on_delete=config.on_delete or "",
        source_format=f"{file_format.stated()} {config.replaces}{request}",
    )


def column_mapping(section: PublishConfig, schema: tuple[int, str]) -> ColumnMapping:
    """Build the mapping of a section for a contract: its schema's id and text.

    Raises:
        InvalidError: CONFIG_INVALID, when the configuration names what the contract lacks.
    """
    described = publication(section)
    return ColumnMapping(
        parse_contract(*schema),
        engine_for(parse(schema[1])),
        described.columns,
        null_values=described.null_values,
        unknown_columns=described.unknown_columns,
    )


def source(
    config: ConnectorConfig,
    section: PublishConfig,
    ledger: Ledger,
    clock: Clock,
    notify: Callable[[str], None] = lambda _: None,
) -> SnapshotSource:
    """Build the source of a publication; it says which files it sets aside.

    Raises:
        InvalidError: CONFIG_INVALID, when a secret reference cannot be resolved.
    """
    match config.source:
        case FilesSource() as files:
            marker, seconds = files.readiness()
            move_to, delete = files.disposal()
            quarantine = Quarantine(ledger)

            rejected = files.rejected_folder()

            def quarantine_file(name: str, reject: Reject) -> None:
                quarantine.add(name, 0, [reject])
                ledger.end_run(replace(ledger.begin_run(name), outcome=Reason.FILE_REJECTED.value))
                notify(f"{name} is set aside{f', in {rejected}' if rejected else ''}: {reject.message}")

            return DropFolder(
                files.path,
                section.pattern or files.pattern,
                file_format=_file_format(section),
                replaces=Replaces(section.replaces),
                ready_when=ReadyWhen(marker=marker, unchanged=seconds),
                after_success=AfterSuccess(move_to=files.path / move_to if move_to else None, delete=delete),
                after_reject=AfterSuccess(move_to=files.path / rejected if rejected else None),
                history=ledger,
                quarantine=quarantine_file,
                clock=clock,
            )
        case SqlSourceConfig() as database:
            return sql_source(database, section)
        case HttpSourceConfig() as api:
            return _http_source(api, section, ledger)
        case CustomSource() as custom:
            make = find_source(custom.type).load()
            made: SnapshotSource = make(custom.resolved(), section.table)
            return made
        case PoolSourceConfig():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                "what another pool delivers is not read without a release, which is an entry in its log; `check` "
                "compares the grant's view with the contract, and `run --once` publishes what it delivers now",
            )
        case _:
            raise InvalidError(Reason.CONFIG_INVALID, "the configuration has no `source:`")


def _http_source(api: HttpSourceConfig, section: PublishConfig, ledger: Ledger) -> HttpSource:
    request = section.request
    if request is None:  # the configuration's own check
        raise InvalidError(Reason.CONFIG_INVALID, f"{section.resource} has no `request:`")
    credentials: Credentials = SecretReference(api.token).resolve() if api.token else None
    if api.oauth is not None:
        credentials = OAuthClient(
            token_url=api.oauth.token_url,
            client_id=api.oauth.client_id,
            client_secret=SecretReference(api.oauth.client_secret).resolve(),
            scope=api.oauth.scope,
        )
    client = HttpSourceClient(
        api.url,
        credentials,
        authority=api.ca,
        timeout=api.timeout,
        requests_per_second=api.requests_per_second,
    )
    asked = HttpRequest(
        path=request.path,
        query=request.query,
        records=request.records,
        fields=request.fields,
        paging=Paging(**request.paging.model_dump()) if request.paging else Paging(),
        incremental=Incremental(**request.incremental.model_dump()) if request.incremental else None,
    )
    spool = ledger.path.with_name(f"{section.resource}.spool.jsonl")
    return HttpSource(client, asked, ledger, spool, Replaces(section.replaces), max_spool=api.max_pass)


def sql_source(database: SqlSourceConfig, section: PublishConfig) -> SqlSource:
    """Build the source of a publication's table, view or query."""
    return SqlSource(
        database.address(),
        section.table,
        page_by=section.page_by,
        key=section.key,
        where=section.where,
        query=section.query,
    )


def cursor_settings(section: PublishConfig) -> CursorSettings:
    """Build the settings of a publication by a cursor."""
    deletes = section.deletes
    schedule = deletes.schedule.schedule() if deletes.schedule else Schedule(every=86_400.0)
    whole: IsDue = lambda last, now: schedule.due(last, now) <= now  # noqa: E731 - with its type
    return CursorSettings(
        column=section.cursor,
        whole=whole if deletes.detect else None,
        set_by_database=section.cursor_set_by == "database",
        timezone=section.cursor_timezone,
        overlap=section.overlap,
        scope=hashlib.sha256(f"{section.query}\0{section.where}".encode()).hexdigest()[:16],
    )


def first_portion(source_: SnapshotSource, file: Path | None) -> Portion | None:
    """Return a portion for a preview: the named file, the newest file of the folder, the table, or the first one."""
    match source_:
        case SqlSource():
            return source_.open()
        case DropFolder():
            files = source_.files() if file is None else [file]
            return source_.open(files[-1]) if files else None
    return next(iter(source_.portions(bytes(8))), None)


def publication_limits(config: ConnectorConfig, section: PublishConfig, *, accept_deletes: bool) -> Limits:
    """Build the limits of a publication."""
    return Limits(
        batch_rows=config.batch.rows,
        in_flight=config.batch.in_flight,
        quarantine_share=section.quarantine.stop_if_more_than,
        delete_share=section.deletes.stop_if_more_than,
        accept_deletes=accept_deletes,
        give_up_after=config.retry.give_up_after,
        succeeds=config.exchange.succeeds,
    )


def publisher(config: ConnectorConfig, section: PublishConfig, ledger: Ledger, context: RuntimeContext) -> Publisher:
    """Build the publisher of one section of `publish:`."""
    rows = source(config, section, ledger, context.clock, context.notify)
    if isinstance(rows, SqlSource) and section.mode == "incremental":
        rows = IncrementalSource(
            rows,
            cursor_settings(section),
            ledger,
            clock=context.clock,
            notify=context.notify,
            fresh=bool(context.resnapshot & {section.resource, "all"}),
        )
    return Publisher(
        publication(section),
        rows,
        context.pool,
        ledger,
        sign=context.sign,
        limits=publication_limits(config, section, accept_deletes=context.accept_deletes),
        stop=context.stop,
        progress=context.progress,
        notify=context.notify,
        clock=context.clock,
    )


def sink(section: SubscribeConfig, *, stop: threading.Event | None = None) -> Sink:
    """Build the sink of a subscription; *stop* ends its waits.

    Raises:
        InvalidError: CONFIG_INVALID, when a secret reference cannot be resolved.
    """
    target = section.into
    if isinstance(target, SqlTarget):
        return SqlSink(
            target.address(),
            target.table,
            section.grant,
            create_table=target.create_table,
            add_columns=target.add_columns,
            hard_deletes=target.deletes == "hard",
        )
    if isinstance(target, WebhookConfig):
        webhook = WebhookTarget(
            url=target.url,
            secret=SecretReference(target.secret).resolve(),
            authority=target.ca,
            batch=target.batch,
            timeout=target.timeout,
        )
        return WebhookSink(webhook, section.grant, target.path, stop=stop)
    return FileSink(
        target.path,
        section.grant,
        file_format=target.kind,
        encoding=target.encoding,
        neutralise_formulas=target.neutralise_formulas,
        group_reads=target.readable_by == "group",
    )


def subscriber(
    config: ConnectorConfig, section: SubscribeConfig, ledger: Ledger, context: RuntimeContext
) -> Subscriber:
    """Build the subscriber of one section of `subscribe:`."""
    return Subscriber(
        SubscriptionConfig(
            grant=section.grant,
            purpose=section.purpose,
            case=section.case,
            batch_rows=section.batch_rows,
            wait=section.wait,
        ),
        sink(section, stop=context.stop),
        context.pool,
        ledger,
        stop=context.stop,
        give_up_after=config.retry.give_up_after,
        progress=context.progress,
        notify=context.notify,
    )


def _file_format(section: PublishConfig) -> FileFormat:
    file_format = section.format
    return FileFormat(
        encoding=file_format.encoding,
        delimiter=file_format.delimiter,
        header_row=file_format.header_row,
        stop_column=file_format.stop_at.column if file_format.stop_at else "",
        stop_value=file_format.stop_at.equals if file_format.stop_at else "",
        form=FileForm(file_format.form) if file_format.form else None,
        sheet=file_format.sheet,
    )


def _column(config: ColumnConfig) -> Column:
    return Column(**{name: getattr(config, name) for name in ColumnConfig.model_fields})
