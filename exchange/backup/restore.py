"""Restore a backup into a new folder: the database, the log as far as it survived, and what may not come back.

    (1) files        hashes and MAC of the manifest, with the sealed keys
    (2) folder       keys, configuration, list of erasures; `pool.toml` comes last, so that nothing serves half a pool
    (3) database     pg_restore into an empty one, embedded or external
    (4) log          where the old log's folder survived, it is verified, copied, and its later entries are inserted:
                     the log goes on as one tree. Where it is lost, a log of another name begins (`<origin>/g<number>`):
                     under the old name it would be a second tree beside what was signed and lost
    (5) statement    an entry, in the same transaction as all that follows: which entries the database did not have,
                     which rows, grants and lanes were set back to which state
    (6) replay       what was revoked, ended and released since (`exchange.backup.replay`); where Kafka has
                     kept the records, receipts and retractions are brought up to it (`exchange.backup.kafka_records`)
    (7) generation   of every topic, so that positions from before are recognised
    (8) signature    the log is signed up to its end

The last second before the loss is in no log: entries are signed about a second after they are written. So a restored
pool releases nothing until two persons have settled it (`exchange.control.restores`). Nothing here compares the
database with the log: an auditor does that with `pool audit verify --database` before the two persons settle it.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from exchange import migrations
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.audit.ledger import AuditLedger
from exchange.audit.note import FileSigner, NoteKey, open_note, parse_checkpoint
from exchange.audit.postgres import PostgresEntries, PostgresReceipts
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.sequencer import CHECKPOINT, Sequencer
from exchange.audit.verify import verify_files
from exchange.backup.client_tools import check_server, restore_tool
from exchange.backup.create import ERASURES, PUBLIC
from exchange.backup.gap import Gap, OldRows
from exchange.backup.kafka_records import KafkaRecords
from exchange.backup.log_entries import insert_entries, placed_end
from exchange.backup.manifest import DUMP, LOG, Manifest, mac_fits
from exchange.backup.replay import Replay, Stores
from exchange.backup.restore_entries import RestoreEntries
from exchange.backup.sealed_file import SealingKey, open_sealed
from exchange.backup.verify import manifest_key
from exchange.broker.port import Broker
from exchange.broker.postgres.broker import PostgresBroker
from exchange.config import Config, KafkaBroker
from exchange.control.open_restores import restored_file
from exchange.control.restores import RESTORE
from exchange.erasure.erasures import Erasure, ErasureState
from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.identity.keyfile import create_private, private_folder, read_ed25519, replace_private
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.identity.secrets import FileSecrets
from exchange.server.brokers import open_kafka
from exchange.server.clock import microseconds
from exchange.server.embedded_postgres import EmbeddedPostgres
from exchange.server.erasure_list import FileErasureList
from exchange.server.key_files import RECORDS_KEY, receipts_key
from exchange.server.roles import Role
from exchange.server.row_digest import RowDigests
from exchange.server.row_tags import open_entry_tags, open_row_tags
from exchange.server.row_watch import read_versions
from registry.database.errors import unavailable
from registry.database.unit_of_work import PostgresDatabase, RowChange, UnitOfWork, connection_of, note_row_change
from schemas.audit import RESTORED, Checkpoint
from schemas.canonical import Json
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.identifiers import uuid7
from schemas.names import Topic

__all__ = ["RestorePlan", "Restored", "restore"]

_CHUNK = 200  # lanes or grants in one entry
_VERSION = sa.text("SELECT current_setting('server_version_num')::int")
_TABLES = sa.text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
_IDS_AHEAD = 1_000  # schema ids that are left out: some may have been given after the backup
_LEAVE_IDS_OUT = sa.text("""
SELECT setval(pg_get_serial_sequence('registry_schema', 'id'), coalesce(max(id), 0) + :ahead) FROM registry_schema
""")
_FORGET_CHECKPOINTS = sa.text("DELETE FROM audit_checkpoint")
_GRANT_VERSIONS = sa.text("SELECT id, version FROM access_grant")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What is restored from what.

    Attributes:
        backup: its folder. sealed, key: the sealed keys, and what opens them.
        data: the new folder; empty or absent.
        log: the old log's folder, if it survived.
        erasures: the newest list of erasures, if there is one outside the backup.
        since: a checkpoint that was kept outside the pool, text.
        database: `${file:…}` or `${env:…}` of an empty database; None = as the backup's configuration says.
        pg_bin: folder with PostgreSQL's client tools.
    """

    backup: Path
    sealed: Path
    key: SealingKey
    data: Path
    log: Path | None = None
    erasures: Path | None = None
    since: str | None = None
    database: str | None = None
    pg_bin: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did.

    Attributes:
        config: of the restored pool. statement: id of its entry. generation: of the pool.
        entries: of the log that were inserted. until: time of the last one, µs; 0 without any.
        whole: whether the log of the time after the backup was there.
        missing: entries from the end of the log to the checkpoint kept outside; 0 where none are known.
        lanes: by lane, the last batch that the pool has now, and had.
        older, lost: rows that carry authority, as they were set back, or lost.
        orders: orders of rectification that the database does not know, to be given again: violation case → grant.
        replay: what was taken away.
        kept: what Kafka has kept; None where records are in the database.
    """

    config: Config
    statement: str
    generation: int
    entries: int
    until: int
    whole: bool
    missing: int
    lanes: Mapping[str, tuple[int, int]]
    older: int
    lost: int
    orders: Mapping[str, str]
    replay: Replay
    kept: KafkaRecords | None = None


def restore(plan: RestorePlan) -> Restored:
    """Restore a backup; the pool is complete, signed and closed when this returns.

    Raises:
        InvalidError: ALREADY_EXISTS, the folder or the database is not empty; CONFIG_INVALID, no client tool fits, the
            keys do not open, or the program is another version than the backup's.
        CorruptError: LOG_CORRUPT, backup, log and checkpoint contradict each other; nothing is restored.
        UnavailableError: the database does not answer.
    """
    manifest, files = _open_backup(plan)
    log = _SurvivingLog.open(plan, manifest)
    if plan.data.exists() and any(plan.data.iterdir()):
        raise InvalidError(
            Reason.ALREADY_EXISTS, f"{plan.data} is not empty; a restore goes into a new folder, never over an old one"
        )
    config = _prepare_folder(plan, manifest, files, log)
    embedded = EmbeddedPostgres(config.folder) if config.database_url is None else None
    try:
        url = embedded.start() if embedded else sa.make_url(config.database_url or "")
        engine = sa.create_engine(url)
        try:
            with _broker(config, engine) as broker:
                kept = KafkaRecords.open(broker) if isinstance(config.broker, KafkaBroker) else None
                _fill(engine, url, plan, manifest)
                done = _Restoration(config, engine, manifest, log, broker, kept).run()
        except sa_exc.SQLAlchemyError as error:
            raise unavailable(error) from error
        finally:
            engine.dispose()
    finally:
        if embedded is not None:
            embedded.stop()
    (config.folder / "pool.toml.new").rename(config.folder / "pool.toml")
    return done


@contextmanager
def _broker(config: Config, engine: sa.Engine) -> Iterator[Broker]:
    secrets = FileSecrets.open(config.path("secrets"))
    broker: Broker
    if isinstance(config.broker, KafkaBroker):
        broker = open_kafka(config)
    else:
        broker = PostgresBroker(PostgresDatabase(engine, accountable=True), key=secrets.named_key(RECORDS_KEY))
    try:
        yield broker
    finally:
        broker.close()


def _open_backup(plan: RestorePlan) -> tuple[Manifest, dict[str, bytes]]:
    manifest, content = Manifest.read(plan.backup)
    files = open_sealed(plan.sealed, plan.key)
    if not mac_fits(plan.backup, content, manifest_key(files)):
        raise CorruptError(
            Reason.LOG_CORRUPT, f"{plan.backup} was not made by the pool of these keys, or was changed since"
        )
    for sentence in manifest.check_files(plan.backup):
        raise CorruptError(Reason.LOG_CORRUPT, f"{plan.backup}: {sentence}; take another backup")
    return manifest, files


@dataclass(frozen=True, slots=True)
class _SurvivingLog:
    """The old log's folder, verified; `checkpoint` is that of the backup where the folder is lost."""

    folder: Path | None
    checkpoint: Checkpoint | None
    note: str
    outside: Checkpoint | None  # kept by an auditor

    @classmethod
    def open(cls, plan: RestorePlan, manifest: Manifest) -> "_SurvivingLog":
        """Verify the old log's folder against the backup and the checkpoint kept outside.

        Raises:
            CorruptError: LOG_CORRUPT, they contradict each other.
        """
        key = NoteKey.parse((plan.backup / "log.pub").read_text())
        outside = None if plan.since is None else parse_checkpoint(open_note(plan.since, [key]))
        if plan.log is None:
            return cls(None, None, "", outside)
        kept = (plan.backup / LOG / CHECKPOINT).read_text() if manifest.log_size else None
        for since in (kept, plan.since):
            report = verify_files(plan.log, key=key, since=since)
            if not report.ok or report.checkpoint is None:
                raise CorruptError(
                    Reason.LOG_CORRUPT,
                    f"the log in {plan.log} is not whole, or is not the one of the backup and the checkpoint: "
                    f"{'; '.join(report.lines()[:3])}. Restore without it, so that another log begins",
                )
        note = (plan.log / CHECKPOINT).read_text()
        return cls(plan.log, parse_checkpoint(open_note(note, [key])), note, outside)


