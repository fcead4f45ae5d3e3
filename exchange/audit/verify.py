"""Offline verifier of an audit log: from its files alone, on any machine, by anyone who has the key.

    report = verify_files(Path("copy/log"), key=NoteKey.parse(...), since=yesterdays_checkpoint)
    python -m exchange.audit.verify --files DIR --key KEYFILE --since CHECKPOINT

    (1) signature    the checkpoint is signed by the key that was handed over beforehand
    (2) tree         every tile is computed again from the entries, up to the root that the checkpoint signs
    (3) prefix       the log begins with all of the tree of a checkpoint that was kept outside the pool
    (4) invariants   counters, lanes, grants and releases have no holes (exchange.audit.log_invariants)

What (2) cannot find is a tree that was signed again over changed entries by the holder of the key; (3) does, back to
the checkpoint kept outside: keep one of each day. What (3) cannot find is an entry left out before it was signed;
(4) does.

Entries are streamed: a million of them take a few megabytes. Each finding has a kind; the first thousand are kept, all
of them are counted.
"""

import argparse
import heapq
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from exchange.audit.log_invariants import LogInvariants
from exchange.audit.note import NoteKey, open_note, parse_checkpoint
from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_path, tile_width
from schemas.audit import Checkpoint
from schemas.errors import CorruptError, InvalidError
from schemas.merkle import HASH_SIZE, Frontier, leaf_hash, root_of

__all__ = [
    "BEHIND",
    "EntryObserver",
    "LogFinding",
    "Signing",
    "VerificationReport",
    "main",
    "signing_of_files",
    "verify_files",
]

BEHIND = 3
"""Exit code of a verification that found nothing wrong in what is signed, and entries that wait too long for it."""

_MAX_FINDINGS = 1000
_MAX_BUNDLES = 256  # whose differences are reported entry by entry


