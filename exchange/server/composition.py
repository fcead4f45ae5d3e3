"""Composition root: chooses the adapters and connects all objects of a process, one package at a time.

App.open(config)                database, broker and services; nothing listens yet
exchange/server/assembly        adapters in use and the services over them, a module for each subject
exchange/server/listeners.py    the listeners of each role
exchange/server/background.py   the background loops of each role
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import sqlalchemy as sa
import structlog

from exchange.audit.postgres_log import PostgresLog
from exchange.audit.sequencer import Sequencer
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.schema_access import SchemaAccess
from exchange.broker.port import Broker
from exchange.config import Config
from exchange.engines.process_pool import ProcessPool
from exchange.kpi.collector import Collector
from exchange.pool import Pool
from exchange.server.assembly.audit import open_receipts
from exchange.server.assembly.background import open_background_work
from exchange.server.assembly.catalogue import open_catalogue
from exchange.server.assembly.corrections import open_corrections
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.hub import open_hub_rules
from exchange.server.assembly.oversight import open_oversight
from exchange.server.assembly.participants import open_participants
from exchange.server.assembly.process_keys import ProcessKeys
from exchange.server.assembly.records import open_records
from exchange.server.assembly.sharing import open_sharing
from exchange.server.assembly.storage import open_database
from exchange.server.assembly.tasks import open_tasks
from exchange.server.clock import utc_now
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.roles import Role
from exchange.server.row_digest import RowDigests
from exchange.server.row_watch import RowWatch
from exchange.server.schemas_topic import SchemasTopic
from exchange.server.supervision.log_watch import LogWatch
from registry.database.unit_of_work import Reader, connection_of
from registry.directory.catalogue import Catalogue
from registry.governance.approvals import Approvals
from registry.subjects.services import SubjectServices
from schemas.errors import PoolError

__all__ = ["App", "open_receipts"]

_log = structlog.get_logger()


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
        keys = ProcessKeys.read(
            config, roles
        )  # before anything is started: a start without one of them must change nothing
        embedded, url = open_database(config, own=own_database)
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
        keys: ProcessKeys,
        roles: frozenset[Role],
        embedded: EmbeddedPostgres | None,
        url: sa.URL,
        *,
        engines: int,
        now: Callable[[Reader], datetime],
    ) -> Self:
        core = Dependencies.open(config, keys, roles, url, engines=engines, window=RELEASE_WINDOW, now=now)
        background = open_background_work(core, url)
        return cls(
            config=config,
            pool=_open_pool(core, roles),
            enforcer=core.audit.enforcer,
            subjects=core.registry.subjects,
            approvals=core.registry.approvals,
            schemas_topic=core.registry.schemas_topic,
            catalogue=core.registry.catalogue,
            broker=core.storage.broker,
            sequencer=core.audit.sequencer,
            log=core.audit.log,
            collector=background.collector,
            log_watch=background.log_watch,
            restored=core.restored,
            row_watch=background.row_watch,
            row_digests=background.row_digests,
            authority_certificate=keys.authority_certificate,
            engines=(core.storage.engine, core.storage.autocommit),
            workers=core.workers,
            embedded=embedded,
            addresses=core.addresses,
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


def _open_pool(core: Dependencies, roles: frozenset[Role]) -> Pool:
    records = open_records(core)
    sharing = open_sharing(core, records)
    catalogue = open_catalogue(core)
    participants = open_participants(core, records, sharing, catalogue)
    corrections = open_corrections(core, records)
    oversight = open_oversight(core, sharing)
    return Pool(
        pool_id=core.config.pool_id,
        database=core.storage.database,
        peers=core.identity.certificates,
        users=core.identity.users,
        authentications=core.audit.authentications,
        enforcer=core.audit.enforcer,
        identities=core.identity.attributes,
        schemas=records.schemas,
        schema_access=SchemaAccess(
            core.storage.database,
            core.registry.catalogue,
            core.authorization.access,
            rights=core.config.registry.as_rights(),
        ),
        publishing=records.publishing,
        recovery=records.recovery,
        fetching=records.fetching,
        fetching_together=records.fetching_together,
        erasures=records.erasures,
        grants=sharing.grants,
        grant_reads=sharing.grant_reads,
        grant_permissions=sharing.grant_permissions,
        grant_use=sharing.grant_use,
        row_counter=sharing.row_counter,
        return_flow=sharing.return_flow,
        request_reads=sharing.request_reads,
        request_clocks=sharing.request_clocks,
        duties=sharing.duties,
        administration=catalogue.administration,
        catalogue=catalogue.catalogue,
        elements=catalogue.elements,
        element_use=catalogue.element_use,
        catalogue_search=catalogue.catalogue_search,
        catalogue_export=catalogue.catalogue_export,
        zones=catalogue.zones,
        departments=participants.departments,
        accounts=participants.accounts,
        connectors=participants.connectors,
        last_use=participants.last_use,
        tasks=open_tasks(core),
        corrections=corrections.service,
        correction_reads=corrections.reads,
        correction_upkeep=corrections.upkeep,
        audit_queries=oversight.audit_queries,
        evidence=oversight.evidence,
        audit_keys=oversight.audit_keys,
        restores=oversight.restores,
        figures=oversight.figures,
        lineage=oversight.lineage,
        coverage=oversight.coverage,
        rules=oversight.rules,
        predicates=sharing.predicates,
        violations=oversight.violations,
        violation_detector=oversight.violation_detector,
        clock=oversight.clock,
        hub_rules=open_hub_rules(core),
        receipt_public_key=core.keys.receipts.public_key().public_bytes_raw() if Role.GATEWAY in roles else b"",
        now=utc_now,
    )


def _database_clock(reader: Reader) -> datetime:
    """Return the database's time: the only clock for the validity of grants."""
    moment: datetime = connection_of(reader).execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    return moment