def _prepare_folder(plan: RestorePlan, manifest: Manifest, files: Mapping[str, bytes], log: _SurvivingLog) -> Config:
    """Write the new folder, with its configuration under another name until the restore is complete."""
    data = private_folder(plan.data).resolve()
    data.chmod(0o755)  # as `pool init` leaves it: the embedded server's own user passes through
    for name, content in sorted(files.items()):
        for parent in reversed((data / name).relative_to(data).parents[:-1]):
            private_folder(data / parent)
        create_private(data / name, content)
    public = {"ca/authority.crt", "ca/server.crt", "ca/server.json"}
    for name in public & set(files):
        (data / name).chmod(0o644)
    for name in PUBLIC:
        (data / name).write_bytes((plan.backup / name).read_bytes())
    _write_erasures(data / ERASURES, [plan.backup / ERASURES, plan.erasures])
    text = (data / "pool.toml").read_text()
    if plan.database is not None:
        text = _with_line(text, "database", plan.database)
    if log.folder is None:
        text = _with_line(text, "origin", f"{manifest.origin.split('/g')[0]}/g{_generation(manifest)}")
    (data / "pool.toml").write_text(text)
    config = Config.load(data)
    (data / "pool.toml").rename(data / "pool.toml.new")
    if log.folder is None:
        (data / "log").mkdir()
        signer = FileSigner.load(data / "secrets" / "log.key", config.origin)
        (data / "log.pub").rename(data / "log.pub.before")
        (data / "log.pub").write_text(f"{signer.key}\n")
    else:
        shutil.copytree(log.folder, data / "log")
    return config


