"""Inclusion proofs as files: that an entry is in the log, to be checked offline by anyone who has the key.

    text = prove(Path("data/log"), index)        C2SP tlog-proof@v1, to be kept as `<id>.tlog-proof`
    proven = check_proof(text, [key])            without log, database or network

The file carries the entry's own bytes as extra data. They are believed only because their hash leads to the root
that the log signed. For those who may not see all of the entry it carries the 32 bytes of its leaf hash in their place:
it then proves that the entry with this hash is in the log, and nothing about what the entry says.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exchange.audit.note import NoteKey, open_note, parse_checkpoint
from exchange.audit.tiles import TileFiles
from schemas.audit import Checkpoint, InclusionProof
from schemas.errors import CorruptError, InvalidError, Reason, UnavailableError
from schemas.merkle import HASH_SIZE, inclusion_proof, leaf_hash, verify_inclusion

__all__ = ["ProvenEntry", "check_proof", "log_behind", "prove"]

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_PATH = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenEntry:
    """What a proof file proves: these bytes are entry `index` of the log that the checkpoint is of.

    `leaf` is None where the file carries the leaf's hash alone.
    """

    index: int
    leaf: bytes | None
    leaf_hash: bytes
    checkpoint: Checkpoint


def prove(folder: Path, index: int, *, by_hash: bool = False) -> str:
    """Return the proof file of an entry under the folder's checkpoint; *by_hash*: with its hash in place of its bytes.

    Raises:
        UnavailableError: LOG_BEHIND, the checkpoint does not cover that entry yet; about a second after it was written.
        CorruptError: LOG_CORRUPT, a tile is missing, or the entry's bytes do not lead to the signed root.
    """
    files = TileFiles(folder)
    content = files.read("checkpoint")
    if content is None:
        raise log_behind()
    note = content.decode()
    # The signature is not verified here: who checks the proof has the key. The form must be right.
    checkpoint = parse_checkpoint(note.rpartition("\n\n")[0] + "\n")
    if index >= checkpoint.size:
        raise log_behind()
    leaf = files.leaf(index, checkpoint.size)
    digest = leaf_hash(leaf)
    proof = inclusion_proof(index, checkpoint.size, files.subtree(checkpoint.size))
    if not verify_inclusion(digest, proof, checkpoint.root):
        raise CorruptError(
            Reason.LOG_CORRUPT,
            f"entry {index} does not lead to the signed root; `pool audit verify` names what is wrong",
        )
    lines = [
        _HEADER,
        f"extra {_base64(digest if by_hash else leaf)}",
        f"index {index}",
        *map(_base64, proof.path),
        "",
        note,
    ]
    return "\n".join(lines)


def check_proof(text: str, keys: Sequence[NoteKey]) -> ProvenEntry:
    """Check a proof file; what it returns is proven.

    Raises:
        InvalidError: SIGNATURE_INVALID, the checkpoint is not signed by these keys; LEAF_MISMATCH, the entry does not
            lead to its root; REQUEST_INVALID, another form, or a file without the entry's bytes.
    """
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    if len(lines) < 3 or lines[0] != _HEADER or not lines[1].startswith("extra ") or len(lines) > _MAX_PATH + 3:
        raise _form("expected its header, the entry as extra data, its index and the path")
    extra, index = _bytes(lines[1].removeprefix("extra ")), lines[2].removeprefix("index ")
    # No entry is as short as a hash: its pool, id and time alone are longer.
    leaf, digest = (None, extra) if len(extra) == HASH_SIZE else (extra, leaf_hash(extra))
    exact = len(index) < 20 and index.isascii() and index.isdigit() and str(int(index)) == index
    if not lines[2].startswith("index ") or not exact:
        raise _form("the third line is not `index` and a number")
    checkpoint = parse_checkpoint(open_note(note, keys))
    proof = InclusionProof(index=int(index), size=checkpoint.size, path=tuple(map(_bytes, lines[3:])))
    if not verify_inclusion(digest, proof, checkpoint.root):
        raise InvalidError(
            Reason.LEAF_MISMATCH, f"the proof does not hold: these bytes are not entry {index} of {checkpoint.origin}"
        )
    return ProvenEntry(index=proof.index, leaf=leaf, leaf_hash=digest, checkpoint=checkpoint)


def log_behind() -> UnavailableError:
    """Return the error of an entry that no signed checkpoint covers yet."""
    return UnavailableError(
        Reason.LOG_BEHIND, "the entry is durable and not yet in the signed log; ask again in a second", retry_after=1.0
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _form("a line is not base64") from error


def _form(why: str) -> InvalidError:
    return InvalidError(Reason.REQUEST_INVALID, f"got a text that is no proof of an entry ({_HEADER}): {why}")
