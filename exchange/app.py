"""The composition root: the one place that knows which adapters are in use.

App.open(config)   databases, broker, rooms, gate, pool; nothing listens yet
exchange/serve.py  the listeners and the background work of each role
"""

import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange import metrics, migrations
from exchange.access.postgres import PostgresAccessStore
from exchange.access.seal import Seals
from exchange.administration import Administration, Registry
from exchange.audit.ledger import Ledger
from exchange.audit.note import FileSigner
from exchange.audit.postgres import PostgresEntries, PostgresReceipts
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.proof import behind, prove
from exchange.audit.sequencer import Sequencer
from exchange.auditing import Auditing
from exchange.broker.kafka import KafkaBroker
from exchange.broker.kafka_settings import KafkaSettings, OnBrokenVersion
from exchange.broker.port import Broker
from exchange.broker.postgres import PostgresBroker
from exchange.config import Config
from exchange.config import KafkaBroker as KafkaSection
from exchange.connections import connect
from exchange.embedded import EmbeddedPostgres
from exchange.facts import Facts, Look
from exchange.fetch import Fetching
from exchange.gate import Gate
from exchange.granting import Granting, ViewSchemas
from exchange.identity.authority import Authority, Peers
from exchange.identity.enrolment import Connectors, Enrolment
from exchange.identity.keyfile import read_ed25519
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.pseudonyms import Pseudonyms, partitions
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import Users
from exchange.pool import Pool
from exchange.publish import Publishing
from exchange.release import RELEASE_WINDOW
from exchange.rooms import CatalogueRoom, IdentityRoom
from exchange.schemas_topic import SchemasTopic, read_topic
from exchange.starting import patiently
from exchange.views import Schemas, Views
from exchange.work import PostgresWorks, Work, connection_of
from exchange.workers import Workers
from registry.approvals import Approvals
from registry.catalogue import Catalogue
from registry.departments import Departments
from registry.outbox import PublishedSubjects
from registry.postgres import PostgresSubjects, joining
from registry.postgres_approvals import PostgresApprovals
from registry.postgres_directory import PostgresCatalogue, PostgresDepartments
from registry.postgres_outbox import PostgresOutbox
from registry.settings import Configuration
from registry.store import SubjectStore
from registry.subjects import Subjects, is_view
from registry.topic_records import Record
from schemas.errors import InvalidError, PoolError, Reason
from schemas.identifiers import uuid7
from schemas.names import Topic

__all__ = ["App", "microseconds", "receipts_key"]

_log = structlog.get_logger()
_CONNECTIONS = 24  # threads of one process that hold connections to PostgreSQL at once
_READING = 12  # more, for what the registry looks up: as many as its threads, and some


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One process of a pool."""

    config: Config
    pool: Pool
    gate: Gate
    subjects: Subjects
    approvals: Approvals
    schemas_topic: SchemasTopic | None
    catalogue: Catalogue
    broker: Broker
    sequencer: Sequencer
    log: PostgresLog
    authority: Authority
    engines: tuple[sa.Engine, ...]
    workers: Workers
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
        patiently(lambda: migrations.check(engine))
        works = PostgresWorks(engine)
        broker = patiently(lambda: _broker(config, works))
        secrets, authority = keys.secrets, keys.authority
        ledger = Ledger(PostgresEntries(engine), process=f"{socket.gethostname()[:40]}@{uuid7(microseconds())}")
        patiently(lambda: ledger.open(works))
        gate = Gate(works, ledger, pool_id=config.pool_id, clock=microseconds)
        access = PostgresAccessStore(Seals(secrets.named_key("grant-seal")))
        identities = PostgresIdentityStore()
        departments = Departments(PostgresDepartments(engine), clock=utc_now, new_id=_new_id)
        catalogue = Catalogue(PostgresCatalogue(engine), departments, clock=utc_now)
        schemas_topic = _schemas_topic(config, engine)
        store: SubjectStore = PostgresSubjects(engine, single)
        if schemas_topic is not None:
            store = PublishedSubjects(store, PostgresOutbox(engine))
        configuration = Configuration(store)
        approvals = Approvals(PostgresApprovals(engine), clock=utc_now, new_id=_new_id)
        subjects = Subjects(
            store,
            configuration,
            governed=_Governed(catalogue),
            strict=config.registry.strict_logical_types,
            validate=config.registry.validate_new_schemas,
            approved=approvals.spend,
        )
        workers = Workers(config.limits.workers, replaced=lambda why: metrics.ENGINES_REPLACED.labels(why).inc())
        schemas = Schemas(subjects, workers)
        views = Views(schemas, subjects, workers, alarm=_alarm_engine)
        connectors, users = Connectors(identities), Users(identities)
        look = _look(works)
        identity_room = IdentityRoom(look, connectors, departments, now=utc_now)
        facts = Facts(
            identities=identity_room,
            catalogue=CatalogueRoom(catalogue, subjects),
            access=access,
            now=database_clock,
            look=look,
        )
        pseudonyms = Pseudonyms(secrets)
        addresses: dict[str, str] = {}
        log = PostgresLog(engine)
        pool = Pool(
            pool_id=config.pool_id,
            works=works,
            looks=PostgresWorks(single),
            peers=Peers(config.pool_id, authority.certificate),
            users=users,
            gate=gate,
            identities=identity_room,
            schemas=schemas,
            publishing=Publishing(
                pool_id=config.pool_id,
                works=works,
                gate=gate,
                ledger=ledger,
                receipts=PostgresReceipts(),
                broker=broker,
                facts=facts,
                pseudonyms=pseudonyms.pseudonyms,
                partitions=partitions,
                check_records=schemas.check_records,
                sign=keys.receipts.sign,
                clock=microseconds,
            ),
            fetching=Fetching(
                works=works,
                gate=gate,
                ledger=ledger,
                broker=broker,
                facts=facts,
                access=access,
                view_of=views,
                record_keys=pseudonyms.record_keys,
                schema_text=schemas.text,
                window=RELEASE_WINDOW,
            ),
            granting=Granting(
                pool_id=config.pool_id,
                works=works,
                gate=gate,
                access=access,
                facts=facts,
                views=ViewSchemas(check=views.check, register=views.register),
                window=RELEASE_WINDOW,
                clock=microseconds,
            ),
            administration=Administration(
                works=works,
                gate=gate,
                facts=facts,
                registry=Registry(departments, catalogue, subjects),
                broker=broker,
                enrolment=Enrolment(authority, identities),
                users=users,
                now=utc_now,
                joined=join_registry,
                enrolment_address=lambda: addresses.get("enrolment", config.listen.enrolment),
            ),
            auditing=Auditing(
                gate=gate,
                facts=facts,
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
            gate=gate,
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
            self.gate.close()
        except PoolError as error:
            _log.error("folded_denials_lost", reason=error.reason)
        self.workers.close()
        self.broker.close()
        for engine in self.engines:
            engine.dispose()
        if self.embedded is not None:
            self.embedded.stop()


def receipts_key(folder: Path) -> Path:
    """Give the file of the key that signs receipts, in a pool's folder."""
    return folder / "secrets" / "receipts.key"


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


