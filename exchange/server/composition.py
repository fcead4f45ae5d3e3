"""Composition root: chooses the adapters and connects all objects of a process, one package at a time.

App.open(config)                database, broker and services; nothing listens yet
exchange/server/listeners.py    the listeners of each role
exchange/server/background.py   the background loops of each role
"""

import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange import metrics, migrations
from exchange.access.grants.group_postgres import PostgresGroupStore
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.audit.entry_tags import EntryTags
from exchange.audit.ledger import AuditLedger
from exchange.audit.note import FileSigner
from exchange.audit.postgres import PostgresEntries, PostgresReceipts
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.search.authenticity import SignedHashes
from exchange.audit.search.stored_log import StoredLog
from exchange.audit.sequencer import Sequencer
from exchange.audit.store import ReceiptStore
from exchange.authorization.actor_budgets import ActorBudgets
from exchange.authorization.attribute_sources import CatalogueAttributes, IdentityAttributes
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.authentications import Authentications
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.schema_access import SchemaAccess
from exchange.authorization.serving import ServingGuard
from exchange.authorization.text_screen import TextScreen
from exchange.broker.port import Broker
from exchange.config import Config
from exchange.control.accounts import AccountService
from exchange.control.administration import Administration, RegistryServices
from exchange.control.audit_keys import AuditKeys
from exchange.control.audit_queries import AuditQueries
from exchange.control.catalogue.element_use import ElementUseService
from exchange.control.catalogue.elements import ElementService
from exchange.control.catalogue.entries import CatalogueService
from exchange.control.catalogue.export import CatalogueExport
from exchange.control.catalogue.search import CatalogueSearch
from exchange.control.clock import ClockService
from exchange.control.connectors import ConnectorService
from exchange.control.corrections.claim_seal import ClaimSeal
from exchange.control.corrections.publications import Publications
from exchange.control.corrections.reads import CorrectionReads
from exchange.control.corrections.recipients import Recipients
from exchange.control.corrections.records import CorrectionRecords
from exchange.control.corrections.routing import CorrectionRouting
from exchange.control.corrections.service import CorrectionService
from exchange.control.corrections.upkeep import CorrectionUpkeep
from exchange.control.departments import DepartmentService
from exchange.control.erasures import ErasureService
from exchange.control.evidence import EvidenceBundles
from exchange.control.grants.duty_lists import DutyService
from exchange.control.grants.permissions import GrantPermissions
from exchange.control.grants.reads import GrantReads
from exchange.control.grants.request_clocks import RequestClocks
from exchange.control.grants.request_reads import RequestReads
from exchange.control.grants.return_flow import ReturnFlow
from exchange.control.grants.review import GrantReview
from exchange.control.grants.service import GrantService
from exchange.control.grants.use import GrantUse
from exchange.control.open_restores import find_open_restore
from exchange.control.oversight.coverage import CoverageService
from exchange.control.oversight.figures import FigureService
from exchange.control.oversight.lineage import LineageService
from exchange.control.requests.stored import StoredRequests
from exchange.control.restores import Restores
from exchange.control.rules import RuleService
from exchange.control.succession.grants import GrantSuccession
from exchange.control.succession.service import Succession
from exchange.control.tasks.answers import CaseTasks, NoticeTasks, TicketTasks
from exchange.control.tasks.catalogue import CatalogueTasks
from exchange.control.tasks.changes import TaskChanges
from exchange.control.tasks.requests import RequestTasks
from exchange.control.tasks.second_person import ApprovalTasks, ErasureTasks, ProposalTasks, RuleTasks
from exchange.control.tasks.service import TaskService
from exchange.control.violations.detection import ViolationDetector
from exchange.control.violations.overdue import OverdueUpdates
from exchange.control.violations.service import ViolationService
from exchange.control.zones import ZoneService
from exchange.corrections.postgres import PostgresCorrections
from exchange.deadlines.postgres_changes import PostgresRuleChanges
from exchange.deadlines.stored_rules import StoredRules
from exchange.duties.postgres import PostgresDuties
from exchange.engines.process_pool import ProcessPool
from exchange.erasure.postgres_erasures import PostgresErasures
from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from exchange.identity.authority import Authority, CertificateAuthenticator, read_authority_certificate
from exchange.identity.connectors.postgres import PostgresConnectorStore
from exchange.identity.enrolment import Connectors, Enrolment
from exchange.identity.failure_limiter import FailureLimiter
from exchange.identity.keyfile import read_ed25519
from exchange.identity.last_use import LastUse
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import FileSecrets, RoleSecrets, Secrets
from exchange.identity.tokens import Users
from exchange.kpi.collector import Collector
from exchange.kpi.postgres import PostgresKpi
from exchange.pool import VERSION, Pool
from exchange.records.append_recovery import AppendRecovery
from exchange.records.engine_tasks import json_values
from exchange.records.fetch import FetchService
from exchange.records.publish import PublishService
from exchange.records.reading.delivery_tracking import DeliveryTracking
from exchange.records.reading.disputed_values import DisputedValues
from exchange.records.reading.position_token import PositionTokens
from exchange.records.reading.repeated_releases import RepeatedReleases
from exchange.records.receipts import LaneReceipts
from exchange.records.retractions import RetractionCache
from exchange.records.sealed_receipts import SealedReceipts
from exchange.records.view_cache import ViewCache
from exchange.records.writer_schemas import WriterSchemas
from exchange.requests.postgres import PostgresRequests
from exchange.server import clock
from exchange.server.brokers import open_broker, open_schemas_topic
from exchange.server.clock import microseconds, utc_now
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.erasure_list import FileErasureList
from exchange.server.key_files import RECORDS_KEY, receipts_key, records_tagged
from exchange.server.roles import Role, keys_of
from exchange.server.row_digest import RowDigests
from exchange.server.row_tags import open_entry_tags, open_row_tags
from exchange.server.row_watch import RowWatch
from exchange.server.row_watch import report as report_row
from exchange.server.schemas_topic import SchemasTopic
from exchange.server.supervision.clock_check import is_independent
from exchange.server.supervision.log_watch import LogWatch
from exchange.server.supervision.startup_retry import retry_until_available
from exchange.violations.postgres import PostgresViolations
from registry.catalogue.element_references import DictionaryReferences
from registry.catalogue.procedure import Procedure
from registry.database.connection_pool import create_engine
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import PostgresDatabase, Reader, UnitOfWork, connection_of
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.governance.approvals import Approvals
from registry.postgres.approvals import PostgresApprovals
from registry.postgres.catalogue_records import PostgresRecords
from registry.postgres.catalogue_search import PostgresSearch
from registry.postgres.data_elements import PostgresElements
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import OutboxWriter
from registry.subjects.services import SubjectServices
from registry.subjects.store import SubjectWriter
from schemas.access import Actor, ActorKind
from schemas.access import Role as AccountRole
from schemas.audit import AuditEntry
from schemas.canonical import Json
from schemas.errors import InvalidError, PoolError, Reason
from schemas.identifiers import random_id, uuid7
from schemas.names import Topic
from schemas.record import Packed, unframe