@dataclass(frozen=True, slots=True)
class LogFinding:
    """One thing that is wrong: its kind, the entry's index (None for the log as a whole), and a sentence about it."""

    kind: str
    index: int | None
    message: str

    def __str__(self) -> str:
        index = "" if self.index is None else f" [{self.index}]"
        return f"{self.kind}{index}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How far the log is signed.

    Attributes:
        unsigned: entries that no checkpoint covers; None where only the files were read, which do not hold them.
        oldest: seconds for which the oldest of them has waited; 0 without any, None where it is not known.
        signed: seconds since the last signature, by the time of the checkpoint's row, or else of its file; None without
            one.
        bound: seconds that an entry may wait.
    """

    unsigned: int | None
    oldest: float | None
    signed: float | None
    bound: float

    @property
    def behind(self) -> bool:
        """Return whether an entry has waited longer than the bound."""
        return self.oldest is not None and self.oldest > self.bound

    def line(self) -> str:
        """Return it as a line of text."""
        signed = "there is no signature" if self.signed is None else f"the last signature was {self.signed:.0f} s ago"
        if self.unsigned is None:
            return f"{signed}, by the file's time; how many entries wait is known to the database alone"
        if not self.unsigned:
            return f"no entry waits to be signed; {signed}"
        line = f"{self.unsigned} entries wait to be signed, the oldest for {self.oldest or 0:.0f} s; {signed}"
        return f"{line}. EXPECTED {self.bound:.0f} s AT MOST" if self.behind else line


@dataclass
class VerificationReport:
    """What a verification found; `ok` without findings."""

    checkpoint: Checkpoint | None = None
    entries: int = 0
    findings: list[LogFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is no finding and must be known: restores of the pool
    counts: Counter[str] = field(default_factory=Counter)
    signing: Signing | None = None

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.counts

    @property
    def exit_code(self) -> int:
        """Return 0 when nothing is wrong, 1 when something is, else `BEHIND` when entries wait too long."""
        if not self.ok:
            return 1
        return BEHIND if self._behind else 0

    @property
    def _behind(self) -> bool:
        return self.signing is not None and self.signing.behind

    def add(self, kind: str, index: int | None, message: str) -> None:
        """Add a finding."""
        self.counts[kind] += 1
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(LogFinding(kind, index, message))

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [str(finding) for finding in self.findings]
        if sum(self.counts.values()) > len(lines):
            lines.append(f"… and {sum(self.counts.values()) - len(lines)} more")
        lines += self.notes
        if self.signing is not None:
            lines.append(self.signing.line())
        if self.checkpoint is not None:
            head = f"{self.checkpoint.origin}: {self.entries} of {self.checkpoint.size} entries read"
            verdict = "nothing is wrong in what is signed" if self._behind else "nothing is wrong"
            lines.append(f"{head}, {verdict if self.ok else 'DO NOT TRUST IT'}")
        return lines

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {
            "ok": self.ok,
            "exit_code": self.exit_code,
            "origin": self.checkpoint.origin if self.checkpoint else None,
            "size": self.checkpoint.size if self.checkpoint else None,
            "entries": self.entries,
            "findings": [{"kind": one.kind, "index": one.index, "message": one.message} for one in self.findings],
            "counts": dict(self.counts),
            "notes": self.notes,
            "signing": None
            if self.signing is None
            else {
                "unsigned": self.signing.unsigned,
                "oldest_seconds": self.signing.oldest,
                "signed_seconds": self.signing.signed,
                "bound_seconds": self.signing.bound,
                "behind": self.signing.behind,
            },
        }


class EntryObserver(Protocol):
    """Sees the same entries in the same order as the verifier; `verify_database` compares rows this way."""

    def start(self) -> None:
        """Begin; the checkpoint of the files has been read by now, so that what is read from now on is no older."""
        ...

    def observe(self, index: int, hashes: Sequence[bytes]) -> None:
        """Compare one entry.

        Args:
            index: its index in the log.
            hashes: the leaf hashes that the files give for it: of its bytes, and in the tile.
        """
        ...

    def sizes(self) -> Iterator[int]:
        """Yield the sizes, rising, at which the observer needs the root over the first so many entries."""
        ...

    def size_reached(self, size: int, roots: Sequence[bytes]) -> None:
        """Take the root at one of `sizes`: by the entries, and by the tiles."""
        ...


def verify_files(
    folder: Path,
    *,
    key: NoteKey | Sequence[NoteKey],
    since: str | None = None,
    observer: EntryObserver | None = None,
    invariants: LogInvariants | None = None,
    report: VerificationReport | None = None,
) -> VerificationReport:
    """Verify the log in *folder*; the module's docstring lists what is verified.

    Args:
        folder: the log's folder, or a copy of it.
        key: what checkpoints are signed with; several after a change of keys.
        since: text of a checkpoint that was kept outside the pool.
        observer: sees the entries too.
        invariants: the checker that is fed with the leaves; a new one if not given.
        report: takes the findings; a new one if not given.
    """
    report = VerificationReport() if report is None else report
    keys = [key] if isinstance(key, NoteKey) else list(key)
    files = TileFiles(folder)
    # (1)
    checkpoint = _checkpoint(files.read("checkpoint"), keys, report, "checkpoint")
    earlier = None if since is None else _checkpoint(since.encode(), keys, report, "since")
    if checkpoint is None:
        return report
    report.checkpoint = checkpoint
    if earlier is not None:
        _compare_checkpoints(checkpoint, earlier, report)
    # (2), (4)
    if observer is not None:
        observer.start()
    invariants = LogInvariants(report.add) if invariants is None else invariants
    tree = _TreeVerifier(files, checkpoint, report, earlier, observer, invariants)
    tree.run()
    report.notes += invariants.restores
    # (3)
    if earlier is not None and earlier.size <= checkpoint.size and tree.root_since != earlier.root:
        report.add(
            "since.fork",
            None,
            f"the first {earlier.size} entries have another root than the checkpoint kept outside: what it covered was "
            "changed, removed or put in another order, and signed again",
        )
    return report


class _TreeVerifier:
    """Reads all bundles and tiles once, side by side, and builds two trees: one of entries, one of leaf tiles.

    Where they differ, the tree with the signed root is right, and the other one's file was changed.
    """

    def __init__(
        self,
        files: TileFiles,
        checkpoint: Checkpoint,
        report: VerificationReport,
        earlier: Checkpoint | None,
        observer: EntryObserver | None,
        invariants: LogInvariants,
    ) -> None:
        self._files = files
        self._size = checkpoint.size
        self._signed = checkpoint.root
        self._report = report
        self._earlier = earlier
        self._observer = observer
        self._invariants = invariants
        self._by_entries = Frontier()
        self._by_tiles = Frontier()
        self._levels: list[list[tuple[bytes, bytes]]] = []  # from level 1 up: roots by entries, and by tiles
        self._differences: list[tuple[int, list[bytes] | None, list[bytes] | None]] = []
        self._sizes = heapq.merge(observer.sizes() if observer else (), [earlier.size] if earlier else ())
        self._next_size = next(self._sizes, None)
        self._since: tuple[bytes, bytes] | None = None

    def run(self) -> None:
        self._pass_roots(self._by_entries, self._by_tiles)
        for number in range((self._size + WIDTH - 1) // WIDTH):
            self._verify_bundle(number)
        for level in range(len(self._levels)):
            self._verify_tile(level + 1, self._levels[level], (self._size >> 8 * (level + 1)) // WIDTH)
        self._invariants.finish()
        self._report_differences()

    @property
    def root_since(self) -> bytes | None:
        """Return the root over as many entries as the earlier checkpoint covers, from the tree that is right."""
        return None if self._since is None else self._since[self._right]

    def _verify_bundle(self, number: int) -> None:
        width = tile_width(0, number, self._size)
        first = number * WIDTH
        leaves = self._read_leaves(number, width)
        by_entries = None if leaves is None else [leaf_hash(leaf) for leaf in leaves]
        by_tile = self._read_hashes(0, number, width)
        if by_entries != by_tile and len(self._differences) < _MAX_BUNDLES:
            self._differences.append((number, by_entries, by_tile))
        # A bundle of another length does not fit its position in the tree: there the tile is used.
        if by_entries is None or len(by_entries) != width:
            leaves, entry_hashes = None, by_tile or [bytes(HASH_SIZE)] * width
        else:
            entry_hashes = by_entries
            self._report.entries += width
        tile_hashes = by_tile or entry_hashes
        for at in range(width):
            if leaves is not None and entry_hashes[at] == tile_hashes[at]:
                self._invariants.check(first + at, leaves[at])
            else:
                self._invariants.mark_unreadable()  # one of the two was changed; `_report_differences` says which
            if self._observer is not None:
                self._observer.observe(first + at, (entry_hashes[at], tile_hashes[at]))
        self._extend(entry_hashes, tile_hashes)

    def _extend(self, entry_hashes: list[bytes], tile_hashes: list[bytes]) -> None:
        start, end = self._by_entries.size, self._by_entries.size + len(entry_hashes)
        trees = None
        while (size := self._next_size) is not None and size < end:  # a root is needed within this bundle
            trees = trees or (self._by_entries.copy(), self._by_tiles.copy())
            done = trees[0].size - start
            trees[0].extend(entry_hashes[done : size - start])
            trees[1].extend(tile_hashes[done : size - start])
            self._pass_roots(*trees)
        if len(entry_hashes) == WIDTH:
            roots = root_of(entry_hashes), root_of(tile_hashes)
            self._by_entries.append_complete(roots[0], WIDTH)
            self._by_tiles.append_complete(roots[1], WIDTH)
            self._carry_up(roots)
        else:
            self._by_entries.extend(entry_hashes)
            self._by_tiles.extend(tile_hashes)
        self._pass_roots(self._by_entries, self._by_tiles)

    def _carry_up(self, roots: tuple[bytes, bytes]) -> None:
        """Carry the roots of full tiles up, and compare each upper tile once it is full."""
        level = 1
        while True:
            if len(self._levels) < level:
                self._levels.append([])
            hashes = self._levels[level - 1]
            hashes.append(roots)
            if len(hashes) < WIDTH:
                return
            self._verify_tile(level, hashes, (self._by_entries.size >> 8 * (level + 1)) - 1)
            self._levels[level - 1] = []
            roots = root_of([one for one, _ in hashes]), root_of([other for _, other in hashes])
            level += 1

    def _verify_tile(self, level: int, expected: list[tuple[bytes, bytes]], number: int) -> None:
        if not expected:
            return
        found = self._read_hashes(level, number, len(expected))
        if found is None:
            return
        wrong = [at for at, (one, both) in enumerate(zip(found, expected, strict=True)) if one not in both]
        if wrong:
            path = tile_path(level, number, len(expected))
            self._report.add("tile.changed", None, f"{path}: {len(wrong)} hashes are not those of the tiles below")

    def _pass_roots(self, by_entries: Frontier, by_tiles: Frontier) -> None:
        """Pass the roots of this size on, if the observer or the earlier checkpoint needs them."""
        while self._next_size is not None and self._next_size <= by_entries.size:
            if self._next_size == by_entries.size:
                roots = by_entries.root(), by_tiles.root()
                if self._earlier is not None and self._earlier.size == self._next_size:
                    self._since = roots
                if self._observer is not None:
                    self._observer.size_reached(self._next_size, roots)
            self._next_size = next(self._sizes, None)

    @property
    def _right(self) -> int:
        """Return 0 when the tree of entries has the signed root, 1 when only that of the tiles has; 0 when neither."""
        return int(self._by_tiles.root() == self._signed != self._by_entries.root())

    def _report_differences(self) -> None:
        """Report what differs, now that the roots show which side is right."""
        entries_hold = self._by_entries.root() == self._signed
        tiles_hold = self._by_tiles.root() == self._signed
        for number, by_entries, by_tile in self._differences:
            if by_entries is None or by_tile is None:
                continue  # reported as missing
            if entries_hold and len(by_entries) == len(by_tile):
                _report_tile(self._report, number, by_entries, by_tile)
            else:
                _report_entries(self._report, number, by_entries, by_tile)
        if not entries_hold and not tiles_hold:
            self._report.add(
                "root.mismatch",
                None,
                f"neither entries nor tiles lead to the signed root of {self._size} entries: the log was changed after "
                "it was signed",
            )

    def _read_leaves(self, number: int, width: int) -> list[bytes] | None:
        path = tile_path(ENTRIES, number, width)
        last = number * WIDTH + width - 1
        try:
            bundle = self._files.tile(ENTRIES, number, width)
            if bundle is not None:
                return decode_bundle(bundle)
            self._report.add("entries.missing", number * WIDTH, f"{path}, with entries to {last}, is missing")
        except CorruptError as error:
            self._report.add("entries.unreadable", number * WIDTH, f"{path}, with entries to {last}: {error}")
        return None

    def _read_hashes(self, level: int, number: int, width: int) -> list[bytes] | None:
        path = tile_path(level, number, width)
        content = self._files.tile(level, number, width)
        if content is None:
            self._report.add("tile.missing", None, f"{path} is missing")
        elif len(content) != width * HASH_SIZE:
            self._report.add("tile.length", None, f"{path} has {len(content)} bytes; expected {width * HASH_SIZE}")
        else:
            return [content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)]
        return None


def signing_of_files(folder: Path, bound: float) -> Signing:
    """Return what the files say of the last signature: the time of the checkpoint's file, where a copy kept it."""
    try:
        written: float | None = max(0.0, time.time() - (folder / "checkpoint").stat().st_mtime)
    except OSError:
        written = None
    return Signing(unsigned=None, oldest=None, signed=written, bound=bound)


