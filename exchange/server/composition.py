"""The composition root: the one place that knows which adapters are in use.

App.open(config)   databases, broker, rooms, gate, pool; nothing listens yet
exchange/server/listeners.py  the listeners and the background work of each role
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange import metrics, migrations
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.audit.ledger import AuditLedger
from exchange.audit.note import FileSigner
from exchange.audit.postgres import PostgresEntries, PostgresReceipts
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.proof import log_behind, prove
from exchange.audit.sequencer import Sequencer
from exchange.authorization.attribute_sources import CatalogueAttributes, IdentityAttributes
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.release_window import RELEASE_WINDOW
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import KafkaSettings, OnBrokenVersion
from exchange.broker.port import Broker
from exchange.broker.postgres.broker import PostgresBroker
from exchange.config import Config
from exchange.config import KafkaBroker as KafkaSection
from exchange.control.administration import Administration, RegistryServices
from exchange.control.audit_queries import AuditQueries
from exchange.control.grants import GrantService, ViewSchemas
from exchange.engines.process_pool import ProcessPool
from exchange.identity.authority import Authority, CertificateAuthenticator
from exchange.identity.enrolment import Connectors, Enrolment
from exchange.identity.keyfile import read_ed25519
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.pseudonyms import Pseudonyms
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import Users
from exchange.pool import Pool
from exchange.records.append_recovery import AppendRecovery
from exchange.records.fetch import FetchService
from exchange.records.publish import PublishService
from exchange.records.receipts import LaneReceipts
from exchange.records.view_cache import ViewCache
from exchange.records.writer_schemas import WriterSchemas
from exchange.server.clock import microseconds, utc_now
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.key_files import receipts_key
from exchange.server.schemas_topic import SchemasTopic, read_topic
from exchange.server.startup_retry import retry_until_available
from registry.database.connection_pool import connect
from registry.database.unit_of_work import PostgresDatabase, Reader, connection_of
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.governance.approvals import Approvals
from registry.postgres.approvals import PostgresApprovals
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import OutboxWriter
from registry.schemas_topic.records import Record
from registry.subjects.services import SubjectServices
from registry.subjects.store import SubjectWriter
from schemas.errors import InvalidError, PoolError, Reason
from schemas.identifiers import uuid7

__all__ = ["App"]

_log = structlog.get_logger()
_CONNECTIONS = 24  # threads of one process that hold connections to PostgreSQL at once
_READING = 12  # more, for what the registry looks up: as many as its threads, and some


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
    authority: Authority
    engines: tuple[sa.Engine, ...]
    workers: ProcessPool
    embedded: EmbeddedPostgres | None
    addresses: dict[str, str]  # listener → host:port, filled in when they are bound

    @classmethod
    def open(cls, config: Config, *, own_database: bool = True) -> Self:
        """Connect everything. *own_database*: start the embedded PostgreSQL, where no other is configured.

        Raises:
            InvalidError: CONFIG_INVALID, keys or database are not what the configuration says.
            UnavailableError: the database or the broker does not answer, for `starting.PATIENCE`.
        """
        keys = _Keys.read(config)  # before anything is started: a start without one of them must change nothing
        embedded, url = _database(config, own=own_database)
        try:
            return cls._connect(config, keys, embedded, url)
        except BaseException:
            if embedded is not None:
                embedded.stop()
            raise

    @classmethod
    def _connect(cls, config: Config, keys: "_Keys", embedded: EmbeddedPostgres | None, url: sa.URL) -> Self:
        engine = connect(url, connections=_CONNECTIONS)
        single = connect(url, connections=_READING, single=True)
        retry_until_available(lambda: migrations.check(engine))
        database = PostgresDatabase(engine, single)
        broker = retry_until_available(lambda: _broker(config, database))
        secrets, authority = keys.secrets, keys.authority
        ledger = AuditLedger(PostgresEntries(engine), process=f"{socket.gethostname()[:40]}@{uuid7(microseconds())}")
        retry_until_available(lambda: ledger.open(database))
        enforcer = Enforcer(database, ledger, pool_id=config.pool_id, clock=microseconds)
        access = PostgresAccessStore(RowMac(secrets.named_key("grant-seal")))
        identities = PostgresIdentityStore()
        departments = Departments(PostgresDepartments(), clock=utc_now, new_id=_new_id)
        catalogue = Catalogue(PostgresCatalogue(), departments, clock=utc_now)
        schemas_topic = _schemas_topic(config, database)
        store = PostgresSubjects()
        writer: SubjectWriter = store
        if schemas_topic is not None:
            writer = OutboxWriter(store, store, PostgresOutbox())
        approvals = Approvals(PostgresApprovals(), clock=utc_now, new_id=_new_id)
        subjects = SubjectServices.over(
            store,
            writer,
            governed=catalogue.governs,
            strict=config.registry.strict_logical_types,
            validate=config.registry.validate_new_schemas,
            approved=approvals.spend,
        )
        workers = ProcessPool(config.limits.workers, replaced=lambda why: metrics.ENGINES_REPLACED.labels(why).inc())
        schemas = WriterSchemas(database, subjects.lookup, workers)
        views = ViewCache(database, schemas, subjects.registration, workers, alarm=_alarm_engine)
        connectors, users = Connectors(identities), Users(identities)
        identity_room = IdentityAttributes(database, connectors, departments, now=utc_now)
        attributes = AttributeProvider(
            identities=identity_room,
            catalogue=CatalogueAttributes(catalogue, subjects.lookup),
            access=access,
            now=database_clock,
            database=database,
        )
        pseudonyms = Pseudonyms(secrets)
        receipts = LaneReceipts(ledger=ledger, store=PostgresReceipts(), signer=keys.receipts)
        recovery = AppendRecovery(
            database=database,
            enforcer=enforcer,
            attributes=attributes,
            broker=broker,
            receipts=receipts,
            clock=microseconds,
        )
        addresses: dict[str, str] = {}
        log = PostgresLog(engine)
        pool = Pool(
            pool_id=config.pool_id,
            database=database,
            peers=CertificateAuthenticator(config.pool_id, authority.certificate),
            users=users,
            enforcer=enforcer,
            identities=identity_room,
            schemas=schemas,
            publishing=PublishService(
                pool_id=config.pool_id,
                database=database,
                enforcer=enforcer,
                attributes=attributes,
                broker=broker,
                checker=schemas,
                pseudonymizer=pseudonyms,
                receipts=receipts,
                recovery=recovery,
                clock=microseconds,
            ),
            recovery=recovery,
            fetching=FetchService(
                database=database,
                enforcer=enforcer,
                ledger=ledger,
                broker=broker,
                attributes=attributes,
                access=access,
                views=views,
                pseudonymizer=pseudonyms,
            ),
            granting=GrantService(
                pool_id=config.pool_id,
                database=database,
                enforcer=enforcer,
                access=access,
                attributes=attributes,
                views=ViewSchemas(check=views.check, register=views.register),
                window=RELEASE_WINDOW,
                clock=microseconds,
            ),
            administration=Administration(
                database=database,
                enforcer=enforcer,
                attributes=attributes,
                registry=RegistryServices(departments, catalogue, subjects),
                broker=broker,
                enrolment=Enrolment(authority, identities),
                users=users,
                now=utc_now,
                enrolment_address=lambda: addresses.get("enrolment", config.listen.enrolment),
            ),
            auditing=AuditQueries(
                enforcer=enforcer,
                attributes=attributes,
                entries=PostgresEntries(engine),
                prove=lambda entry_id: _prove(log, config.path("log"), entry_id),
                checkpoint=lambda: _latest(log),
            ),
            receipt_public_key=keys.receipts.public_key().public_bytes_raw(),
            now=utc_now,
        )
        sequencer = Sequencer(
            log,
            config.path("log"),
            signer=keys.log,
            origin=config.origin,
            clock=microseconds,
        )
        return cls(
            config=config,
            pool=pool,
            enforcer=enforcer,
            subjects=subjects,
            approvals=approvals,
            schemas_topic=schemas_topic,
            catalogue=catalogue,
            broker=broker,
            sequencer=sequencer,
            log=log,
            authority=authority,
            engines=(engine, single),
            workers=workers,
            embedded=embedded,
            addresses=addresses,
        )

    def close(self) -> None:
        """Write what is folded, and give everything back; the embedded PostgreSQL is stopped."""
        try:
            self.enforcer.close()
        except PoolError as error:
            _log.error("folded_denials_lost", reason=error.reason)
        self.workers.close()
        self.broker.close()
        for engine in self.engines:
            engine.dispose()
        if self.embedded is not None:
            self.embedded.stop()


@dataclass(frozen=True, slots=True)
class _Keys:
    """What `pool init` made once. None is ever made by a start: a lost key must be noticed, not replaced."""

    secrets: FileSecrets
    authority: Authority
    receipts: Ed25519PrivateKey
    log: FileSigner

    @classmethod
    def read(cls, config: Config) -> Self:
        """Read them all.

        Raises:
            InvalidError: CONFIG_INVALID, one is missing, damaged or open to others; says what to do.
        """
        file = receipts_key(config.folder)
        if not file.exists():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{file} is missing; restore it from the backup. Where there is none, `pool renew-receipts-key` makes "
                "another: every connector then stops until its department has confirmed the new key with you",
            )
        return cls(
            FileSecrets.open(config.path("secrets")),
            Authority.load(config.path("ca"), config.pool_id),
            read_ed25519(file),
            FileSigner.load(config.path("secrets", "log.key"), config.origin),
        )


def database_clock(reader: Reader) -> datetime:
    """Return the database's time: the pool's one clock for the validity of grants."""
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


def _broker(config: Config, database: PostgresDatabase) -> Broker:
    section = config.broker
    if not isinstance(section, KafkaSection):
        return PostgresBroker(database, maintenance_period=timedelta(minutes=10))
    broker = KafkaBroker(_kafka(config, section))
    try:
        broker.check(lambda sentence: _log.warning("unsafe_kafka_version", message=sentence))
    except PoolError:
        broker.close()
        raise
    return broker


def _schemas_topic(config: Config, database: PostgresDatabase) -> SchemasTopic | None:
    found = _topic_of(config)
    return None if found is None else SchemasTopic(found[0], database, PostgresOutbox(), name=found[1])


def schemas_on_topic(config: Config) -> Iterator[Record]:
    """Read what lies on the topic of schemas; the database is not asked, for it may be lost.

    Raises:
        InvalidError: CONFIG_INVALID, the pool has no such topic.
        UnavailableError: BROKER_UNAVAILABLE.
        CorruptError: LOG_CORRUPT, a record is no text.
    """
    found = _topic_of(config)
    if found is None:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "got a pool without a topic of schemas; expected `topic` under [registry], and Kafka as the broker",
        )
    return read_topic(*found)


def _topic_of(config: Config) -> tuple[KafkaSettings, str] | None:
    """Return how to reach the topic of schemas, and its name; None where the pool has none."""
    if config.registry.topic is None or not isinstance(config.broker, KafkaSection):
        return None
    return _kafka(config, config.broker), config.registry.topic


def _kafka(config: Config, section: KafkaSection) -> KafkaSettings:
    strictness = {None: OnBrokenVersion.AUTO, True: OnBrokenVersion.REFUSE, False: OnBrokenVersion.WARN}
    return KafkaSettings(
        bootstrap=section.bootstrap,
        ca=_below(config.folder, section.authority),
        certificate=_below(config.folder, section.certificate),
        key=_below(config.folder, section.key),
        replication=section.replication,
        on_broken_version=strictness[section.refuse_unsafe_versions],
    )


def _below(folder: Path, path: Path) -> Path:
    return path if path.is_absolute() else folder / path


def _prove(log: PostgresLog, folder: Path, entry_id: str) -> str:
    index = log.index_of(entry_id)
    if index is None:
        raise log_behind()
    return prove(folder, index)


def _latest(log: PostgresLog) -> tuple[int, str] | None:
    row = log.latest_checkpoint()
    return None if row is None else (row.size, row.note)


def _alarm_engine(text: str) -> None:
    metrics.ENGINE_DIFFERENCES.inc()
    _log.error("engines_differ", view=text)


def _new_id() -> str:
    return uuid7(microseconds())
