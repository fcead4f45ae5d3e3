"""Oversight: queries of the log, evidence, restores, figures, coverage, violations, rules of due dates."""

from dataclasses import dataclass
from functools import partial

from exchange.audit.search.stored_log import StoredLog
from exchange.control.audit_keys import AuditKeys
from exchange.control.audit_queries import AuditQueries
from exchange.control.clock import ClockService
from exchange.control.evidence import EvidenceBundles
from exchange.control.oversight.coverage import CoverageService
from exchange.control.oversight.figures import FigureService
from exchange.control.oversight.lineage import LineageService
from exchange.control.restores import Restores
from exchange.control.rules import RuleService
from exchange.control.violations.detection import ViolationDetector
from exchange.control.violations.overdue import OverdueUpdates
from exchange.control.violations.service import ViolationService
from exchange.deadlines.postgres_changes import PostgresRuleChanges
from exchange.kpi.postgres import PostgresKpi
from exchange.server import clock
from exchange.server.assembly.audit import open_receipts
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.registry import new_id, own_resources
from exchange.server.assembly.sharing import Sharing
from exchange.server.clock import microseconds, utc_now
from registry.database.unit_of_work import Reader
from registry.directory.catalogue import Catalogue
from registry.postgres.catalogue_records import PostgresRecords
from schemas.errors import PoolError
from schemas.names import Topic

__all__ = ["Oversight", "open_oversight"]


@dataclass(frozen=True, slots=True)
class Oversight:
    """Services of oversight."""

    audit_queries: AuditQueries
    evidence: EvidenceBundles
    audit_keys: AuditKeys
    restores: Restores
    figures: FigureService
    lineage: LineageService
    coverage: CoverageService
    rules: RuleService
    violations: ViolationService
    violation_detector: ViolationDetector
    clock: ClockService


def open_oversight(core: Dependencies, sharing: Sharing) -> Oversight:
    """Connect the services of oversight."""
    audit_queries = AuditQueries(
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        entries=core.audit.entries,
        log=StoredLog(core.audit.log, core.config.path("log")),
        own_resources=partial(own_resources, core.storage.database, core.registry.catalogue),
        clock=microseconds,
    )
    return Oversight(
        audit_queries=audit_queries,
        evidence=EvidenceBundles(
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            database=core.storage.database,
            queries=audit_queries,
            entries=core.audit.entries,
            log=StoredLog(core.audit.log, core.config.path("log")),
            access=core.authorization.access,
            public_key=core.config.path("log.pub").read_text,
            clock=microseconds,
        ),
        audit_keys=AuditKeys(
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            entries=core.audit.entries,
            log=StoredLog(core.audit.log, core.config.path("log")),
            receipts=open_receipts(core.keys.secrets),
            secrets=core.keys.secrets,
            clock=microseconds,
        ),
        restores=Restores(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            entries=core.audit.entries,
            log=StoredLog(core.audit.log, core.config.path("log")),
            receipts=open_receipts(core.keys.secrets),
            guard=core.restored,
            clock=microseconds,
        ),
        figures=FigureService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            store=PostgresKpi(),
            departments=core.registry.departments,
            pool_id=core.config.pool_id,
        ),
        lineage=LineageService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            catalogue=core.registry.catalogue,
            records=PostgresRecords(core.tags),
            lookup=core.registry.subjects.lookup,
            access=core.authorization.access,
            entries=core.audit.entries,
            store=PostgresKpi(),
            departments=core.registry.departments,
        ),
        coverage=CoverageService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            catalogue=core.registry.catalogue,
            records=PostgresRecords(core.tags),
            departments=core.registry.departments,
        ),
        rules=RuleService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            store=PostgresRuleChanges(core.tags),
            now=utc_now,
            new_id=new_id,
        ),
        violations=ViolationService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            store=core.authorization.violations,
            access=core.authorization.access,
            grants=sharing.grants,
            departments=core.registry.departments,
            entries=core.audit.entries,
            new_id=new_id,
        ),
        violation_detector=ViolationDetector(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            store=core.authorization.violations,
            entries=core.audit.entries,
            provider_of=partial(_provider_of, core.registry.catalogue),
            overdue=[OverdueUpdates(PostgresRecords(core.tags))],
            new_id=new_id,
        ),
        clock=ClockService(
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            log=core.audit.log,
            clock=microseconds,
            machine=clock.CLOCK.machine,
        ),
    )


def _provider_of(catalogue: Catalogue, reader: Reader, topic: str) -> str | None:
    try:
        return catalogue.get(reader, Topic.parse(topic)).provider
    except PoolError:
        return None  # no topic, or one that is not in the catalogue
