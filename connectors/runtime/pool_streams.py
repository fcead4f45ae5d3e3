"""Streams of another pool's records (`kind: pool`): built from the configuration, checked, and run.

The connector has an identity in each of the two pools: it is a consumer's machine there and a provider's here. Each
publication is a stream of its own, with a grant, a lane, a ledger and a journal.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.publication_models import DrawConfig, PublishConfig
from connectors.config.source_models import PoolSourceConfig
from connectors.port import Pool
from connectors.publishing.change_table import ChangePublication
from connectors.publishing.changes import ChangePublisher
from connectors.runtime import assembly, remedies
from connectors.runtime.exit_codes import ExitCode
from connectors.runtime.renewing_client import RenewingPoolClient
from connectors.sources.pool.journal import PoolJournal
from connectors.sources.pool.pool_source import GrantTerms, PoolChangeSource
from connectors.sources.pool.provenance import OWN_COLUMNS
from connectors.sources.postgres.readiness import Finding, Verdict
from connectors.state.quarantine import Quarantine
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.names import Topic

__all__ = ["connect", "connected", "find_problems", "journal_path", "run"]

_GRANT_WARNING = 14  # days of a grant: a new request takes persons


def journal_path(config: ConnectorConfig, resource: str) -> Path:
    """Return the path of the journal of a publication, beside its ledger."""
    return assembly.ledger_path(config, resource).with_suffix(".drawn")


def connect(
    source: PoolSourceConfig, clock: assembly.Clock, warn: Callable[[str], None] = lambda _: None
) -> RenewingPoolClient:
    """Connect to the other pool, under our identity there."""
    return RenewingPoolClient(source.identity, source.gateway, clock, warn)


@contextmanager
def connected(config: ConnectorConfig, context: assembly.RuntimeContext) -> Iterator[RenewingPoolClient | None]:
    """Connect to the other pool while the block runs; None where the configuration draws from none."""
    if not isinstance(config.source, PoolSourceConfig):
        yield None
        return
    with connect(config.source, context.clock, context.notify) as client:
        yield client


def run(
    config: ConnectorConfig,
    section: PublishConfig,
    context: assembly.RuntimeContext,
    other: RenewingPoolClient | None,
    *,
    once: bool,
    refresh: Callable[[], None],
) -> ExitCode:
    """Publish what a grant of the other pool delivers until stopped, or with `once` what it delivers now."""
    if other is None or section.draw is None:
        raise InvalidError(Reason.CONFIG_INVALID, "the configuration draws from no other pool")

    def notify(text: str) -> None:
        context.notify(f"{section.resource}: {text}")

    for each in (other.refresh, refresh):
        try:
            each()
        except UnavailableError as error:
            notify(error.message)  # the run itself waits
    with ExitStack() as opened:
        ledger = opened.enter_context(closing(assembly.open_ledger(config, section.resource, context.clock)))
        source = PoolChangeSource(
            other,
            _terms(section.draw),
            PoolJournal(journal_path(config, section.resource)),
            stop=context.stop,
            notify=notify,
        )
        opened.callback(source.close)
        publication = ChangePublication(
            table=section.draw.grant,
            # What is withdrawn there is not delivered any more: nor is it here, unless the configuration says so.
            publication=replace(assembly.publication(section), on_delete=section.on_delete or "retract"),
            ledger=ledger,
            limits=assembly.publication_limits(config, section, accept_deletes=context.accept_deletes),
        )
        publisher = ChangePublisher(
            [publication],
            source,
            context.pool,
            sign=context.sign,
            stop=context.stop,
            progress=context.progress,
            notify=notify,
            clock=context.clock,
        )
        again = [section.draw.grant] if context.resnapshot & {section.resource, "all"} else []
        for report in publisher.run(once=once, resnapshot=again):
            notify(
                f"{report.read:,} records and changes drawn = {report.published:,} published + "
                f"{report.voided:,} voided + {report.quarantined:,} quarantined + {report.unchanged:,} unchanged"
            )
        Quarantine(ledger).purge(timedelta(seconds=section.quarantine.keep), context.clock())
    return ExitCode.OK


def find_problems(section: PublishConfig, pool: Pool, other: Pool) -> Iterator[Finding]:
    """Check that a grant of the other pool can be drawn and published here, without a release."""
    if section.draw is None:
        return
    draw = section.draw
    try:
        granted = other.describe(draw.grant, purpose=draw.purpose, case=draw.case)
        schema = pool.schema(Topic.parse(section.resource))
        mapping = assembly.column_mapping(section, schema)
        view = engine_for(parse(granted.schema_text)).schema.names
        sources = mapping.source_columns()
        mapping.bind([*view, *(name for name in OWN_COLUMNS if name in sources.values())])
        head = pool.resume(Topic.parse(section.resource))
    except PoolError as error:
        remedy = remedies.mend_declaration(error.reason, draw.grant)
        yield Finding(verdict=Verdict.FAIL, subject=section.resource, message=error.message, settings=remedy)
        return
    remaining = datetime.fromtimestamp(granted.expires / 1e6, UTC) - datetime.now(UTC)
    soon = remaining.days < _GRANT_WARNING
    yield Finding(
        verdict=Verdict.WARN if soon else Verdict.OK,
        subject=section.resource,
        message=f"may be published; schema {schema[0]}, batch {head.sequence}; {granted.topic} of the other pool is "
        f"granted for {remaining.days} more days ({granted.state}), and its view fits the contract",
        settings=remedies.NEW_REQUEST if soon else (),
    )
    if not granted.withdrawals:
        yield Finding(
            verdict=Verdict.WARN,
            subject=section.resource,
            message="the grant delivers no withdrawals: what is deleted there stays here",
        )


def _terms(draw: DrawConfig) -> GrantTerms:
    return GrantTerms(grant=draw.grant, purpose=draw.purpose, case=draw.case, batch_rows=draw.batch_rows)