def _checkpoint(content: bytes | None, keys: list[NoteKey], report: VerificationReport, kind: str) -> Checkpoint | None:
    if content is None:
        report.add(f"{kind}.missing", None, "there is no checkpoint; is this a log's folder?")
        return None
    try:
        return parse_checkpoint(open_note(content.decode(), keys))
    except (InvalidError, UnicodeDecodeError) as error:
        report.add(f"{kind}.signature", None, str(error))
        return None


def _compare_checkpoints(checkpoint: Checkpoint, earlier: Checkpoint, report: VerificationReport) -> None:
    if earlier.origin != checkpoint.origin:
        report.add(
            "since.origin", None, f"the log is {checkpoint.origin!r}, the checkpoint kept outside {earlier.origin!r}"
        )
    if earlier.size > checkpoint.size:
        report.add(
            "log.shorter",
            checkpoint.size,
            f"the log has {checkpoint.size} entries, the checkpoint kept outside covers {earlier.size}: the newest "
            f"{earlier.size - checkpoint.size} were cut off",
        )


def _report_tile(report: VerificationReport, number: int, by_entries: list[bytes], by_tile: list[bytes]) -> None:
    wrong = [at for at, (one, other) in enumerate(zip(by_entries, by_tile, strict=False)) if one != other]
    path = tile_path(0, number, len(by_tile))
    report.add("tile.changed", number * WIDTH + wrong[0] if wrong else None, f"{path}: {len(wrong)} leaf hashes differ")


