"""Verify a backup without a server: hashes, the log, and the dump's rows against the log.

    (1) files        every file has the size and SHA-256 of the manifest, and there is no other
    (2) MAC          the manifest is one that this pool wrote; where the sealed keys are given
    (3) log          tiles, signature and invariants, as `pool audit verify`; with the auditor's key and checkpoint
    (4) entries      the dump holds every entry of the log, with the same bytes
    (5) rows         keys and tags of the rows that carry authority are those that the entries left

(4) and (5) need a pg_restore that reads the dump, and no database. What the rows say is compared with their tags when
the pool is restored, which needs the keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from exchange.audit.log_invariants import LogInvariants
from exchange.audit.note import NoteKey
from exchange.audit.row_notes import RowNotes, StoredRow
from exchange.audit.tiles import WIDTH, TileFiles, tile_width
from exchange.audit.verify import VerificationReport, verify_files
from exchange.backup.client_tools import ClientTool, archive_reader
from exchange.backup.dump_rows import rows_of, value_of
from exchange.backup.manifest import DUMP, LOG, MAC_KEY, Manifest, mac_fits
from exchange.backup.sealed_file import SealingKey, open_sealed
from exchange.identity.secrets import FileSecrets
from exchange.server.row_tags import tagged_tables
from registry.database.row_tags import key_text, short_tag
from schemas.audit import read_leaf
from schemas.errors import InvalidError, Reason
from schemas.merkle import HASH_SIZE, leaf_hash

__all__ = ["manifest_key", "verify_backup"]

_ENTRY = "audit_entry"


def verify_backup(
    folder: Path,
    *,
    key: NoteKey | None = None,
    since: str | None = None,
    sealed: tuple[Path, SealingKey] | None = None,
    pg_bin: Path | None = None,
) -> tuple[Manifest, VerificationReport, list[str]]:
    """Verify a backup; return its manifest, what is wrong, and a sentence for each check that was not made.

    Args:
        folder: of the backup.
        key: of the log, as the auditor has it; None = the one in the backup, which proves less.
        since: text of a checkpoint that was kept outside the pool.
        sealed: file of the sealed keys, and what opens it.
        pg_bin: folder with PostgreSQL's client tools.

    Raises:
        InvalidError: CONFIG_INVALID, it is no backup, or the keys do not open.
    """
    manifest, content = Manifest.read(folder)
    report, skipped = VerificationReport(), []
    for sentence in manifest.check_files(folder):
        report.add("backup.file", None, sentence)
    if sealed is None:
        skipped.append("without --sealed the manifest's MAC was not checked: anybody may have written the backup")
    elif not mac_fits(folder, content, manifest_key(open_sealed(*sealed))):
        report.add("backup.manifest", None, "the manifest's MAC is not of this pool: somebody else wrote or changed it")
    if key is None:
        skipped.append("without --key the log was verified with the key in the backup itself")
        key = NoteKey.parse((folder / "log.pub").read_text())
    invariants = LogInvariants(report.add)
    if manifest.log_size:
        verify_files(folder / LOG, key=key, since=since, invariants=invariants, report=report)
        checkpoint = report.checkpoint
        if checkpoint is not None and (checkpoint.size, checkpoint.root.hex()) != (
            manifest.log_size,
            manifest.log_root,
        ):
            report.add("backup.log", None, "the log's checkpoint is not the one that the manifest names")
    tool = archive_reader(manifest.client, pg_bin)
    if tool is None:
        skipped.append(
            f"no pg_restore of version {manifest.client} or later is here: the dump's rows were not compared with the "
            "log"
        )
    elif not report.counts["backup.file"]:
        _compare(tool, folder, manifest, invariants.rows, report)
    return manifest, report, skipped


def manifest_key(files: dict[str, bytes]) -> bytes:
    """Return the key of the manifest's MAC, from the files of the sealed keys.

    Raises:
        InvalidError: CONFIG_INVALID, they hold no `secrets/named.master`.
    """
    master = files.get("secrets/named.master")
    if master is None:
        raise InvalidError(Reason.CONFIG_INVALID, "the sealed file holds no secrets/named.master; it is no pool's")
    return FileSecrets(Path("sealed"), {"named": master}).named_key(MAC_KEY)


def _compare(tool: ClientTool, folder: Path, manifest: Manifest, notes: RowNotes, report: VerificationReport) -> None:
    """Compare the dump's entries with the log, and its tagged rows with what all entries say."""
    comparison = _Comparison(_LeafHashes(folder / LOG, manifest.log_size), manifest, report)
    tables = comparison.tables
    arguments = ["--data-only", "--file=-", *(f"--table={name}" for name in sorted({*tables, _ENTRY}))]
    with tool.output(*arguments, str(folder / DUMP)) as lines:
        for table, row in rows_of(lines, frozenset({*tables, _ENTRY})):
            if table == _ENTRY:
                comparison.entry(row)
            else:
                comparison.row(tables[table], row)
    comparison.finish(notes)