def _with_line(text: str, name: str, value: str) -> str:
    lines = [line for line in text.splitlines() if line.partition("=")[0].strip() != name]
    at = next((k for k, line in enumerate(lines) if line.startswith("[")), len(lines))
    return "\n".join([*lines[:at], f'{name} = "{value}"', *lines[at:]]) + "\n"


def _write_erasures(file: Path, sources: Sequence[Path | None]) -> None:
    """Write the lines of all lists, each once; every line has a MAC, which is checked when it is read."""
    lines: dict[str, None] = {}
    for source in sources:
        if source is not None and source.exists():
            lines.update(dict.fromkeys(line for line in source.read_text(encoding="utf-8").splitlines() if line))
    if lines:
        create_private(file, "".join(f"{line}\n" for line in lines).encode())


def _generation(manifest: Manifest) -> int:
    """Return the number of the pool's new generation: minutes since 1970, so that no two restores share one."""
    return max(manifest.generation + 1, microseconds() // 60_000_000)


def _fill(engine: sa.Engine, url: sa.URL, plan: RestorePlan, manifest: Manifest) -> None:
    with engine.connect() as connection:
        target = check_server(connection.execute(_VERSION).scalar_one())
        if connection.execute(_TABLES).scalar_one():
            raise InvalidError(Reason.ALREADY_EXISTS, "the database is not empty; give an empty one")
    tool = restore_tool(client=manifest.client, server=manifest.server // 10_000, target=target, folder=plan.pg_bin)
    arguments = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    tool.run(url, *arguments, str(plan.backup / DUMP))
    migrations.check(engine)


class _Restoration:
    """What happens in a filled database."""

    def __init__(
        self,
        config: Config,
        engine: sa.Engine,
        manifest: Manifest,
        log: _SurvivingLog,
        broker: Broker,
        kept: KafkaRecords | None,
    ) -> None:
        self._broker = broker
        self._kept = kept
        self._config = config
        self._engine = engine
        self._manifest = manifest
        self._log = log
        self._secrets = FileSecrets.open(config.path("secrets"))
        self._database = PostgresDatabase(engine, accountable=True)
        self._entry_tags = open_entry_tags(self._secrets, frozenset())
        self._ledger = AuditLedger(
            PostgresEntries(engine, self._entry_tags), process=f"restore@{uuid7(microseconds())}"
        )
        self._entries = RestoreEntries(self._ledger, config.pool_id)
        self._row_tags = open_row_tags(self._secrets)
        self._statement = uuid7(microseconds())
        self._generation = _generation(manifest)
        self._start = 0  # index of the first entry that the log's folder adds
        self._receipts = PostgresReceipts()
        self._sign_receipt = read_ed25519(receipts_key(config.folder)).sign

    def run(self) -> Restored:
        """Insert, state, replay, sign."""
        self._ledger.open(self._database)
        whole = self._log.folder is not None
        with self._engine.connect() as connection:  # streaming, which no transaction that writes should do
            stored = {key: tag for key, (_, tag) in read_versions(connection).items()}
        with self._database.begin() as work:
            gap, inserted = self._insert(work)
            old = gap.compare(stored)
            if self._kept is not None:
                self._kept.restore_receipts(work, self._receipts, self._sign_receipt, self._start)
            lanes = self._lanes(work, gap)
            self._state(work, gap, inserted, old, lanes)
            replay = Replay(work, self._stores(), self._entries.record, datetime.now(UTC))
            replay.run(gap, old, whole=whole)
            connection_of(work).execute(_LEAVE_IDS_OUT, {"ahead": _IDS_AHEAD})
            if self._kept is not None:
                self._kept.restore_unlogged(work, self._receipts, self._sign_receipt, self._entries.publication)
                self._kept.restore_retractions(work, PostgresRetractions(self._row_tags))
        content = {"statement": self._statement, "generation": self._generation, "whole": whole}
        replace_private(restored_file(self._config.folder), json.dumps(content).encode() + b"\n")
        self._list_erasures(gap)
        self._broker.renew_generations(self._generation)
        self._sign()
        outside = self._log.outside
        size = self._manifest.log_size if self._log.checkpoint is None else self._log.checkpoint.size
        return Restored(
            config=self._config,
            statement=self._statement,
            generation=self._generation,
            entries=inserted,
            until=gap.last_at,
            whole=whole,
            missing=max(0, outside.size - size) if outside else 0,
            lanes=lanes,
            older=len(old.older),
            lost=len(old.lost),
            orders=gap.lost_orders(old),
            replay=replay,
            kept=self._kept,
        )

    def _insert(self, work: UnitOfWork) -> tuple[Gap, int]:
        gap, inserted, connection = Gap(), 0, connection_of(work)
        if self._log.folder is None or self._log.checkpoint is None:
            connection.execute(_FORGET_CHECKPOINTS)  # of the log's old name
            return gap, 0
        self._start = placed_end(connection)
        if self._start > self._log.checkpoint.size:
            raise CorruptError(
                Reason.LOG_CORRUPT, "the log's folder ends before the backup; it is an older copy: restore without it"
            )
        for entry, known in insert_entries(
            connection, self._log.folder, self._log.checkpoint, self._log.note, microseconds()
        ):
            gap.read(entry, known=known)
            inserted += not known
        return gap, inserted

    def _lanes(self, work: UnitOfWork, gap: Gap) -> dict[str, tuple[int, int]]:
        """Return the lanes that were set back: the last batch that there is, and that there was."""
        stored = {str(lane): last for lane, last in self._receipts.last_sequences(work).items()}
        return {
            lane: (stored.get(lane, 0), last) for lane, last in sorted(gap.lanes.items()) if last > stored.get(lane, 0)
        }

    def _state(
        self, work: UnitOfWork, gap: Gap, inserted: int, old: OldRows, lanes: Mapping[str, tuple[int, int]]
    ) -> None:
        """Write the statement: in its rows, each row that is set back from the state that the log left it in."""
        stored = {row.id: row.version for row in connection_of(work).execute(_GRANT_VERSIONS)}
        grants = {
            grant: (stored.get(grant, 0), one.version)
            for grant, one in sorted(gap.grants.items())
            if one.version > stored.get(grant, 0)
        }
        for (table, key), (logged, now) in old.older.items():
            note_row_change(
                work,
                RowChange(table, key, bytes.fromhex(logged) if logged else None, bytes.fromhex(now)),
            )
        for (table, key), logged in old.lost.items():
            note_row_change(work, RowChange(table, key, bytes.fromhex(logged), None))
        outside = self._log.outside
        size = self._manifest.log_size if self._log.checkpoint is None else self._log.checkpoint.size
        data: dict[str, Json] = {
            "generation": self._generation,
            "backup": self._manifest.made_at,
            "from": size - inserted,
            "to": size,
            "whole": self._log.folder is not None,
        }
        if self._log.folder is None:
            data["log"] = self._manifest.origin
            data["root"] = self._manifest.log_root
        if outside is not None:
            data["checkpoint"] = outside.size
        if self._kept is not None:
            data["receipts"] = self._kept.receipts
        self._entries.record(work, RESTORED, RESTORE, data, entry_id=self._statement)
        listed_of: dict[str, list[Json]] = {
            "lanes": [[key, now, before] for key, (now, before) in lanes.items()],
            "grants": [[key, now, before] for key, (now, before) in grants.items()],
            "orders": [[case, grant] for case, grant in gap.lost_orders(old).items()],
        }
        for name, listed in listed_of.items():
            for at in range(0, len(listed), _CHUNK):
                self._entries.record(work, RESTORED, RESTORE, {"of": self._statement, name: listed[at : at + _CHUNK]})

    def _stores(self) -> Stores:
        return Stores(
            PostgresIdentityStore(self._row_tags),
            PostgresProposals(self._row_tags),
            PostgresAccessStore(RowMac(self._secrets.named_key("grant-seal")), self._row_tags),
        )

    def _list_erasures(self, gap: Gap) -> None:
        """List the erasures that the log knows and no list has; the pool carries them out at its start."""
        listed = FileErasureList(self._config.path(ERASURES), lambda: self._secrets.named_key("erasure-list"))
        known = {one.id for one in listed.all()}
        for erasure_id, entry in gap.erasures.items():
            if erasure_id not in known:
                listed.add(_erasure_of(erasure_id, entry))

    def _sign(self) -> None:
        """Write a digest of the rows as they are now, and sign the log."""

        def record(work: UnitOfWork, action: str, data: Mapping[str, Json]) -> None:
            self._entries.record(work, action, self._config.pool_id, data)

        RowDigests(self._database, record, self._entry_tags).write()
        signer = FileSigner.load(self._config.path("secrets", "log.key"), self._config.origin)
        tags = open_entry_tags(self._secrets, frozenset({Role.SEQUENCER}))
        log = PostgresLog(self._engine, tags)
        Sequencer(log, self._config.path("log"), signer=signer, origin=self._config.origin, clock=microseconds).step()


def _erasure_of(erasure_id: str, entry: Mapping[str, Any]) -> Erasure:
    at, data = datetime.fromtimestamp(entry["at"] / 1e6, UTC), entry["data"]
    return Erasure(
        id=erasure_id,
        topic=Topic.parse(entry["resource"]),
        key=bytes.fromhex(data["pseudonym"]),
        partition=data["partition"],
        reason=data["reason"],
        state=ErasureState.CONFIRMED,
        proposed_by="",
        proposed_at=at,
        decided_by=entry["actor"]["id"],
        decided_at=at,
        before=data["before"],
    )
