"""Sequencer: puts durable entries into the signed log, about once a second.

    (1) indexes      entries without an index get the next ones; committed before anything is written or signed
    (2) tiles        placed leaves go into tiles, full and partial; durable before anything is signed
    (3) signature    the root over all placed leaves, unless a checkpoint of this size is stored
    (4) row          the checkpoint in the store, unique by its size
    (5) file         `checkpoint`, last, so that its readers find every tile that they need

A size has one root, for indexes are committed before (2) begins and never change; whatever a sequencer that was
paused for an hour does next, it cannot sign a second tree. Everything after (1) follows from the stored leaves and
may be repeated, by this sequencer or another, after a crash at any point.

It stops, with an error, rather than sign what contradicts what was signed: when placed entries are missing or their
bytes do not match their hashes, when the stored checkpoint is not its own or not that of the stored leaves, when the
folder holds a later checkpoint than the store (an old database was restored), and when the clock went back by more
than a second, until it has caught up or two persons have settled it (`exchange.control.clock`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange.audit.note import NoteKey, NoteSigner, checkpoint_text, open_note, parse_checkpoint, sign_note
from exchange.audit.store import CheckpointRow, LogStore, PlacedLeaf
from exchange.audit.tiles import Edge, TileFiles
from schemas.access import Action
from schemas.audit import Checkpoint, read_leaf
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import leaf_hash

__all__ = ["CHECKPOINT", "Sequencer", "SequencerStep"]

CHECKPOINT = "checkpoint"
_BATCH = 4096  # entries placed in one transaction
_BACKWARD = 1_000_000  # microseconds that the clock may go back
_SETTLED = 600_000_000  # microseconds after which what two persons settled is too old to be of this clock


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencerStep:
    """What one step did: entries placed by it, size of the log now, whether it published a new checkpoint."""

    placed: int
    size: int
    published: bool


class Sequencer:
    """Builds the log in one folder from one store. Any number may run; they never contradict each other.

    Args:
        log: the store.
        folder: the log's folder, DIR/log.
        signer: signs checkpoints; its name should be the origin.
        origin: names the log, such as `pool.example.gov/audit`; never changes.
        clock: microseconds UTC.
        former: keys that signed earlier checkpoints, after a change of keys.
    """

    def __init__(
        self,
        log: LogStore,
        folder: Path,
        *,
        signer: NoteSigner,
        origin: str,
        clock: Callable[[], int],
        former: Sequence[NoteKey] = (),
        batch: int = _BATCH,
    ) -> None:
        self._log = log
        self._files = TileFiles(folder)
        self._signer = signer
        self._keys = (signer.key, *former)
        self._origin = origin
        self._clock = clock
        self._batch = batch
        self._edge: Edge | None = None
        self._latest_time = 0  # highest time that the clock or a stored checkpoint had

    def step(self) -> SequencerStep:
        """Carry out (1) to (5) for all entries that have no index yet.

        Raises:
            CorruptError: LOG_CORRUPT or LEAF_MISMATCH; nothing is signed until an auditor has looked.
            UnavailableError: the store or the folder do not answer, or CLOCK_JUMPED; may be retried.
        """
        try:
            return self._step()
        except BaseException:  # the pool's own errors and a driver's alike
            self._edge = None  # what is in memory may be ahead of the files: the next step loads them
            raise

    def _step(self) -> SequencerStep:
        now = self._clock()
        self._check_time(now)
        edge = self._edge
        if edge is None:
            edge = self._edge = self._recover(now)
        # (1)
        placed = 0
        while count := self._log.assign_indexes(self._batch):
            placed += count
            if count < self._batch:
                break
        # (2) The checkpoint is read before the leaves: it then covers no more of them than are read here.
        stored = self._log.latest_checkpoint()
        if stored is not None and stored.size >= edge.size:
            self._advance(edge, stored.size)
            self._check_root(edge, stored)
        self._advance(edge, None)
        if stored is None or stored.size < edge.size:
            for path, content in edge.partials():
                self._files.write(path, content)
            # (3)
            checkpoint = Checkpoint(origin=self._origin, size=edge.size, root=edge.root())
            note = sign_note(checkpoint_text(checkpoint), [self._signer])
            # (4)
            row = CheckpointRow(size=checkpoint.size, root=checkpoint.root, note=note, at=now)
            stored = self._log.put_checkpoint(row)
            published = stored == row
        else:
            published = False
            if self._files.read(CHECKPOINT) != stored.note.encode():
                for path, content in edge.partials():
                    self._files.write(path, content)
        # (5) Another sequencer may have published a later one meanwhile; then its file stays.
        latest = self._log.latest_checkpoint()
        if latest is not None and latest.size == stored.size:
            self._files.write(CHECKPOINT, stored.note.encode())
        return SequencerStep(placed=placed, size=edge.size, published=published)

    def _check_time(self, now: int) -> None:
        if now < self._latest_time - _BACKWARD:
            settled = self._settled(now)
            if settled is not None:
                self._latest_time = settled
        if now < self._latest_time - _BACKWARD:
            raise UnavailableError(
                Reason.CLOCK_JUMPED,
                f"the clock went back by {self._latest_time - now} µs; nothing is signed until it has caught up: mend "
                "the time service, or settle it by two persons (`pool clock settle`)",
                retry_after=(self._latest_time - now) / 1e6,
            )
        self._latest_time = max(self._latest_time, now)

    def _settled(self, now: int) -> int | None:
        """Return the time that two persons have settled since the last signature, where it is that of the clock.

        Once their entry is signed it settles nothing more: the checkpoint then has the new time.
        """
        for leaf in self._log.gateway_entries(Action.CLOCK_SETTLE, unsigned=True):
            data: Any = read_leaf(leaf)["data"]
            if abs(now - data["to"]) <= _SETTLED:
                return int(data["to"])
        return None

    def _advance(self, edge: Edge, end: int | None) -> None:
        """Append placed leaves to the edge, up to index *end*, and write the tiles that they fill."""
        if end is not None and end <= edge.size:
            return
        filled: list[str] = []
        with self._log.placed(edge.size, end) as leaves:
            for placed in leaves:
                _check_leaf(placed, edge.size)
                for path, content in edge.append(placed.leaf, placed.leaf_hash):
                    self._files.write(path, content)
                    filled.append(path)
        if end is not None and edge.size < end:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"a checkpoint covers {end} entries, and the store holds {edge.size} of them: entries were removed",
            )
        for path in filled:
            self._files.drop_partials(path)

    def _check_root(self, edge: Edge, stored: CheckpointRow) -> None:
        if edge.size == stored.size and edge.root() != stored.root:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the stored entries have another root than the checkpoint of size {stored.size}: entries were "
                "changed after they were signed (`pool audit verify` names them)",
            )

    def _recover(self, now: int) -> Edge:
        """Load the edge as of the last checkpoint; write the tiles that the folder lacks again, from the store."""
        stored = self._log.latest_checkpoint()
        if stored is not None:
            self._check_note(stored)
            self._latest_time = max(self._latest_time, stored.at)
            self._check_time(now)
        in_folder = self._folder_checkpoint(stored)
        size = stored.size if stored else 0
        edge = self._files.edge(size)
        complete = edge is not None and self._files.missing(size) is None
        if edge is None or not complete or (stored is not None and edge.root() != stored.root):
            edge = Edge()
            self._advance(edge, size)
            if stored is not None:
                self._check_root(edge, stored)
            for path, content in edge.partials():
                self._files.write(path, content)
        if in_folder is not None and self._files.root(in_folder.size, size) != in_folder.root:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the folder's checkpoint of size {in_folder.size} is no prefix of the store's log: one of the two is "
                "forged, and nothing is signed until an auditor has looked (`pool audit verify`)",
            )
        return edge

    def _check_note(self, row: CheckpointRow) -> None:
        try:
            checkpoint = parse_checkpoint(open_note(row.note, self._keys))
        except InvalidError as error:
            raise CorruptError(
                Reason.LOG_CORRUPT, f"the stored checkpoint of size {row.size} is not signed by this log: {error}"
            ) from error
        if checkpoint != Checkpoint(origin=self._origin, size=row.size, root=row.root):
            raise CorruptError(
                Reason.LOG_CORRUPT, f"the stored checkpoint of size {row.size} says something else than its signed note"
            )

    def _folder_checkpoint(self, stored: CheckpointRow | None) -> Checkpoint | None:
        """Return the folder's checkpoint; raise where the store is older than the folder."""
        content = self._files.read(CHECKPOINT)
        if content is None:
            return None
        try:
            in_folder = parse_checkpoint(open_note(content.decode(), self._keys))
        except (InvalidError, UnicodeDecodeError) as error:
            raise CorruptError(
                Reason.LOG_CORRUPT, "the folder's checkpoint is not signed by this log; put the log's own folder there"
            ) from error
        if stored is None or in_folder.size > stored.size:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the folder's checkpoint covers {in_folder.size} entries, the store's {stored.size if stored else 0}: "
                "the store is an older copy, and going on would sign a second tree",
            )
        return in_folder


def _check_leaf(placed: PlacedLeaf, expected: int) -> None:
    if placed.index != expected:
        raise CorruptError(
            Reason.LOG_CORRUPT, f"entry {expected} is missing in the store; the next one there is {placed.index}"
        )
    if leaf_hash(placed.leaf) != placed.leaf_hash:
        raise CorruptError(
            Reason.LEAF_MISMATCH, f"the stored bytes of entry {placed.index} do not fit its hash; it was changed"
        )