def _report_entries(report: VerificationReport, number: int, found: list[bytes], signed: list[bytes]) -> None:
    """Report what happened to a bundle, whose hashes are *found* and should be *signed*."""
    first = number * WIDTH
    wrong = [at for at, (one, other) in enumerate(zip(found, signed, strict=False)) if one != other]
    at = wrong[0] if wrong else min(len(found), len(signed))
    if len(found) < len(signed):
        lost = len(signed) - len(found)
        what = f"{lost} of {len(signed)} entries of the bundle are gone"
        if found[at:] == signed[at + lost :]:
            what = f"{lost} entries are gone from here on" if lost > 1 else "the entry is gone"
        report.add("entry.deleted", first + at, what)
    elif len(found) > len(signed):
        report.add("entry.inserted", first + at, f"{len(found) - len(signed)} entries too many are in the bundle")
    elif sorted(found) == sorted(signed):
        indexes = ", ".join(str(first + k) for k in wrong[:5])
        report.add("entry.swapped", first + at, f"the entries at {indexes} have changed places")
    else:
        for k in wrong:
            report.add("entry.changed", first + k, "the entry's bytes do not fit the hash that was signed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a log's files from the command line; return the exit code: 0 nothing is wrong, 1 something is, 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m exchange.audit.verify", description="Verify an audit log's files.")
    parser.add_argument("--files", type=Path, required=True, help="the log's folder (DIR/log), or a copy")
    parser.add_argument("--key", required=True, help="verification key, or a file that holds it")
    parser.add_argument("--since", type=Path, help="a checkpoint that was kept outside the pool")
    given = parser.parse_args(arguments)
    try:
        path = Path(given.key)
        key = NoteKey.parse(path.read_text() if path.is_file() else given.key)
        since = None if given.since is None else given.since.read_text()
    except (InvalidError, OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    report = verify_files(given.files, key=key, since=since)
    sys.stdout.write("\n".join(report.lines()) + "\n")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