__all__ = [
    "App",
    "open_receipts",
]

_log = structlog.get_logger()
_CONNECTIONS = 24  # threads of one process that hold connections to PostgreSQL at once
_AUTOCOMMIT_CONNECTIONS = 16  # more, for single reads: as many as the registry's threads, and some


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One process of a pool."""

    config: Config
    pool: Pool
    enforcer: Enforcer
    subjects: SubjectServices
    approvals: Approvals
    schemas_topic: SchemasTopic | None
    catalogue: Catalogue
    broker: Broker
    sequencer: Sequencer
    log: PostgresLog
    collector: Collector
    log_watch: LogWatch
    restored: RestoreGuard
    row_watch: RowWatch
    row_digests: RowDigests
    authority_certificate: bytes  # PEM
    engines: tuple[sa.Engine, ...]
    workers: ProcessPool
    embedded: EmbeddedPostgres | None
    addresses: dict[str, str]  # listener → host:port, filled in when they are bound

    @classmethod
    def open(
        cls,
        config: Config,
        *,
        roles: frozenset[Role] = frozenset(Role),
        own_database: bool = True,
        engines: bool = False,
        now: Callable[[Reader], datetime] | None = None,
    ) -> Self:
        """Connect everything.

        Args:
            config: of the pool.
            roles: of this process.
            own_database: start the embedded PostgreSQL, where no other is configured.
            engines: start the engine processes that are configured; for a gateway.
            now: by which grants and requests are decided; None = the database's clock. Only a demonstration moves it.

        Raises:
            InvalidError: CONFIG_INVALID, keys or database are not what the configuration says, or a key of another
                role was asked for.
            UnavailableError: the database or the broker does not answer within the start-up timeout.
        """
        keys = _Keys.read(config, roles)  # before anything is started: a start without one of them must change nothing
        embedded, url = _database(config, own=own_database)
        try:
            workers = config.limits.workers if engines else 0
            return cls._connect(config, keys, roles, embedded, url, engines=workers, now=now or _database_clock)
        except BaseException:
            if embedded is not None:
                embedded.stop()
            raise

    @classmethod
    def _connect(
        cls,
        config: Config,
        keys: "_Keys",
        roles: frozenset[Role],
        embedded: EmbeddedPostgres | None,
        url: sa.URL,
        *,
        engines: int,
        now: Callable[[Reader], datetime],
    ) -> Self:
        storage = _open_storage(config, keys, url, roles)
        audit = _open_audit(config, keys, storage, roles)
        tags = open_row_tags(keys.secrets)
        registry = _open_registry(config, storage.database, tags, roles)
        identity = _open_identity(config, keys, storage.database, registry, tags)
        authorization = _open_authorization(keys, storage.database, registry, identity, tags, roles, now)
        serving = ServingGuard()
        workers = ProcessPool(engines, replaced=lambda why: metrics.ENGINES_REPLACED.labels(why).inc())
        restored = RestoreGuard(partial(find_open_restore, storage.engine, audit.tags, config.folder))
        records = _open_records(config, keys, storage, audit, registry, authorization, workers, tags, restored, serving)
        addresses: dict[str, str] = {}
        grants = GrantService(
            pool_id=config.pool_id,
            database=storage.database,
            enforcer=audit.enforcer,
            access=authorization.access,
            attributes=authorization.attributes,
            views=records.views,
            requests=authorization.requests,
            duties=authorization.duties,
            violations=authorization.violations,
            window=RELEASE_WINDOW,
            unmasked_for=timedelta(days=config.grants.unmasked_days),
            quotas=config.quotas,
            clock=microseconds,
        )
        grant_reads = GrantReads(
            database=storage.database,
            enforcer=audit.enforcer,
            access=authorization.access,
            attributes=authorization.attributes,
            masks=records.views,
            duties=authorization.duties,
            requests=authorization.requests,
        )
        corrections = _open_corrections(keys, storage, audit, registry, authorization, records, workers, tags)
        services = RegistryServices(registry.departments, registry.catalogue, registry.subjects)
        administration = Administration(
            database=storage.database,
            enforcer=audit.enforcer,
            attributes=authorization.attributes,
            registry=services,
            broker=storage.broker,
            enrolment=identity.enrolment,
            now=utc_now,
            quotas=config.quotas,
        )
        elements = PostgresElements(tags)
        procedure = Procedure(
            PostgresRecords(tags),
            registry.catalogue,
            registry.subjects.lookup.full_classification,
            elements,
            PostgresSearch(),
        )
        audit_queries = AuditQueries(
            enforcer=audit.enforcer,
            attributes=authorization.attributes,
            entries=audit.entries,
            log=StoredLog(audit.log, config.path("log")),
            own_resources=partial(_own_resources, storage.database, registry.catalogue),
            clock=microseconds,
        )
        pool = Pool(
            pool_id=config.pool_id,
            database=storage.database,
            peers=identity.certificates,
            users=identity.users,
            authentications=audit.authentications,
            enforcer=audit.enforcer,
            identities=identity.attributes,
            return_flow=ReturnFlow(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                schemas=records.views,
                now=utc_now,
            ),
            request_reads=RequestReads(
                database=storage.database,
                enforcer=audit.enforcer,
                access=authorization.access,
                requests=authorization.requests,
                attributes=authorization.attributes,
                grants=grant_reads,
            ),
            request_clocks=RequestClocks(
                database=storage.database,
                access=authorization.access,
                requests=authorization.requests,
                attributes=authorization.attributes,
                grants=grants,
            ),
            grant_permissions=GrantPermissions(
                storage.database,
                grant_reads,
                authorization.access,
                authorization.attributes,
                records.views,
                authorization.violations,
                grants.law,
            ),
            grant_use=GrantUse(
                grants=grant_reads, access=authorization.access, entries=audit.entries, clock=microseconds
            ),
            schemas=records.schemas,
            schema_access=SchemaAccess(
                storage.database, registry.catalogue, authorization.access, rights=config.registry.as_rights()
            ),
            publishing=records.publishing,
            recovery=records.recovery,
            fetching=records.fetching,
            fetching_together=records.fetching.grouped(authorization.groups),
            grants=grants,
            grant_reads=grant_reads,
            departments=DepartmentService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                departments=registry.departments,
                catalogue=registry.catalogue,
                enrolment=identity.enrolment,
                users=identity.users,
                grants=grants,
                grant_reads=grant_reads,
                succession=Succession(
                    database=storage.database,
                    enforcer=audit.enforcer,
                    attributes=authorization.attributes,
                    duties=authorization.duties,
                    catalogue=registry.catalogue,
                    procedure=procedure,
                    elements=elements,
                    corrections=PostgresCorrections(tags),
                    grants=GrantSuccession(
                        database=storage.database,
                        enforcer=audit.enforcer,
                        access=authorization.access,
                        attributes=authorization.attributes,
                        requests=PostgresRequests(tags),
                        review=GrantReview(authorization.access, records.views, authorization.attributes),
                    ),
                    now=utc_now,
                ),
                now=utc_now,
            ),
            tasks=_open_tasks(config, storage, audit, registry, authorization, tags),
            duties=DutyService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                duties=authorization.duties,
                departments=registry.departments,
                access=authorization.access,
                now=utc_now,
            ),
            corrections=corrections.service,
            correction_reads=corrections.reads,
            correction_upkeep=corrections.upkeep,
            zones=ZoneService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                departments=registry.departments,
                catalogue=registry.catalogue,
            ),
            administration=administration,
            elements=ElementService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                departments=registry.departments,
                store=elements,
                records=PostgresRecords(tags),
            ),
            element_use=ElementUseService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                catalogue=registry.catalogue,
                lookup=registry.subjects.lookup,
                store=elements,
            ),
            catalogue_search=CatalogueSearch(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                catalogue=registry.catalogue,
                index=PostgresSearch(),
            ),
            catalogue_export=CatalogueExport(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                departments=registry.departments,
                procedure=procedure,
                pool_id=config.pool_id,
            ),
            catalogue=CatalogueService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                registry=services,
                procedure=procedure,
                administration=administration,
                access=authorization.access,
                broker=storage.broker,
                now=utc_now,
                quotas=config.quotas,
            ),
            accounts=AccountService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                departments=registry.departments,
                store=identity.store,
                users=identity.users,
                proposals=PostgresProposals(tags),
                enrolment=identity.enrolment,
                now=utc_now,
                enrolment_address=lambda: config.invitation_address(
                    addresses.get("enrolment", config.listen.enrolment)
                ),
                on_set_up=lambda: config.path("bootstrap-token").unlink(missing_ok=True),
                quotas=config.quotas,
            ),
            connectors=ConnectorService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                identities=identity.store,
                store=PostgresConnectorStore(tags),
                receipts=PostgresReceipts(),
                entries=audit.entries,
                program=VERSION,
                now=utc_now,
            ),
            last_use=LastUse(storage.database, identity.store),
            audit_queries=audit_queries,
            evidence=EvidenceBundles(
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                database=storage.database,
                queries=audit_queries,
                entries=audit.entries,
                log=StoredLog(audit.log, config.path("log")),
                access=authorization.access,
                public_key=config.path("log.pub").read_text,
                clock=microseconds,
            ),
            figures=FigureService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                store=PostgresKpi(),
                departments=registry.departments,
                pool_id=config.pool_id,
            ),
            lineage=LineageService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                catalogue=registry.catalogue,
                records=PostgresRecords(tags),
                lookup=registry.subjects.lookup,
                access=authorization.access,
                entries=audit.entries,
                store=PostgresKpi(),
                departments=registry.departments,
            ),
            coverage=CoverageService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                catalogue=registry.catalogue,
                records=PostgresRecords(tags),
                departments=registry.departments,
            ),
            erasures=_open_erasures(config, keys, storage, audit, authorization, tags),
            restores=Restores(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                entries=audit.entries,
                log=StoredLog(audit.log, config.path("log")),
                receipts=open_receipts(keys.secrets),
                guard=restored,
                clock=microseconds,
            ),
            audit_keys=AuditKeys(
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                entries=audit.entries,
                log=StoredLog(audit.log, config.path("log")),
                receipts=open_receipts(keys.secrets),
                secrets=keys.secrets,
                clock=microseconds,
            ),
            rules=RuleService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                store=PostgresRuleChanges(tags),
                now=utc_now,
                new_id=_new_id,
            ),
            violations=ViolationService(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                store=authorization.violations,
                access=authorization.access,
                grants=grants,
                departments=registry.departments,
                entries=audit.entries,
                new_id=_new_id,
            ),
            violation_detector=ViolationDetector(
                database=storage.database,
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                store=authorization.violations,
                entries=audit.entries,
                provider_of=partial(_provider_of, registry.catalogue),
                overdue=[OverdueUpdates(PostgresRecords(tags))],
                new_id=_new_id,
            ),
            clock=ClockService(
                enforcer=audit.enforcer,
                attributes=authorization.attributes,
                log=audit.log,
                clock=microseconds,
                machine=clock.CLOCK.machine,
            ),
            receipt_public_key=keys.receipts.public_key().public_bytes_raw() if Role.GATEWAY in roles else b"",
            now=utc_now,
        )
        return cls(
            config=config,
            pool=pool,
            enforcer=audit.enforcer,
            subjects=registry.subjects,
            approvals=registry.approvals,
            schemas_topic=registry.schemas_topic,
            catalogue=registry.catalogue,
            broker=storage.broker,
            sequencer=audit.sequencer,
            log=audit.log,
            collector=Collector(
                database=storage.database,
                log=audit.log,
                store=PostgresKpi(),
                signed_hash=SignedHashes(config.path("log")).leaf_hash,
            ),
            log_watch=LogWatch(
                audit.log.signing_state,
                config.path("log"),
                serving,
                float(config.audit.unsigned_seconds),
                independent=is_independent(url if config.database_url is not None else None),
                clock=clock.CLOCK,
            ),
            restored=restored,
            row_watch=RowWatch(storage.engine, tags, report_row, families=keys.row_families),
            row_digests=RowDigests(storage.database, _recorder(config, audit.ledger), audit.tags),
            authority_certificate=keys.authority_certificate,
            engines=(storage.engine, storage.autocommit),
            workers=workers,
            embedded=embedded,
            addresses=addresses,
        )

    def close(self) -> None:
        """Write folded entries and release every resource; the embedded PostgreSQL is stopped."""
        for what, write in (("entries", self.enforcer.close), ("authentications", self.pool.authentications.close)):
            try:
                write()
            except PoolError as error:
                _log.error(f"folded_{what}_lost", reason=error.reason)
        self.workers.close()
        self.broker.close()
        for engine in self.engines:
            engine.dispose()
        if self.embedded is not None:
            self.embedded.stop()


class _Absent:
    """Stand for what a process of these roles does not have; whatever is asked of it is refused."""

    def __init__(self, what: str, roles: frozenset[Role]) -> None:
        self._message = (
            f"{what} was asked for by a process of the role {_names(roles)}, which may not have it; "
            "expected a key of this role's list (docs/how-to/run-roles-apart.md)"
        )

    def close(self) -> None:
        """Do nothing: nothing was opened."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidError(Reason.CONFIG_INVALID, self._message)


