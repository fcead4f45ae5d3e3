"""Verify a log from its files alone: with neither database nor broker, on any machine, by anyone with the key.

    report = verify_files(Path("copy/log"), key=NoteKey.parse(...), since=yesterdays_checkpoint)
    python -m exchange.audit.verify --files DIR --key KEYFILE --since CHECKPOINT

    (1) signature    the checkpoint is signed by the key that was handed over beforehand
    (2) tree         every tile is computed again from the entries, up to the root that the checkpoint signs
    (3) prefix       the log begins with all of the tree of a checkpoint that was kept outside the pool
    (4) rules        counters, lanes, grants and releases have no holes (exchange.audit.log_invariants)

What (2) cannot find is a tree that was signed again over changed entries by the holder of the key; (3) does, back to
the checkpoint kept outside: keep one of each day. What (3) cannot find is an entry left out before it was signed;
(4) does.

Entries are streamed: a million of them take a few megabytes. Findings are named; the first thousand are kept, all
of them are counted.
"""

import argparse
import heapq
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from exchange.audit.log_invariants import LogInvariants
from exchange.audit.note import NoteKey, open_note, parse_checkpoint
from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_path, tile_width
from schemas.audit import Checkpoint
from schemas.errors import CorruptError, InvalidError
from schemas.merkle import HASH_SIZE, Frontier, leaf_hash, root_of

__all__ = ["Finding", "Observer", "Report", "main", "verify_files"]

_KEPT = 1000
_KEPT_BUNDLES = 256  # whose differences are named entry by entry


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: its kind, the entry's index (None for the log as a whole), and what it is."""

    kind: str
    index: int | None
    what: str

    def __str__(self) -> str:
        place = "" if self.index is None else f" [{self.index}]"
        return f"{self.kind}{place}: {self.what}"


@dataclass
class Report:
    """What a verification found; `ok` when that is nothing."""

    checkpoint: Checkpoint | None = None
    entries: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.counts

    @property
    def exit_code(self) -> int:
        """0 when nothing is wrong, else 1."""
        return 0 if self.ok else 1

    def tell(self, kind: str, index: int | None, what: str) -> None:
        """Take a finding."""
        self.counts[kind] += 1
        if len(self.findings) < _KEPT:
            self.findings.append(Finding(kind, index, what))

    def lines(self) -> list[str]:
        """Return the report in words."""
        lines = [str(finding) for finding in self.findings]
        if sum(self.counts.values()) > len(lines):
            lines.append(f"… and {sum(self.counts.values()) - len(lines)} more")
        if self.checkpoint is not None:
            head = f"{self.checkpoint.origin}: {self.entries} of {self.checkpoint.size} entries read"
            lines.append(f"{head}, {'nothing is wrong' if self.ok else 'DO NOT TRUST IT'}")
        return lines


class Observer(Protocol):
    """Looks at the same entries in the same order; `verify_database` compares rows this way."""

    def start(self) -> None:
        """Begin; the checkpoint of the files has been read by now, so that whoever looks now sees no less."""
        ...

    def take(self, index: int, hashes: Sequence[bytes]) -> None:
        """Look at one entry.

        Args:
            index: its place.
            hashes: the leaf hashes that the files give for it: of its bytes, and in the tile.
        """
        ...

    def sizes(self) -> Iterator[int]:
        """Ask for the roots over the first so many entries: sizes in rising order."""
        ...

    def passed(self, size: int, roots: Sequence[bytes]) -> None:
        """Learn the root of a size that was asked for: by the entries, and by the tiles."""
        ...


def verify_files(
    folder: Path,
    *,
    key: NoteKey | Sequence[NoteKey],
    since: str | None = None,
    observer: Observer | None = None,
    rules: LogInvariants | None = None,
    report: Report | None = None,
) -> Report:
    """Verify the log in *folder*; see the module for what is verified.

    Args:
        folder: the log's folder, or a copy of it.
        key: what checkpoints are signed with; several after a change of keys.
        since: text of a checkpoint that was kept outside the pool.
        observer: looks at the entries too.
        rules: to be fed; made here if not given.
        report: to be filled; made here if not given.
    """
    report = Report() if report is None else report
    keys = [key] if isinstance(key, NoteKey) else list(key)
    files = TileFiles(folder)
    # (1)
    checkpoint = _checkpoint(files.read("checkpoint"), keys, report, "checkpoint")
    kept = None if since is None else _checkpoint(since.encode(), keys, report, "since")
    if checkpoint is None:
        return report
    report.checkpoint = checkpoint
    if kept is not None:
        _compare_heads(checkpoint, kept, report)
    # (2), (4)
    if observer is not None:
        observer.start()
    walk = _Walk(files, checkpoint, report, kept, observer, rules or LogInvariants(report.tell))
    walk.run()
    # (3)
    if kept is not None and kept.size <= checkpoint.size and walk.root_since != kept.root:
        report.tell(
            "since.fork",
            None,
            f"the first {kept.size} entries have another root than the checkpoint kept outside: what it covered was "
            "changed, removed or put in another order, and signed anew",
        )
    return report


