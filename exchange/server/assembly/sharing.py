"""Sharing between departments: requests, grants and their reads, return flow, duty lists."""

from dataclasses import dataclass
from datetime import timedelta

from exchange.access.predicates.postgres import PostgresPredicates
from exchange.control.duties.service import DutyService
from exchange.control.grants.permissions import GrantPermissions
from exchange.control.grants.reads import GrantReads
from exchange.control.grants.request_clocks import RequestClocks
from exchange.control.grants.request_reads import RequestReads
from exchange.control.grants.return_flow import ReturnFlow
from exchange.control.grants.row_count import RowCounter
from exchange.control.grants.service import GrantService
from exchange.control.grants.use import GrantUse
from exchange.control.hub.predicates import PredicateService
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.records import Records
from exchange.server.assembly.registry import new_id
from exchange.server.clock import microseconds, utc_now

__all__ = ["Sharing", "open_sharing"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Services of requests, grants and duty lists."""

    grants: GrantService
    grant_reads: GrantReads
    grant_permissions: GrantPermissions
    grant_use: GrantUse
    row_counter: RowCounter
    return_flow: ReturnFlow
    request_reads: RequestReads
    request_clocks: RequestClocks
    duties: DutyService
    predicates: PredicateService


def open_sharing(core: Dependencies, records: Records) -> Sharing:
    """Connect the services of requests, grants and duty lists."""
    predicates = PostgresPredicates(core.tags)
    grants = GrantService(
        pool_id=core.config.pool_id,
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        access=core.authorization.access,
        attributes=core.authorization.attributes,
        views=records.views,
        requests=core.authorization.requests,
        duties=core.authorization.duties,
        violations=core.authorization.violations,
        window=core.window,
        unmasked_for=timedelta(days=core.config.grants.unmasked_days),
        quotas=core.config.quotas,
        predicates=predicates,
        clock=microseconds,
    )
    grant_reads = GrantReads(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        access=core.authorization.access,
        attributes=core.authorization.attributes,
        masks=records.views,
        duties=core.authorization.duties,
        requests=core.authorization.requests,
    )
    return Sharing(
        grants=grants,
        grant_reads=grant_reads,
        grant_permissions=GrantPermissions(
            core.storage.database,
            grant_reads,
            core.authorization.access,
            core.authorization.attributes,
            records.views,
            core.authorization.violations,
            grants.law,
        ),
        grant_use=GrantUse(
            grants=grant_reads, access=core.authorization.access, entries=core.audit.entries, clock=microseconds
        ),
        row_counter=RowCounter(
            grants=grant_reads,
            access=core.authorization.access,
            broker=core.storage.broker,
            views=records.views,
        ),
        return_flow=ReturnFlow(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            schemas=records.views,
            now=utc_now,
        ),
        request_reads=RequestReads(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            access=core.authorization.access,
            requests=core.authorization.requests,
            attributes=core.authorization.attributes,
            grants=grant_reads,
        ),
        request_clocks=RequestClocks(
            database=core.storage.database,
            access=core.authorization.access,
            requests=core.authorization.requests,
            attributes=core.authorization.attributes,
            grants=grants,
        ),
        duties=DutyService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            duties=core.authorization.duties,
            departments=core.registry.departments,
            access=core.authorization.access,
            now=utc_now,
        ),
        predicates=PredicateService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            store=predicates,
            now=utc_now,
            new_id=new_id,
        ),
    )