class _Comparison:
    """What the dump has, while it is read."""

    def __init__(self, hashes: "_LeafHashes", manifest: Manifest, report: VerificationReport) -> None:
        self.tables = {table.name: table for table in tagged_tables()}
        self._hashes = hashes
        self._manifest = manifest
        self._report = report
        self._ahead: list[tuple[int, bytes]] = []  # entries that the log does not hold yet
        self._rows: list[StoredRow] = []
        self._count = self._signed = 0

    def row(self, table: sa.Table, row: Mapping[str, bytes | None]) -> None:
        """Take a row of a tagged table."""
        key = {column.name: value_of(column, row[column.name]) for column in table.primary_key.columns}
        tag = short_tag(value_of(table.c.tag, row["tag"]))
        self._rows.append(StoredRow(table.name, key_text(table, key), tag, None))

    def entry(self, row: Mapping[str, bytes | None]) -> None:
        """Compare an entry with the log's, or keep it where the log ends before it."""
        self._count += 1
        leaf = bytes.fromhex((row["leaf"] or b"").removeprefix(b"\\x").decode())
        placed = row["leaf_index"]
        index = None if placed is None else int(placed)
        if index is None or index >= self._manifest.log_size:
            if row["refused"] == b"f":
                self._ahead.append((int(row["seq"] or 0), leaf))
        elif leaf_hash(leaf) != self._hashes.get(index):
            self._report.add("dump.entry", index, "the dump's entry is not the one in the log")
        else:
            self._signed += 1

    def finish(self, notes: RowNotes) -> None:
        """Report what is missing, and compare the rows with what the entries say."""
        for found, expected, whose in (
            (self._signed, self._manifest.log_size, "entries of the log"),
            (self._count, self._manifest.entries, "entries that the manifest counts"),
        ):
            if found != expected and not self._report.counts["dump.entry"]:
                self._report.add("dump.entry", None, f"the dump holds {found} of the {expected} {whose}")
        for _, leaf in sorted(self._ahead):
            entry = _read(leaf)
            if entry.get("decision") == "allow" and "failed" not in entry.get("data", {}):
                for broken in notes.read(entry.get("data", {})):
                    self._report.add("row.chain", None, broken)
        for kind, message in notes.compare(self._rows):
            self._report.add(kind, None, message)


class _LeafHashes:
    """The leaf hashes of a log, by index; one tile is in memory."""

    def __init__(self, folder: Path, size: int) -> None:
        self._files = TileFiles(folder)
        self._size = size
        self._number = -1
        self._tile = b""

    def get(self, index: int) -> bytes:
        """Return a leaf's hash; empty where the tile is missing."""
        number, at = divmod(index, WIDTH)
        if number != self._number:
            self._number = number
            self._tile = self._files.tile(0, number, tile_width(0, number, self._size)) or b""
        return self._tile[at * HASH_SIZE : (at + 1) * HASH_SIZE]


def _read(leaf: bytes) -> Mapping[str, Any]:
    try:
        return read_leaf(leaf)
    except InvalidError:
        return {}