class _Walk:
    """Reads all bundles and tiles once, side by side, and builds two trees: one of entries, one of leaf tiles.

    Where they differ, the one with the signed root is right, and the other one's file was touched.
    """

    def __init__(
        self,
        files: TileFiles,
        checkpoint: Checkpoint,
        report: Report,
        kept: Checkpoint | None,
        observer: Observer | None,
        rules: LogInvariants,
    ) -> None:
        self._files = files
        self._size = checkpoint.size
        self._signed = checkpoint.root
        self._report = report
        self._kept = kept
        self._observer = observer
        self._rules = rules
        self._by_entries = Frontier()
        self._by_tiles = Frontier()
        self._levels: list[list[tuple[bytes, bytes]]] = []  # from level 1 up: roots by entries, and by tiles
        self._differences: list[tuple[int, list[bytes] | None, list[bytes] | None]] = []
        self._wanted = heapq.merge(observer.sizes() if observer else (), [kept.size] if kept else ())
        self._next = next(self._wanted, None)
        self._since: tuple[bytes, bytes] | None = None

    def run(self) -> None:
        self._note(self._by_entries, self._by_tiles)
        for number in range((self._size + WIDTH - 1) // WIDTH):
            self._bundle(number)
        for level in range(len(self._levels)):
            self._tile(level + 1, self._levels[level], (self._size >> 8 * (level + 1)) // WIDTH)
        self._rules.end()
        self._judge()

    @property
    def root_since(self) -> bytes | None:
        """The root over as many entries as the kept checkpoint covers, from the tree that is right."""
        return None if self._since is None else self._since[self._right]

    def _bundle(self, number: int) -> None:
        width = tile_width(0, number, self._size)
        first = number * WIDTH
        leaves = self._leaves(number, width)
        by_entries = None if leaves is None else [leaf_hash(leaf) for leaf in leaves]
        by_tile = self._hashes(0, number, width)
        if by_entries != by_tile and len(self._differences) < _KEPT_BUNDLES:
            self._differences.append((number, by_entries, by_tile))
        # A bundle of another length cannot stand for its place in the tree: there the tile does.
        if by_entries is None or len(by_entries) != width:
            leaves, entry_hashes = None, by_tile or [bytes(HASH_SIZE)] * width
        else:
            entry_hashes = by_entries
            self._report.entries += width
        tile_hashes = by_tile or entry_hashes
        for at in range(width):
            if leaves is not None and entry_hashes[at] == tile_hashes[at]:
                self._rules.take(first + at, leaves[at])
            else:
                self._rules.blind()  # one of the two was touched; what it was is told by `_judge`
            if self._observer is not None:
                self._observer.take(first + at, (entry_hashes[at], tile_hashes[at]))
        self._grow(entry_hashes, tile_hashes)

    def _grow(self, entry_hashes: list[bytes], tile_hashes: list[bytes]) -> None:
        start, end = self._by_entries.size, self._by_entries.size + len(entry_hashes)
        trees = None
        while (wanted := self._next) is not None and wanted < end:  # somebody wants a root within this bundle
            trees = trees or (self._by_entries.copy(), self._by_tiles.copy())
            done = trees[0].size - start
            trees[0].extend(entry_hashes[done : wanted - start])
            trees[1].extend(tile_hashes[done : wanted - start])
            self._note(*trees)
        if len(entry_hashes) == WIDTH:
            roots = root_of(entry_hashes), root_of(tile_hashes)
            self._by_entries.append_complete(roots[0], WIDTH)
            self._by_tiles.append_complete(roots[1], WIDTH)
            self._rise(roots)
        else:
            self._by_entries.extend(entry_hashes)
            self._by_tiles.extend(tile_hashes)
        self._note(self._by_entries, self._by_tiles)

    def _rise(self, roots: tuple[bytes, bytes]) -> None:
        """Carry the roots of full tiles up, and compare each upper tile once it is full."""
        level = 1
        while True:
            if len(self._levels) < level:
                self._levels.append([])
            hashes = self._levels[level - 1]
            hashes.append(roots)
            if len(hashes) < WIDTH:
                return
            self._tile(level, hashes, (self._by_entries.size >> 8 * (level + 1)) - 1)
            self._levels[level - 1] = []
            roots = root_of([one for one, _ in hashes]), root_of([other for _, other in hashes])
            level += 1

    def _tile(self, level: int, expected: list[tuple[bytes, bytes]], number: int) -> None:
        if not expected:
            return
        found = self._hashes(level, number, len(expected))
        if found is None:
            return
        wrong = [at for at, (one, both) in enumerate(zip(found, expected, strict=True)) if one not in both]
        if wrong:
            path = tile_path(level, number, len(expected))
            self._report.tell("tile.changed", None, f"{path}: {len(wrong)} hashes are not those of the tiles below")

    def _note(self, by_entries: Frontier, by_tiles: Frontier) -> None:
        """Return the roots of this size to whoever asked for them."""
        while self._next is not None and self._next <= by_entries.size:
            if self._next == by_entries.size:
                roots = by_entries.root(), by_tiles.root()
                if self._kept is not None and self._kept.size == self._next:
                    self._since = roots
                if self._observer is not None:
                    self._observer.passed(self._next, roots)
            self._next = next(self._wanted, None)

    @property
    def _right(self) -> int:
        """0 when the tree of entries has the signed root, 1 when only that of the tiles has; 0 when neither."""
        return int(self._by_tiles.root() == self._signed != self._by_entries.root())

    def _judge(self) -> None:
        """Name what differs, now that the roots tell which side is right."""
        entries_hold = self._by_entries.root() == self._signed
        tiles_hold = self._by_tiles.root() == self._signed
        for number, by_entries, by_tile in self._differences:
            if by_entries is None or by_tile is None:
                continue  # told as missing
            if entries_hold and len(by_entries) == len(by_tile):
                _tell_tile(self._report, number, by_entries, by_tile)
            else:
                _tell_entries(self._report, number, by_entries, by_tile)
        if not entries_hold and not tiles_hold:
            self._report.tell(
                "root.mismatch",
                None,
                f"neither entries nor tiles lead to the signed root of {self._size} entries: the log was changed after "
                "it was signed",
            )

    def _leaves(self, number: int, width: int) -> list[bytes] | None:
        path = tile_path(ENTRIES, number, width)
        last = number * WIDTH + width - 1
        try:
            bundle = self._files.tile(ENTRIES, number, width)
            if bundle is not None:
                return decode_bundle(bundle)
            self._report.tell("entries.missing", number * WIDTH, f"{path}, with entries to {last}, is missing")
        except CorruptError as error:
            self._report.tell("entries.unreadable", number * WIDTH, f"{path}, with entries to {last}: {error}")
        return None

    def _hashes(self, level: int, number: int, width: int) -> list[bytes] | None:
        path = tile_path(level, number, width)
        content = self._files.tile(level, number, width)
        if content is None:
            self._report.tell("tile.missing", None, f"{path} is missing")
        elif len(content) != width * HASH_SIZE:
            self._report.tell("tile.length", None, f"{path} has {len(content)} bytes; expected {width * HASH_SIZE}")
        else:
            return [content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)]
        return None


def _checkpoint(content: bytes | None, keys: list[NoteKey], report: Report, kind: str) -> Checkpoint | None:
    if content is None:
        report.tell(f"{kind}.missing", None, "there is no checkpoint; is this a log's folder?")
        return None
    try:
        return parse_checkpoint(open_note(content.decode(), keys))
    except (InvalidError, UnicodeDecodeError) as error:
        report.tell(f"{kind}.signature", None, str(error))
        return None


def _compare_heads(checkpoint: Checkpoint, kept: Checkpoint, report: Report) -> None:
    if kept.origin != checkpoint.origin:
        report.tell(
            "since.origin", None, f"the log is {checkpoint.origin!r}, the checkpoint kept outside {kept.origin!r}"
        )
    if kept.size > checkpoint.size:
        report.tell(
            "log.shorter",
            checkpoint.size,
            f"the log has {checkpoint.size} entries, the checkpoint kept outside covers {kept.size}: the newest "
            f"{kept.size - checkpoint.size} were cut off",
        )


def _tell_tile(report: Report, number: int, by_entries: list[bytes], by_tile: list[bytes]) -> None:
    wrong = [at for at, (one, other) in enumerate(zip(by_entries, by_tile, strict=False)) if one != other]
    path = tile_path(0, number, len(by_tile))
    report.tell(
        "tile.changed", number * WIDTH + wrong[0] if wrong else None, f"{path}: {len(wrong)} leaf hashes differ"
    )


def _tell_entries(report: Report, number: int, found: list[bytes], signed: list[bytes]) -> None:
    """Return what happened to a bundle, whose hashes are *found* and should be *signed*."""
    first = number * WIDTH
    wrong = [at for at, (one, other) in enumerate(zip(found, signed, strict=False)) if one != other]
    at = wrong[0] if wrong else min(len(found), len(signed))
    if len(found) < len(signed):
        lost = len(signed) - len(found)
        what = f"{lost} of {len(signed)} entries of the bundle are gone"
        if found[at:] == signed[at + lost :]:
            what = f"{lost} entries are gone from here on" if lost > 1 else "the entry is gone"
        report.tell("entry.deleted", first + at, what)
    elif len(found) > len(signed):
        report.tell("entry.inserted", first + at, f"{len(found) - len(signed)} entries too many stand in the bundle")
    elif sorted(found) == sorted(signed):
        places = ", ".join(str(first + k) for k in wrong[:5])
        report.tell("entry.swapped", first + at, f"the entries at {places} have changed places")
    else:
        for k in wrong:
            report.tell("entry.changed", first + k, "the entry's bytes do not fit the hash that was signed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify a log's files from the command line; give the exit code: 0 all is well, 1 it is not, 2 wrongly called."""
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
