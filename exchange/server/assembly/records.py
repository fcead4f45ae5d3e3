"""Record path of a process: publish, fetch, their recovery, erasures."""

from dataclasses import dataclass

import structlog

from exchange import metrics
from exchange.control.erasures import ErasureService
from exchange.corrections.postgres import PostgresCorrections
from exchange.erasure.postgres_erasures import PostgresErasures
from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.identity.pseudonyms import Pseudonyms
from exchange.records.append_recovery import AppendRecovery
from exchange.records.fetch import FetchService
from exchange.records.group_fetch import GroupFetch
from exchange.records.publish import PublishService
from exchange.records.reading.delivery_tracking import DeliveryTracking
from exchange.records.reading.disputed_values import DisputedValues
from exchange.records.reading.position_token import PositionTokens
from exchange.records.reading.repeated_releases import RepeatedReleases
from exchange.records.receipts import LaneReceipts
from exchange.records.retractions import RetractionCache
from exchange.records.view_cache import ViewCache
from exchange.records.writer_schemas import WriterSchemas
from exchange.server.assembly.audit import open_receipts
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.registry import new_id
from exchange.server.clock import microseconds, utc_now
from exchange.server.erasure_list import FileErasureList

__all__ = ["Records", "open_records"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Records:
    """Services of the record path."""

    schemas: WriterSchemas
    views: ViewCache
    publishing: PublishService
    recovery: AppendRecovery
    fetching: FetchService
    fetching_together: GroupFetch
    erasures: ErasureService


def open_records(core: Dependencies) -> Records:
    """Connect the record path."""
    schemas = WriterSchemas(core.storage.database, core.registry.subjects.lookup, core.workers)
    views = ViewCache(
        core.storage.database, schemas, core.registry.subjects.registration, core.workers, alarm=_report_difference
    )
    pseudonymizer = Pseudonyms(core.keys.secrets)
    retractions = PostgresRetractions(core.tags)
    receipts = LaneReceipts(
        ledger=core.audit.ledger,
        store=open_receipts(core.keys.secrets),
        retractions=retractions,
        signer=core.keys.receipts,
    )
    recovery = AppendRecovery(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        broker=core.storage.broker,
        receipts=receipts,
        serving=core.serving,
        clock=microseconds,
    )
    publishing = PublishService(
        pool_id=core.config.pool_id,
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        broker=core.storage.broker,
        checker=schemas,
        pseudonymizer=pseudonymizer,
        receipts=receipts,
        recovery=recovery,
        restored=core.restored,
        serving=core.serving,
        clock=microseconds,
    )
    tracking = DeliveryTracking(core.storage.database, core.authorization.access, core.storage.broker, views)
    fetching = FetchService(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        ledger=core.audit.ledger,
        broker=core.storage.broker,
        attributes=core.authorization.attributes,
        access=core.authorization.access,
        views=views,
        pseudonymizer=pseudonymizer,
        retractions=RetractionCache(retractions, core.storage.database),
        disputes=DisputedValues(PostgresCorrections(core.tags), core.storage.database),
        tokens=PositionTokens(core.keys.secrets.grant_key, microseconds),
        tracking=tracking,
        restored=core.restored,
        serving=core.serving,
        repeats=RepeatedReleases(core.config.limits.repeats_per_minute),
        window=core.window,
    )
    return Records(
        schemas,
        views,
        publishing,
        recovery,
        fetching,
        fetching.grouped(core.authorization.groups),
        _open_erasures(core),
    )


def _open_erasures(core: Dependencies) -> ErasureService:
    return ErasureService(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        broker=core.storage.broker,
        store=PostgresErasures(core.tags),
        listed=FileErasureList(
            core.config.path("erasures.jsonl"),
            lambda: core.keys.secrets.named_key("erasure-list"),  # of a gateway; other roles have no such key
        ),
        retractions=PostgresRetractions(core.tags),
        corrections=PostgresCorrections(core.tags),
        pseudonyms=Pseudonyms(core.keys.secrets),
        now=utc_now,
        new_id=new_id,
    )


def _report_difference(text: str) -> None:
    metrics.ENGINE_DIFFERENCES.inc()
    _log.error("engines_differ", view=text)