def microseconds() -> int:
    """Give the time of this process's clock: microseconds since 1970 UTC."""
    return time.time_ns() // 1_000


def utc_now() -> datetime:
    """Give the time of this process's clock, aware."""
    return datetime.now(UTC)


def database_clock(work: Work) -> datetime:
    """Give the database's time: the pool's one clock for the validity of grants."""
    moment: datetime = connection_of(work).execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    return moment


def join_registry(work: Work) -> AbstractContextManager[None]:
    """Let the registry's stores take part in a transaction of the pool."""
    return joining(connection_of(work))


def _look(works: PostgresWorks) -> Look:
    @contextmanager
    def look() -> Iterator[Work]:
        with works.begin() as work, join_registry(work):
            yield work

    return look


class _Governed:
    """Says under which subjects every field must be classified: those of catalogued resources."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __call__(self, subject: str) -> bool:
        if is_view(subject) or not subject.endswith("-value"):
            return False
        try:
            self._catalogue.get(Topic.parse(subject.removesuffix("-value")))
        except PoolError as error:
            if error.reason in {Reason.NAME_INVALID, Reason.RESOURCE_UNKNOWN}:
                return False
            raise
        return True


def _database(config: Config, *, own: bool) -> tuple[EmbeddedPostgres | None, sa.URL]:
    url = config.database_url
    if url is not None:
        return None, sa.make_url(url)
    embedded = EmbeddedPostgres(config.folder)
    if own:
        return embedded, embedded.start()
    return None, sa.make_url(embedded.url_file.read_text().strip())


def _broker(config: Config, works: PostgresWorks) -> Broker:
    section = config.broker
    if not isinstance(section, KafkaSection):
        return PostgresBroker(works, upkeep=timedelta(minutes=10))
    broker = KafkaBroker(_kafka(config, section))
    try:
        broker.check(lambda sentence: _log.warning("unsafe_kafka_version", message=sentence))
    except PoolError:
        broker.close()
        raise
    return broker


def _schemas_topic(config: Config, engine: sa.Engine) -> SchemasTopic | None:
    found = _topic_of(config)
    return None if found is None else SchemasTopic(found[0], PostgresOutbox(engine), name=found[1])


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
    """Give how to reach the topic of schemas, and its name; None where the pool has none."""
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
        raise behind()
    return prove(folder, index)


def _latest(log: PostgresLog) -> tuple[int, str] | None:
    row = log.latest_checkpoint()
    return None if row is None else (row.size, row.note)


def _alarm_engine(text: str) -> None:
    metrics.ENGINE_DIFFERENCES.inc()
    _log.error("engines_differ", view=text)


def _new_id() -> str:
    return uuid7(microseconds())
