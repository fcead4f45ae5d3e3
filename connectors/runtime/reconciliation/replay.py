"""Replay of a subscription's quarantine into its target, under the grant as it is now."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime

from connectors.config.config import ConnectorConfig
from connectors.config.subscription_models import SqlTarget, SubscribeConfig
from connectors.port import Pool
from connectors.runtime import assembly
from connectors.subscribing.nanoseconds import deliverable_schema
from connectors.subscribing.replay import ReplayReport, replay
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import InvalidError, Reason

__all__ = ["replay_subscription"]


def replay_subscription(
    config: ConnectorConfig, section: SubscribeConfig, pool: Pool, *, clock: Callable[[], datetime]
) -> ReplayReport:
    """Write the quarantined records of a subscription once more.

    Raises:
        RefusedError: the grant does not allow it (any more).
        UnavailableError: LEDGER_IN_USE, the connector runs.
        InvalidError: CONFIG_INVALID, the target is no table, or deletes withdrawn records.
        PoolError: pool or target are away.
    """
    target = section.into
    if not isinstance(target, SqlTarget):
        raise InvalidError(Reason.CONFIG_INVALID, "only a table takes records again; a folder of files refuses none")
    if target.deletes == "hard":
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "with `deletes: hard` the table does not know what was withdrawn, so a record could come back that is not "
            "valid any more; to fill it again from the beginning, give the connector another table",
        )
    subscription = pool.describe(section.grant, purpose=section.purpose, case=section.case)
    engine = engine_for(parse(subscription.schema_text))
    with ExitStack() as opened:
        ledger = opened.enter_context(closing(assembly.open_ledger(config, section.grant, clock)))
        sink = opened.enter_context(closing(assembly.sink(section)))
        sink.prepare(deliverable_schema(engine.schema))
        return replay(section.grant, sink, ledger, subscription.schema_id, engine)