def _absent(what: str, roles: frozenset[Role]) -> Any:
    return _Absent(what, roles)


def _names(roles: frozenset[Role]) -> str:
    return ", ".join(sorted(roles))


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys that `pool init` made, those of the process's roles (`exchange.server.roles`); the others are absent.

    A start never makes one: a lost key must be noticed, not replaced.
    """

    secrets: Secrets
    row_families: frozenset[str]
    authority: Authority
    authority_certificate: bytes
    receipts: Ed25519PrivateKey
    log: FileSigner

    @classmethod
    def read(cls, config: Config, roles: frozenset[Role]) -> Self:
        """Read those of the roles.

        Raises:
            InvalidError: CONFIG_INVALID, one is missing, damaged or open to others; says what to do.
        """
        table = keys_of(roles)
        file, log = receipts_key(config.folder), config.path("secrets", "log.key")
        reads_receipts = str(file.relative_to(config.folder)) in table.files
        if reads_receipts and not file.exists():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{file} is missing; restore it from the backup. Where there is none, `pool renew-receipts-key` makes "
                "another: every connector then stops until its department has confirmed the new key with you",
            )
        secrets = FileSecrets.open_part(config.path("secrets"), table.secrets)
        authority: Authority = (
            Authority.load(config.path("ca"), config.pool_id)
            if "ca/authority.key" in table.files
            else _absent("the authority's key", roles)
        )
        prefix = "row-tags/"
        return cls(
            RoleSecrets(secrets, table.secrets, _names(roles)),
            frozenset(name.removeprefix(prefix) for name in table.secrets.named if name.startswith(prefix)),
            authority,
            read_authority_certificate(config.path("ca")),
            read_ed25519(file) if reads_receipts else _absent("the key of receipts", roles),
            FileSigner.load(log, config.origin)
            if "secrets/log.key" in table.files
            else _absent("the log's key", roles),
        )


@dataclass(frozen=True, slots=True)
class _Storage:
    engine: sa.Engine
    autocommit: sa.Engine
    database: PostgresDatabase
    broker: Broker


def _open_storage(config: Config, keys: _Keys, url: sa.URL, roles: frozenset[Role]) -> _Storage:
    engine = create_engine(url, connections=_CONNECTIONS)
    autocommit = create_engine(url, connections=_AUTOCOMMIT_CONNECTIONS, autocommit=True)
    retry_until_available(lambda: migrations.check(engine))
    database = PostgresDatabase(engine, autocommit, accountable=True)
    if Role.GATEWAY not in roles:
        return _Storage(engine, autocommit, database, _absent("the broker of records", roles))
    _check_records_tagged(config)
    broker = retry_until_available(lambda: open_broker(config, keys.secrets.named_key(RECORDS_KEY), database))
    return _Storage(engine, autocommit, database, broker)


def _check_records_tagged(config: Config) -> None:
    """Refuse to start while stored records of before have no tags: every read of them would be refused."""
    file = records_tagged(config.folder)
    if not file.exists():
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{file} is missing: stored records have not had their first tags, or not all of them; run `pool migrate`. "
            "Where it ran on another machine, copy the file from there",
        )


@dataclass(frozen=True, slots=True)
class _Audit:
    tags: EntryTags
    entries: PostgresEntries
    ledger: AuditLedger
    enforcer: Enforcer
    authentications: Authentications
    log: PostgresLog
    sequencer: Sequencer


def _open_audit(config: Config, keys: _Keys, storage: _Storage, roles: frozenset[Role]) -> _Audit:
    process = f"{socket.gethostname()[:40]}@{uuid7(microseconds())}"
    tags = open_entry_tags(keys.secrets, roles)
    entries = PostgresEntries(storage.engine, tags, SignedHashes(config.path("log")))
    ledger = AuditLedger(entries, process=process)
    retry_until_available(lambda: ledger.open(storage.database))
    log = PostgresLog(storage.engine, tags, report=_report_entry)
    return _Audit(
        tags,
        entries,
        ledger,
        Enforcer(
            storage.database,
            ledger,
            pool_id=config.pool_id,
            clock=microseconds,
            screen=TextScreen(config.parsed_case_forms()),
            budgets=ActorBudgets(config.limits.per_minute),
        ),
        Authentications(
            storage.database,
            ledger,
            pool_id=config.pool_id,
            clock=microseconds,
            limiter=FailureLimiter(time.monotonic),
        ),
        log,
        Sequencer(log, config.path("log"), signer=keys.log, origin=config.origin, clock=microseconds)
        if Role.SEQUENCER in roles
        else _absent("the log's key", roles),
    )


def _open_tasks(
    config: Config,
    storage: "_Storage",
    audit: "_Audit",
    registry: "_Registry",
    authorization: "_Authorization",
    tags: RowTags,
) -> TaskService:
    attributes, access = authorization.attributes, authorization.access
    corrections = PostgresCorrections(tags)
    schemas = SchemaAccess(storage.database, registry.catalogue, access, rights=config.registry.as_rights())

    def parties(grant_id: str) -> Collection[str]:
        with storage.database.read() as reader:
            try:
                grant = access.get(reader, grant_id)
            except PoolError:
                return ()
        return (grant.consumer, grant.provider)

    return TaskService(
        database=storage.database,
        enforcer=audit.enforcer,
        attributes=attributes,
        sources=(
            RequestTasks(access, authorization.requests, attributes),
            CatalogueTasks(PostgresRecords(tags), attributes),
            TicketTasks(corrections, attributes),
            NoticeTasks(corrections),
            CaseTasks(PostgresViolations(tags), attributes),
            ProposalTasks(PostgresProposals(tags), PostgresIdentityStore(tags), attributes),
            ApprovalTasks(PostgresApprovals(tags), schemas.owner),
            RuleTasks(PostgresRuleChanges(tags)),
            ErasureTasks(PostgresErasures(tags), attributes),
        ),
        changes=TaskChanges(audit.entries, partial(_own_resources, storage.database, registry.catalogue), parties),
        pool_id=config.pool_id,
        now=utc_now,
    )


def open_receipts(secrets: Secrets) -> ReceiptStore:
    """Return the store of receipts: in PostgreSQL, with sealed pseudonyms."""
    return SealedReceipts(PostgresReceipts(), AuditPseudonyms(secrets, microseconds))


def _own_resources(database: PostgresDatabase, catalogue: Catalogue, department: str) -> frozenset[str]:
    with database.read() as reader:
        topics = catalogue.provided_by(reader, department)
    return frozenset({department, *map(str, topics), *(topic.subject for topic in topics)})


def _provider_of(catalogue: Catalogue, reader: Reader, topic: str) -> str | None:
    try:
        return catalogue.get(reader, Topic.parse(topic)).provider
    except PoolError:
        return None  # no topic, or one that is not in the catalogue


@dataclass(frozen=True, slots=True)
class _Registry:
    departments: Departments
    catalogue: Catalogue
    subjects: SubjectServices
    approvals: Approvals
    schemas_topic: SchemasTopic | None


def _open_registry(config: Config, database: PostgresDatabase, tags: RowTags, roles: frozenset[Role]) -> _Registry:
    departments = Departments(PostgresDepartments(tags), clock=utc_now, new_id=_new_id)
    catalogue = Catalogue(PostgresCatalogue(tags), departments, clock=utc_now, on_saved=PostgresSearch().index_entry)
    persons = Users(PostgresIdentityStore(tags)).persons
    approvals = Approvals(PostgresApprovals(tags), clock=utc_now, new_id=_new_id, persons=persons)
    store = PostgresSubjects(tags)
    outbox = PostgresOutbox(store)
    schemas_topic = open_schemas_topic(config, database, outbox) if keys_of(roles).broker else None
    writer: SubjectWriter = store
    if schemas_topic is not None:
        writer = OutboxWriter(store, store, outbox)
    subjects = SubjectServices.over(
        store,
        writer,
        governed=catalogue.governs,
        other_majors=catalogue.other_majors,
        strict=config.registry.strict_logical_types,
        validate=config.registry.validate_new_schemas,
        approved=approvals.consume,
        elements=DictionaryReferences(PostgresElements(tags)),
    )
    return _Registry(departments, catalogue, subjects, approvals, schemas_topic)


@dataclass(frozen=True, slots=True)
class _Identity:
    store: PostgresIdentityStore
    certificates: CertificateAuthenticator
    users: Users
    enrolment: Enrolment
    attributes: IdentityAttributes


def _open_identity(
    config: Config, keys: _Keys, database: PostgresDatabase, registry: _Registry, tags: RowTags
) -> _Identity:
    store = PostgresIdentityStore(tags)
    users = Users(store, lifetime=timedelta(days=config.accounts.token_days))
    return _Identity(
        store,
        CertificateAuthenticator(config.pool_id, keys.authority_certificate),
        users,
        Enrolment(keys.authority, store),
        IdentityAttributes(database, Connectors(store), registry.departments, users, now=utc_now),
    )


@dataclass(frozen=True, slots=True)
class _Authorization:
    access: PostgresAccessStore
    requests: StoredRequests
    duties: PostgresDuties
    violations: PostgresViolations
    groups: PostgresGroupStore
    attributes: AttributeProvider


def _open_authorization(
    keys: _Keys,
    database: PostgresDatabase,
    registry: _Registry,
    identity: _Identity,
    tags: RowTags,
    roles: frozenset[Role],
    now: Callable[[Reader], datetime],
) -> _Authorization:
    seal = "grant-seal"
    mac = RowMac(keys.secrets.named_key(seal)) if seal in keys_of(roles).secrets.named else _absent(seal, roles)
    access = PostgresAccessStore(mac, tags)
    attributes = AttributeProvider(
        identities=identity.attributes,
        catalogue=CatalogueAttributes(registry.catalogue, registry.subjects.lookup),
        access=access,
        rules=StoredRules(PostgresRuleChanges(tags)),
        now=now,
        database=database,
    )
    requests = StoredRequests(PostgresRequests(tags), attributes)
    return _Authorization(
        access, requests, PostgresDuties(tags), PostgresViolations(tags), PostgresGroupStore(mac), attributes
    )


@dataclass(frozen=True, slots=True)
class _Records:
    schemas: WriterSchemas
    views: ViewCache
    publishing: PublishService
    recovery: AppendRecovery
    fetching: FetchService


def _open_records(
    config: Config,
    keys: _Keys,
    storage: _Storage,
    audit: _Audit,
    registry: _Registry,
    authorization: _Authorization,
    workers: ProcessPool,
    tags: RowTags,
    restored: RestoreGuard,
    serving: ServingGuard,
) -> _Records:
    schemas = WriterSchemas(storage.database, registry.subjects.lookup, workers)
    views = ViewCache(storage.database, schemas, registry.subjects.registration, workers, alarm=_report_difference)
    pseudonymizer = Pseudonyms(keys.secrets)
    retractions = PostgresRetractions(tags)
    receipts = LaneReceipts(
        ledger=audit.ledger, store=open_receipts(keys.secrets), retractions=retractions, signer=keys.receipts
    )
    recovery = AppendRecovery(
        database=storage.database,
        enforcer=audit.enforcer,
        attributes=authorization.attributes,
        broker=storage.broker,
        receipts=receipts,
        serving=serving,
        clock=microseconds,
    )
    publishing = PublishService(
        pool_id=config.pool_id,
        database=storage.database,
        enforcer=audit.enforcer,
        attributes=authorization.attributes,
        broker=storage.broker,
        checker=schemas,
        pseudonymizer=pseudonymizer,
        receipts=receipts,
        recovery=recovery,
        restored=restored,
        serving=serving,
        clock=microseconds,
    )
    tracking = DeliveryTracking(storage.database, authorization.access, storage.broker, views)
    fetching = FetchService(
        database=storage.database,
        enforcer=audit.enforcer,
        ledger=audit.ledger,
        broker=storage.broker,
        attributes=authorization.attributes,
        access=authorization.access,
        views=views,
        pseudonymizer=pseudonymizer,
        retractions=RetractionCache(retractions, storage.database),
        disputes=DisputedValues(PostgresCorrections(tags), storage.database),
        tokens=PositionTokens(keys.secrets.grant_key, microseconds),
        tracking=tracking,
        restored=restored,
        serving=serving,
        repeats=RepeatedReleases(config.limits.repeats_per_minute),
        window=RELEASE_WINDOW,
    )
    return _Records(schemas, views, publishing, recovery, fetching)


def _open_erasures(
    config: Config,
    keys: _Keys,
    storage: _Storage,
    audit: _Audit,
    authorization: _Authorization,
    tags: RowTags,
) -> ErasureService:
    return ErasureService(
        database=storage.database,
        enforcer=audit.enforcer,
        attributes=authorization.attributes,
        broker=storage.broker,
        store=PostgresErasures(tags),
        listed=FileErasureList(
            config.path("erasures.jsonl"),
            lambda: keys.secrets.named_key("erasure-list"),  # of a gateway; other roles have no such key
        ),
        retractions=PostgresRetractions(tags),
        corrections=PostgresCorrections(tags),
        pseudonyms=Pseudonyms(keys.secrets),
        now=utc_now,
        new_id=_new_id,
    )


@dataclass(frozen=True, slots=True)
class _Corrections:
    service: CorrectionService
    reads: CorrectionReads
    upkeep: CorrectionUpkeep


def _open_corrections(
    keys: _Keys,
    storage: _Storage,
    audit: _Audit,
    registry: _Registry,
    authorization: _Authorization,
    records: _Records,
    workers: ProcessPool,
    tags: RowTags,
) -> _Corrections:
    store = PostgresCorrections(tags)
    found = CorrectionRecords(storage.broker, Pseudonyms(keys.secrets))
    shared: dict[str, Any] = {
        "database": storage.database,
        "enforcer": audit.enforcer,
        "attributes": authorization.attributes,
    }

    def as_text(value: bytes) -> str:
        schema_id, _ = unframe(value)
        with storage.database.read() as reader:
            text = records.schemas.text(reader, schema_id)
        return next(iter(json_values(workers, text, Packed.of([value])))).decode()

    return _Corrections(
        CorrectionService(
            **shared,
            access=authorization.access,
            store=store,
            records=found,
            routing=CorrectionRouting(PostgresRecords(tags), PostgresElements(tags)),
            publications=Publications(audit.entries),
            departments=registry.departments,
            retractions=PostgresRetractions(tags),
            seal=ClaimSeal(keys.secrets),
            as_text=as_text,
            now=utc_now,
            new_id=_new_id,
        ),
        CorrectionReads(**shared, access=authorization.access, store=store, records=found, now=utc_now),
        CorrectionUpkeep(
            **shared,
            store=store,
            records=found,
            recipients=Recipients(storage.database, authorization.access, audit.entries, found),
            now=utc_now,
            new_id=_new_id,
        ),
    )


def _database_clock(reader: Reader) -> datetime:
    """Return the database's time: the only clock for the validity of grants."""
    moment: datetime = connection_of(reader).execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    return moment


