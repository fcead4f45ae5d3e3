"""The sequencer: puts durable entries into the signed log, about once a second.

    (1) places       entries without a place get the next ones; committed before anything is written or signed
    (2) tiles        placed leaves go into tiles, full and partial; durable before anything is signed
    (3) signature    the root over all placed leaves, unless a checkpoint of this size stands
    (4) row          the checkpoint in the store, unique by its size
    (5) file         `checkpoint`, last, so that whoever reads it finds every tile that it needs

A size has one root, for places are committed before (2) begins and never change; whatever a sequencer that was
paused for an hour does next, it cannot sign a second tree. Everything after (1) follows from the stored leaves and
may be done again, by this sequencer or another, after a crash at any point.

It stops, and says so, rather than sign what contradicts what was signed: when placed entries are missing or their
bytes do not fit their hashes, when the stored checkpoint is not its own or not that of the stored leaves, when the
folder holds a later checkpoint than the store (somebody restored an old database), and when the clock went back by
more than a second.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exchange.audit.note import NoteKey, Signer, checkpoint_text, open_note, parse_checkpoint, sign_note
from exchange.audit.store import CheckpointRow, LogStore, Sealed
from exchange.audit.tiles import Edge, TileFiles
from schemas.audit import Checkpoint
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import leaf_hash

__all__ = ["CHECKPOINT", "Sequencer", "Step"]

CHECKPOINT = "checkpoint"
_BATCH = 4096  # entries placed in one transaction
_BACKWARD = 1_000_000  # microseconds that the clock may go back


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
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
        signer: Signer,
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
        self._seen = 0  # highest time seen

    def step(self) -> Step:
        """Do (1) to (5) for all that waits.

        Raises:
            CorruptError: LOG_CORRUPT or LEAF_MISMATCH; nothing is signed until an auditor has looked.
            UnavailableError: the store or the folder do not answer, or CLOCK_JUMPED; may be tried again.
        """
        try:
            return self._step()
        except BaseException:  # whatever it was, the pool's own or a driver's
            self._edge = None  # what is in memory may be ahead of the files: begin the next step from them
            raise

    def run(self, stop: threading.Event, alarm: Callable[[Exception | None], None], *, interval: float = 1.0) -> None:
        """Step about every *interval* seconds until *stop* is set.

        *alarm* is called with the error of each step that failed, and with None after each one that did not.
        """
        while not stop.is_set():
            try:
                self.step()
            except Exception as error:  # noqa: BLE001 - handed on; the next step begins again
                alarm(error)
            else:
                alarm(None)
            stop.wait(interval)

    def _step(self) -> Step:
        now = self._clock()
        self._check_time(now)
        edge = self._edge
        if edge is None:
            edge = self._edge = self._recover(now)
        # (1)
        placed = 0
        while count := self._log.claim(self._batch):
            placed += count
            if count < self._batch:
                break
        # (2) What stands is read before what is placed: a row that is published later covers no more than we read.
        standing = self._log.latest_checkpoint()
        if standing is not None and standing.size >= edge.size:
            self._advance(edge, standing.size)
            self._agree(edge, standing)
        self._advance(edge, None)
        if standing is None or standing.size < edge.size:
            for path, content in edge.partials():
                self._files.write(path, content)
            # (3)
            checkpoint = Checkpoint(origin=self._origin, size=edge.size, root=edge.root())
            note = sign_note(checkpoint_text(checkpoint), [self._signer])
            # (4)
            row = CheckpointRow(size=checkpoint.size, root=checkpoint.root, note=note, at=now)
            standing = self._log.put_checkpoint(row)
            published = standing == row
        else:
            published = False
            if self._files.read(CHECKPOINT) != standing.note.encode():
                for path, content in edge.partials():
                    self._files.write(path, content)
        # (5) Another sequencer may have published a later one while this one was at it; that one's file stays.
        latest = self._log.latest_checkpoint()
        if latest is not None and latest.size == standing.size:
            self._files.write(CHECKPOINT, standing.note.encode())
        return Step(placed=placed, size=edge.size, published=published)

    def _check_time(self, now: int) -> None:
        if now < self._seen - _BACKWARD:
            raise UnavailableError(
                Reason.CLOCK_JUMPED,
                f"the clock went back by {self._seen - now} µs; nothing is signed until it has caught up: mend the "
                "time service",
                retry_after=(self._seen - now) / 1e6,
            )
        self._seen = max(self._seen, now)

    def _advance(self, edge: Edge, end: int | None) -> None:
        """Take placed leaves in, up to index *end*, and write the tiles that they fill."""
        if end is not None and end <= edge.size:
            return
        filled: list[str] = []
        with self._log.sealed(edge.size, end) as leaves:
            for one in leaves:
                _check(one, edge.size)
                for path, content in edge.append(one.leaf, one.leaf_hash):
                    self._files.write(path, content)
                    filled.append(path)
        if end is not None and edge.size < end:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"a checkpoint covers {end} entries, and the store holds {edge.size} of them: entries were removed",
            )
        for path in filled:
            self._files.drop_partials(path)

    def _agree(self, edge: Edge, standing: CheckpointRow) -> None:
        if edge.size == standing.size and edge.root() != standing.root:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the stored entries have another root than the checkpoint of size {standing.size}: entries were "
                "changed after they were signed (`pool audit verify` names them)",
            )

    def _recover(self, now: int) -> Edge:
        """Load the edge where the last checkpoint left it; write again from the store what the folder lacks."""
        standing = self._log.latest_checkpoint()
        if standing is not None:
            self._check_note(standing)
            self._seen = max(self._seen, standing.at)
            self._check_time(now)
        filed = self._filed(standing)
        size = standing.size if standing else 0
        edge = self._files.edge(size)
        whole = edge is not None and self._files.missing(size) is None
        if edge is None or not whole or (standing is not None and edge.root() != standing.root):
            edge = Edge()
            self._advance(edge, size)
            if standing is not None:
                self._agree(edge, standing)
            for path, content in edge.partials():
                self._files.write(path, content)
        if filed is not None and self._files.root(filed.size, size) != filed.root:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the folder's checkpoint of size {filed.size} is no prefix of the store's log: one of the two is "
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

    def _filed(self, standing: CheckpointRow | None) -> Checkpoint | None:
        """Return the folder's checkpoint; refuse to go on from a store that is older than the folder."""
        content = self._files.read(CHECKPOINT)
        if content is None:
            return None
        try:
            filed = parse_checkpoint(open_note(content.decode(), self._keys))
        except (InvalidError, UnicodeDecodeError) as error:
            raise CorruptError(
                Reason.LOG_CORRUPT, "the folder's checkpoint is not signed by this log; put the log's own folder there"
            ) from error
        if standing is None or filed.size > standing.size:
            raise CorruptError(
                Reason.LOG_CORRUPT,
                f"the folder's checkpoint covers {filed.size} entries, the store's {standing.size if standing else 0}: "
                "the store is an older copy, and going on would sign a second tree",
            )
        return filed


def _check(one: Sealed, expected: int) -> None:
    if one.index != expected:
        raise CorruptError(
            Reason.LOG_CORRUPT, f"entry {expected} is missing in the store; the next one there is {one.index}"
        )
    if leaf_hash(one.leaf) != one.leaf_hash:
        raise CorruptError(
            Reason.LEAF_MISMATCH, f"the stored bytes of entry {one.index} do not fit its hash; it was changed"
        )
