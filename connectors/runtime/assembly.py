"""The composition root of a connector: a configuration → ledgers, sources, sinks, publishers and subscribers.

Nothing else in this package knows which adapter is in use.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from connectors.config.config import (
    ColumnConfig,
    ConnectorConfig,
    FilesSource,
    PublishConfig,
    SqlSourceConfig,
    SqlTarget,
    SubscribeConfig,
)
from connectors.mapping.mapping import Column
from connectors.port import Pool, Portion, Reject, Replaces, Sink
from connectors.publishing.publisher import Limits, Publication, Publisher, Signer
from connectors.sinks.files import FileSink
from connectors.sinks.sql import SqlSink
from connectors.sources.csv_file import CsvFormat
from connectors.sources.csv_folder import AfterSuccess, Folder, ReadyWhen
from connectors.sources.sql_table import SqlSource
from connectors.state.ledger import Ledger, RunReport
from connectors.state.quarantine import Quarantine
from connectors.subscribing.subscriber import Subscriber, SubscriptionConfig
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "RuntimeContext",
    "first_portion",
    "ledger_path",
    "open_ledger",
    "publication",
    "publisher",
    "sink",
    "source",
    "subscriber",
]

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What every stream of a connector shares: the pool, our signature, and how to speak and stop."""

    pool: Pool
    sign: Signer
    stop: threading.Event
    clock: Clock
    progress: Callable[[RunReport], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    accept_deletes: bool = False


def ledger_path(config: ConnectorConfig, stream: str) -> Path:
    """Return the ledger's file of a publication (its resource) or a subscription (its grant)."""
    return config.state / config.connector / f"{stream}.sqlite3"


def open_ledger(config: ConnectorConfig, stream: str, clock: Clock) -> Ledger:
    """Open a stream's ledger; see `Ledger`."""
    return Ledger(ledger_path(config, stream), clock=clock)


def publication(config: PublishConfig) -> Publication:
    """Return what is published, from its section of the file."""
    form = config.format
    return Publication(
        topic=Topic.parse(config.resource),
        columns={name: _column(each) for name, each in config.columns.items()},
        null_values=form.null_values,
        unknown_columns=config.unknown_columns,
        on_duplicate=config.on_duplicate,
        form=f"{form.model_dump_json()} {config.replaces}",
    )


def source(config: ConnectorConfig, entry: PublishConfig, ledger: Ledger, clock: Clock) -> Folder | SqlSource:
    """Return the source of a publication.

    Raises:
        InvalidError: CONFIG_INVALID, when a secret that it refers to is not there.
    """
    match config.source:
        case FilesSource() as files:
            marker, unchanged = files.marker_and_wait()
            move_to, delete = files.move_and_delete()
            quarantine = Quarantine(ledger)

            def set_aside(name: str, reject: Reject) -> None:
                quarantine.add(name, 0, [reject])

            return Folder(
                files.path,
                entry.pattern or files.pattern,
                form=_form(entry),
                replaces=Replaces(entry.replaces),
                ready_when=ReadyWhen(marker=marker, unchanged=unchanged),
                after_success=AfterSuccess(move_to=files.path / move_to if move_to else None, delete=delete),
                memory=ledger,
                set_aside=set_aside,
                clock=clock,
            )
        case SqlSourceConfig() as database:
            return SqlSource(database.address(), entry.table, page_by=entry.page_by)
        case _:
            raise InvalidError(Reason.CONFIG_INVALID, "the configuration has no `source:`")


def first_portion(made: Folder | SqlSource, file: Path | None) -> Portion | None:
    """Return something to look at, without publishing it: a file of the folder (the newest), or the table."""
    if isinstance(made, SqlSource):
        return made.open()
    if file is not None:
        return made.open(file)
    files = made.files()
    return made.open(files[-1]) if files else None


def publisher(config: ConnectorConfig, entry: PublishConfig, ledger: Ledger, link: RuntimeContext) -> Publisher:
    """Return the publisher of one section of `publish:`."""
    return Publisher(
        publication(entry),
        source(config, entry, ledger, link.clock),
        link.pool,
        ledger,
        sign=link.sign,
        limits=Limits(
            batch_rows=config.batch.rows,
            in_flight=config.batch.in_flight,
            quarantine_share=entry.quarantine.stop_if_more_than,
            delete_share=entry.deletes.stop_if_more_than,
            accept_deletes=link.accept_deletes,
            give_up_after=config.retry.give_up_after,
        ),
        stop=link.stop,
        progress=link.progress,
        say=link.say,
        clock=link.clock,
    )


def sink(entry: SubscribeConfig) -> Sink:
    """Return the sink of a subscription.

    Raises:
        InvalidError: CONFIG_INVALID, when a secret that it refers to is not there.
    """
    into = entry.into
    if isinstance(into, SqlTarget):
        return SqlSink(
            into.address(),
            into.table,
            entry.grant,
            create_table=into.create_table,
            add_columns=into.add_columns,
            hard_deletes=into.deletes == "hard",
        )
    return FileSink(
        into.path,
        entry.grant,
        form=into.kind,
        encoding=into.encoding,
        neutralise_formulas=into.neutralise_formulas,
    )


def subscriber(config: ConnectorConfig, entry: SubscribeConfig, ledger: Ledger, link: RuntimeContext) -> Subscriber:
    """Return the subscriber of one section of `subscribe:`."""
    return Subscriber(
        SubscriptionConfig(
            grant=entry.grant,
            purpose=entry.purpose,
            case=entry.case,
            batch_rows=entry.batch_rows,
            wait=entry.wait,
        ),
        sink(entry),
        link.pool,
        ledger,
        stop=link.stop,
        give_up_after=config.retry.give_up_after,
        progress=link.progress,
        say=link.say,
        clock=link.clock,
    )


def _form(entry: PublishConfig) -> CsvFormat:
    form = entry.format
    return CsvFormat(
        encoding=form.encoding,
        delimiter=form.delimiter,
        header_row=form.header_row,
        stop_column=form.stop_at.column if form.stop_at else "",
        stop_value=form.stop_at.equals if form.stop_at else "",
    )


def _column(config: ColumnConfig) -> Column:
    return Column(**{name: getattr(config, name) for name in ColumnConfig.model_fields})
