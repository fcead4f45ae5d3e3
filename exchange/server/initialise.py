"""Initialisation of a pool (`pool init`): its folder, keys, tables and first token; migration; key renewal.

pool.toml            the configuration
ca/                  certificate authority and the listeners' certificate
secrets/             keys of pseudonyms, the log's and the receipts' signing keys; 0600
log/                 tiles and checkpoint (C2SP tlog-tiles); may be public
pg/                  the embedded PostgreSQL, where no other database is named
bootstrap-token      token that adds the first two data authorities, and ends with the second; 0600
log.pub              the log's public key: give it, with a checkpoint, to those who verify the log
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
import structlog

from exchange import migrations
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.audit.ledger import AuditLedger
from exchange.audit.note import FileSigner
from exchange.audit.postgres import PostgresEntries
from exchange.audit.search.postgres import fill_search_columns
from exchange.broker.postgres.block_tags import BlockTags
from exchange.broker.postgres.first_tags import tag_untagged
from exchange.config import Config
from exchange.identity.authority import Authority
from exchange.identity.keyfile import create_ed25519, create_private, read_ed25519
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import Users, digest_of, new_token
from exchange.server.brokers import kafka_untagged
from exchange.server.clock import microseconds, utc_now
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.first_tags import FirstTags, mark_all, tag_existing_rows
from exchange.server.key_files import RECORDS_KEY, receipts_key, records_tagged, untagged_text
from exchange.server.row_tags import open_entry_tags, open_row_tags
from registry.database.errors import connection_failure
from registry.database.unit_of_work import PostgresDatabase, UnitOfWork
from schemas.access import Actor, ActorKind, Role
from schemas.audit import ROWS_CHANGED, AuditEntry
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.identifiers import random_id, uuid7

__all__ = ["check_server_certificate", "initialise", "migrate", "renew_receipts_key", "renew_server_certificate"]

_log = structlog.get_logger()

_RENEW_BEFORE = timedelta(days=30)


def initialise(
    folder: Path,
    *,
    pool_id: str,
    host: str = "localhost",
    origin: str | None = None,
    listen: dict[str, str] | None = None,
    database: str | None = None,
    dev: bool = False,
) -> Config:
    """Create a pool's folder, its keys, its database's tables and the token that adds its first accounts.

    Args:
        folder: empty or absent.
        pool_id: short and lower-case; part of every certificate and entry, and never changes.
        host: name by which departments reach the gateway.
        origin: the log's name; `<host>/audit` if not given.
        listen: addresses that differ from the defaults.
        database: `${file:…}` or `${env:…}`; None = embedded.
        dev: marks the folder: a plain `serve` refuses it.

    Raises:
        InvalidError: ALREADY_EXISTS, the folder or the database holds a pool; CONFIG_INVALID, *database* refers
            to nothing; NAME_INVALID.
        UnavailableError: the database does not answer.
    """
    if (folder / "pool.toml").exists():
        raise InvalidError(Reason.ALREADY_EXISTS, f"{folder} holds a pool already; nothing was changed")
    if not host or host.strip("[]") in {"0.0.0.0", "::"}:  # noqa: S104 - it is refused
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"--host: got {host!r}, which nobody can call; expected the name or address by which departments reach the "
            "gateway",
        )
    origin = origin or f"{host}/audit"
    _check_database(
        Config(folder=folder.resolve(), pool_id=pool_id, origin=origin, gateway="localhost:0", database=database)
    )
    folder.mkdir(parents=True, exist_ok=True)
    now = utc_now()
    authority = Authority.create(folder / "ca", pool_id, now)
    FileSecrets.create(folder / "secrets")
    create_ed25519(receipts_key(folder))
    signer = FileSigner.create(folder / "secrets" / "log.key", origin)
    (folder / "log.pub").write_text(f"{signer.key}\n")
    (folder / "log").mkdir(exist_ok=True)
    port = (listen or {}).get("grpc", "127.0.0.1:7443").rsplit(":", 1)[1]
    _write_config(
        folder, pool_id=pool_id, origin=origin, gateway=f"{host}:{port}", listen=listen, database=database, dev=dev
    )
    config = Config.load(folder)
    _issue_server_certificate(folder, authority, config.server_names())
    _prepare_database(config)
    return config


def migrate(config: Config, progress: Callable[[str, int, int], None] = lambda *_: None) -> FirstTags:
    """Upgrade the database to the revision of this program; by a command only, never at a start.

    Stored records get their first tags, once for each pool, and earlier entries of the log the columns of its search.

    Args:
        config: of the pool.
        progress: called with a topic's name, the blocks of it that were tagged, and their number.

    Returns:
        What the first tagging of rows that were there before did, once for each table.

    Raises:
        UnavailableError: the database does not answer.
        InvalidError: CONFIG_INVALID, the keys cannot be read.
        RecordsCorruptError: a stored record has a tag that does not fit.
    """
    secrets = config.path("secrets")
    keys = FileSecrets.open(secrets)
    with _Database(config) as engine:
        migrations.upgrade(engine)
        fill_search_columns(engine)
        if not records_tagged(config.folder).exists():
            key = keys.named_key(RECORDS_KEY)
            tag_untagged(PostgresDatabase(engine), BlockTags(key), progress)
            create_private(records_tagged(config.folder), untagged_text(kafka_untagged(config, key)))
        database = PostgresDatabase(engine, accountable=True)
        record = _recorder(config, engine, database, "migrate")
        entry_tags = open_entry_tags(keys, frozenset())
        return tag_existing_rows(database, open_row_tags(keys), entry_tags, secrets, record)


def renew_receipts_key(config: Config) -> bytes:
    """Replace the key that signs receipts, keep the old one beside it, and return the new public key, 32 bytes.

    Connectors store the key that they have seen, and stop when they see another: see the runbook.

    Raises:
        InvalidError: CONFIG_INVALID, the one there is cannot be read.
    """
    path = receipts_key(config.folder)
    if path.exists():
        old = read_ed25519(path).public_key().public_bytes_raw().hex()
        path.rename(path.with_name(f"receipts-{old[:16]}.key"))
    return create_ed25519(path).public_key().public_bytes_raw()


def renew_server_certificate(config: Config, authority: Authority) -> None:
    """Renew the listeners' key and certificate; called at each start.

    It is renewed if it is missing, within a month of its expiry, or lacks a name under which the configuration says
    that a listener is called. No client stores the certificate: departments trust the authority that signs it.
    """
    names = config.server_names()
    expiry_file = config.path("ca", "server.json")
    with _lock_folder(config.path("ca")):  # concurrent starts would mix one's key and another's certificate
        if all(config.path("ca", name).exists() for name in ("server.json", "server.key", "server.crt")):
            issued = json.loads(expiry_file.read_text())
            lasts = issued["not_after"] > (utc_now() + _RENEW_BEFORE).timestamp()
            if lasts and set(names) <= set(issued.get("names", [])):
                return
        _issue_server_certificate(config.folder, authority, names)


def check_server_certificate(config: Config) -> None:
    """Check the listeners' key and certificate where the authority's key is not read; log that they end soon.

    Raises:
        InvalidError: CONFIG_INVALID, one is missing.
    """
    files = [config.path("ca", name) for name in ("server.key", "server.crt", "server.json")]
    for file in files:
        if not file.exists():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{file} is missing; start a gateway, which makes it, and copy it or export the keys of the role again",
            )
    issued = json.loads(files[-1].read_text())
    if issued["not_after"] <= (utc_now() + _RENEW_BEFORE).timestamp():
        _log.warning("server_certificate_ends_soon", file=str(files[1]))
    if missing := sorted(set(config.server_names()) - set(issued.get("names", config.server_names()))):
        _log.warning("server_certificate_lacks_names", file=str(files[1]), names=missing)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder for the duration of the block."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _issue_server_certificate(folder: Path, authority: Authority, names: list[str]) -> None:
    identity = authority.server(names, utc_now())
    key = folder / "ca" / "server.key"
    key.unlink(missing_ok=True)
    create_private(key, identity.key)
    (folder / "ca" / "server.crt").write_bytes(identity.certificate)
    issued = {"not_after": identity.not_after.timestamp(), "names": names}
    (folder / "ca" / "server.json").write_text(json.dumps(issued) + "\n")


def _write_config(
    folder: Path,
    *,
    pool_id: str,
    origin: str,
    gateway: str,
    listen: dict[str, str] | None,
    database: str | None,
    dev: bool,
) -> None:
    lines = [
        "# The pool's configuration; docs/reference/configuration.md explains every key.",
        f"pool_id = {json.dumps(pool_id)}",
        f"origin = {json.dumps(origin)}",
        f"gateway = {json.dumps(gateway)}",
    ]
    if dev:
        lines.append("dev = true  # made by `pool serve --dev`: no authentication on the registry, loopback only")
    if database is not None:
        lines.append(f"database = {json.dumps(database)}")
    if listen:
        lines += ["", "[listen]", *(f"{name} = {json.dumps(address)}" for name, address in listen.items())]
    (folder / "pool.toml").write_text("\n".join(lines) + "\n")


def _check_database(config: Config) -> None:
    """Check, before a key is made, that a configured database can be reached and does not belong to another pool.

    A folder without tables is no pool. Nor is one with the tables of another pool: its grants have MACs of other keys.
    """
    if config.database_url is None:
        EmbeddedPostgres(config.folder).check_folder()
        return
    with _Database(config) as engine:
        try:
            revision = migrations.revision(engine)
        except UnavailableError as error:
            raise UnavailableError(
                error.reason, f"{error.message}. It was said: {connection_failure(error)}"
            ) from error
    if revision is not None:
        raise InvalidError(
            Reason.ALREADY_EXISTS,
            "the database holds a pool already, or what is left of making one; give an empty one",
        )


def _prepare_database(config: Config) -> None:
    with _Database(config) as engine:
        migrations.upgrade(engine)
        secrets = FileSecrets.open(config.path("secrets"))
        tags = open_row_tags(secrets)
        mark_all(config.path("secrets"))
        create_private(records_tagged(config.folder), untagged_text({}))
        access = PostgresAccessStore(RowMac(secrets.named_key("grant-seal")), tags)
        database = PostgresDatabase(engine, accountable=True)
        record = _recorder(config, engine, database, "init")
        with database.begin() as work:
            access.seed_purposes(work)
            token = new_token()
            Users(PostgresIdentityStore(tags)).add_bootstrap(work, digest_of(token), utc_now())
            record(work)
        create_private(config.path("bootstrap-token"), token.encode() + b"\n")


def _recorder(
    config: Config, engine: sa.Engine, database: PostgresDatabase, command: str
) -> Callable[[UnitOfWork], None]:
    """Return a function that writes the entry of a command that changes tagged rows, in the command's transaction."""
    now = microseconds()
    entries = PostgresEntries(engine, open_entry_tags(FileSecrets.open(config.path("secrets")), frozenset()))
    ledger = AuditLedger(entries, process=f"{command}@{uuid7(now)}")
    actor = Actor(kind=ActorKind.MACHINE, id=command, department="", role=Role.OPERATOR)

    def record(work: UnitOfWork) -> None:
        entry = AuditEntry(
            pool=config.pool_id,
            id=uuid7(now),
            at=now,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=ROWS_CHANGED,
            resource=config.pool_id,
        )
        ledger.write(work, [entry])

    ledger.open(database)
    return record


class _Database:
    """The configured database, or the embedded one, for the duration of the block."""

    def __init__(self, config: Config) -> None:
        self._url = config.database_url
        self._embedded = EmbeddedPostgres(config.folder) if self._url is None else None

    def __enter__(self) -> sa.Engine:
        url = self._embedded.start() if self._embedded else sa.make_url(self._url or "")
        self._engine = sa.create_engine(url)
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()
        if self._embedded:
            self._embedded.stop()
