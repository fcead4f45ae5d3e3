"""Streams of changes of a connector (`mode: cdc`): built from its configuration, checked, run, and taken down.

All publications of this mode share one slot, and so one stream; each has a lane and a ledger of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import PublishConfig
from connectors.config.source_models import CdcConfig, SqlSourceConfig
from connectors.port import Pool
from connectors.publishing.change_table import ChangePublication
from connectors.publishing.changes import ChangePublisher
from connectors.runtime import assembly
from connectors.runtime.exit_codes import ExitCode
from connectors.sources.postgres.catalogue import read_database, read_table
from connectors.sources.postgres.change_assembly import AssemblyLimits
from connectors.sources.postgres.change_source import LogSettings, PostgresChangeSource, WalLimit
from connectors.sources.postgres.connection import open_sql, quote, translate_errors
from connectors.sources.postgres.readiness import Finding, Toast, Verdict, check_database, check_table, check_time_zones
from connectors.sources.postgres.slot import drop_slot, find_slot
from connectors.state.quarantine import Quarantine
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["find_problems", "run", "sections", "teardown"]


def sections(config: ConnectorConfig) -> list[PublishConfig]:
    """Return the publications that are read from the log."""
    return [each for each in config.publish if each.mode == "cdc"]


def run(
    config: ConnectorConfig, context: assembly.RuntimeContext, *, once: bool, refresh: Callable[[], None]
) -> ExitCode:
    """Publish the changes until stopped, or with `once` those that are committed now."""
    database, cdc = _source(config)
    by_log = sections(config)
    try:
        refresh()
    except UnavailableError as error:
        context.notify(error.message)  # the run itself waits for the pool
    with ExitStack() as opened:
        notes = opened.enter_context(closing(assembly.open_ledger(config, f"slot-{cdc.slot}", context.clock)))
        publications = []
        for section in by_log:
            ledger = opened.enter_context(closing(assembly.open_ledger(config, section.resource, context.clock)))
            limits = assembly.publication_limits(config, section, accept_deletes=context.accept_deletes)
            publication = assembly.publication(section)
            publications.append(
                ChangePublication(table=_table(section), publication=publication, ledger=ledger, limits=limits)
            )
        source = PostgresChangeSource(database.address(), _settings(config, cdc), notes, context.notify)
        opened.callback(source.close)
        publisher = ChangePublisher(
            publications,
            source,
            context.pool,
            sign=context.sign,
            stop=context.stop,
            progress=context.progress,
            notify=context.notify,
            clock=context.clock,
        )
        again = [
            _table(section)
            for section in by_log
            if section.resource in context.resnapshot or "all" in context.resnapshot
        ]
        for each in publisher.run(once=once, resnapshot=again):
            context.notify(
                f"{each.portion}: {each.read:,} rows and changes read = {each.published:,} published + "
                f"{each.voided:,} voided + {each.quarantined:,} quarantined + {each.unchanged:,} unchanged"
            )
        for section, each_publication in zip(by_log, publications, strict=True):
            keep = timedelta(seconds=section.quarantine.keep)
            Quarantine(each_publication.ledger).purge(keep, context.clock())
    return ExitCode.OK


def find_problems(config: ConnectorConfig, pool: Pool | None) -> Iterator[Finding]:
    """Check database and tables, without changing anything.

    Args:
        config: of the connector.
        pool: which says what the records are made of; None = the contract is not considered.
    """
    database, cdc = _source(config)
    publication = _publication_name(cdc)
    address = database.address()
    with translate_errors("connect to the database"), closing(open_sql(address)) as sql:
        slot = find_slot(sql, cdc.slot)
        facts = read_database(sql, publication)
        yield from check_database(
            facts, publication=publication, accept_unbounded_wal=cdc.accept_unbounded_wal, kept=slot is not None
        )
        if slot is not None and slot.lost:
            yield Finding(
                verdict=Verdict.FAIL,
                subject="slot",
                message=f"{cdc.slot} is lost: changes cannot be read any more. `run --resnapshot all` goes on",
            )
        elif slot is not None:
            message = f"{cdc.slot} holds back {slot.retained >> 20} MiB of the log"
            yield Finding(verdict=Verdict.OK, subject="slot", message=message)
        for section in sections(config):
            table = _table(section)
            found = read_table(sql, table, publication)
            key: Sequence[str] = ()
            zoneless: Mapping[str, str] = {}
            columns = frozenset(each.name for each in found.columns) if found is not None else frozenset[str]()
            if pool is not None:
                mapping = assembly.column_mapping(section, pool.schema(Topic.parse(section.resource)))
                zoneless = mapping.zoneless()
                by_field = mapping.source_columns()
                key = [by_field[each] for each in mapping.contract.key if each in by_field]
                columns = frozenset(by_field.values())
                if found is not None:
                    mapping.bind([each.name for each in found.columns])
            yield from check_table(
                found,
                table,
                publication=publication,
                user=facts.user,
                key=key,
                columns=columns,
                toast=Toast(section.toast),
            )
            if found is not None:
                yield from check_time_zones(found, zoneless)


def teardown(config: ConnectorConfig, clock: assembly.Clock) -> list[str]:
    """Drop the slot, so that the database keeps no log for this connector; return what was done, in sentences.

    Ledgers with their receipts stay. The publication stays too: its owner drops it.

    Raises:
        UnavailableError: SOURCE_UNAVAILABLE, when the connector still runs.
    """
    database, cdc = _source(config)
    done = []
    with closing(assembly.open_ledger(config, f"slot-{cdc.slot}", clock)) as notes:
        with translate_errors(f"drop the slot {cdc.slot}"), closing(open_sql(database.address())) as sql:
            if find_slot(sql, cdc.slot) is None:
                done.append(f"there is no slot {cdc.slot}")
            else:
                drop_slot(sql, cdc.slot)
                done.append(f"the slot {cdc.slot} is dropped; the database keeps no log for this connector any more")
        notes.set_meta(change_state="", change_confirmed="", change_stream="", change_tables="")
    done.append(f"its owner may drop the publication: DROP PUBLICATION IF EXISTS {quote(_publication_name(cdc))};")
    return done


def _source(config: ConnectorConfig) -> tuple[SqlSourceConfig, CdcConfig]:
    if not isinstance(config.source, SqlSourceConfig) or config.source.cdc is None:
        raise InvalidError(Reason.CONFIG_INVALID, "the configuration has no `cdc:` in its source; nothing to do")
    return config.source, config.source.cdc


def _publication_name(cdc: CdcConfig) -> str:
    return cdc.publication or cdc.slot


def _table(section: PublishConfig) -> str:
    return section.table if "." in section.table else f"public.{section.table}"


def _settings(config: ConnectorConfig, cdc: CdcConfig) -> LogSettings:
    return LogSettings(
        slot=cdc.slot,
        publication=_publication_name(cdc),
        heartbeat=cdc.heartbeat,
        wal_limit=WalLimit(warn=cdc.wal_limit.warn, drop_slot=cdc.wal_limit.drop_slot),
        accept_unbounded_wal=cdc.accept_unbounded_wal,
        reread=frozenset(_table(each) for each in sections(config) if each.toast == "reread"),
        limits=AssemblyLimits(batch_rows=config.batch.rows),
    )