def _database(config: Config, *, own: bool) -> tuple[EmbeddedPostgres | None, sa.URL]:
    url = config.database_url
    if url is not None:
        return None, sa.make_url(url)
    embedded = EmbeddedPostgres(config.folder)
    if own:
        return embedded, embedded.start()
    return None, sa.make_url(embedded.url_file.read_text().strip())


def _recorder(config: Config, ledger: AuditLedger) -> Callable[[UnitOfWork, str, Mapping[str, Json]], None]:
    """Return a function that writes an entry of the process itself, which no rule decides on."""
    actor = Actor(kind=ActorKind.MACHINE, id="sequencer", department="", role=AccountRole.OPERATOR)

    def record(work: UnitOfWork, action: str, data: Mapping[str, Json]) -> None:
        now = microseconds()
        entry = AuditEntry(
            pool=config.pool_id,
            id=uuid7(now),
            at=now,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=action,
            resource=config.pool_id,
            data=data,
        )
        ledger.write(work, [entry])

    return record


def _report_entry(entry: str, process: str) -> None:
    metrics.ENTRIES_REFUSED.inc()
    _log.error("entry_refused", entry=entry[:40], process=process[:200])


def _report_difference(text: str) -> None:
    metrics.ENGINE_DIFFERENCES.inc()
    _log.error("engines_differ", view=text)


def _new_id() -> str:
    return uuid7(microseconds())
