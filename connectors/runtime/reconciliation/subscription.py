"""Reconciliation of a subscription: everything is drawn under its grant once more and compared with the target."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from connectors.config.config import ConnectorConfig
from connectors.config.subscription_models import SqlTarget, SubscribeConfig
from connectors.port import Pool
from connectors.runtime import assembly
from connectors.runtime.reconciliation.publication import write_differences
from connectors.sinks.sql import SqlSink
from connectors.state.quarantine import KEY_SIZE, read_entries
from connectors.state.read_only import open_read_only
from connectors.subscribing.nanoseconds import deliverable_schema
from connectors.subscribing.reconciliation import DrawnState, TargetReconciliation, compare_target, draw_state
from connectors.subscribing.subscriber import SubscriptionConfig
from registry.avro.parser import parse
from registry.codec.codec import Engine, engine_for
from schemas.errors import InvalidError, Reason

__all__ = ["ReconciledTarget", "reconcile_target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciledTarget:
    """A subscription compared; `releases`: so many releases were drawn, `last_entry` is the audit entry of the last."""

    grant: str
    releases: int
    last_entry: str
    result: TargetReconciliation


def reconcile_target(
    config: ConnectorConfig,
    section: SubscribeConfig,
    pool: Pool,
    *,
    differences: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> ReconciledTarget:
    """Compare a subscription.

    Args:
        config: of the connector, which should have fetched everything: what it has not counts as a difference.
        section: the subscription.
        pool: from which everything is drawn, for the declared purpose and case.
        differences: file to write the record keys to that differ; it must not exist yet.
        progress: is told the records drawn so far.

    Raises:
        InvalidError: CONFIG_INVALID, the target is a folder of files.
        PoolError: the grant does not allow it, or pool or target are away.
    """
    if not isinstance(section.into, SqlTarget):
        raise InvalidError(Reason.CONFIG_INVALID, "only a table can be compared with its grant, not a folder of files")
    with ExitStack() as opened:
        subscription = pool.describe(section.grant, purpose=section.purpose, case=section.case)
        engines: dict[int, Engine] = {subscription.schema_id: engine_for(parse(subscription.schema_text))}

        def engine_of(schema_id: int) -> Engine:
            if schema_id not in engines:
                engines[schema_id] = engine_for(parse(pool.schema(schema_id=schema_id)[1]))
            return engines[schema_id]

        sink = opened.enter_context(closing(assembly.sink(section)))
        assert isinstance(sink, SqlSink)  # noqa: S101 - tells mypy what the section's target says
        target = sink.comparison(deliverable_schema(engine_of(subscription.schema_id).schema))
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="pool-connect-")))
        drawn = opened.enter_context(closing(DrawnState(scratch / "drawn.sqlite3")))
        terms = SubscriptionConfig(
            grant=section.grant, purpose=section.purpose, case=section.case, batch_rows=section.batch_rows
        )
        totals = draw_state(pool, terms, drawn, progress)
        found = compare_target(drawn, target, engine_of, _quarantined(assembly.ledger_path(config, section.grant)))
        if differences is not None:
            write_differences(differences, ((key.hex().encode(), what) for key, what in drawn.differences()))
        return ReconciledTarget(
            grant=section.grant, releases=totals.releases, last_entry=totals.last_entry, result=found
        )


def _quarantined(ledger: Path) -> set[bytes]:
    if not ledger.exists():
        return set()
    with closing(open_read_only(ledger)) as sql:
        return {entry.original[:KEY_SIZE] for entry in read_entries(sql)}
